"""Configurations that only the published Kandinsky has, and the sizes of all of its networks. No torch is imported here.

Version 2.0: ai-forever/Kandinsky-2.0, ``kandinsky2/configs`` and the key inventories in ``tests/golden``. Version 2.1:
ai-forever/Kandinsky-2 ``configs.py``. Version 2.2 says its own in its folder's files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from chashka.errors import InputError
from chashka.nets import checks
from chashka.nets.configs import AutoencoderConfig, TextHeadConfig, UNetConfig


@dataclass(frozen=True, slots=True)
class PictureTextHeadConfig:
    """Kandinsky 2.1's head: text tokens, one pooled text and one picture's embedding become ``tokens`` and ``added``.

    The picture becomes ``pictures`` tokens before the text's. Without ``tokens1`` (0) it is Kandinsky 2.2's: pictures alone.
    """

    tokens1: int = 1024
    pooled1: int = 768
    picture: int = 768
    pictures: int = 10
    context: int = 768
    added: int = 1536

    def __post_init__(self) -> None:
        checks.positive(self, "picture", "pictures", "context", "added")
        if bool(self.tokens1) != bool(self.pooled1) or min(self.tokens1, self.pooled1) < 0:
            raise InputError(
                f"{checks.name(self)}: tokens1 is {self.tokens1} and pooled1 {self.pooled1}; both are set, or both are 0"
            )


@dataclass(frozen=True, slots=True)
class PriorConfig:
    """Kandinsky's prior: a transformer over a text's ``context`` tokens of ``text`` numbers, its pooled text, the time, the noisy
    embedding of ``picture`` numbers and a last token, from which the answer is read."""

    picture: int = 768
    text: int = 768
    context: int = 77
    width: int = 2048
    layers: int = 20
    heads: int = 32

    def __post_init__(self) -> None:
        checks.positive(self, "picture", "text", "context", "width", "layers", "heads")
        checks.divides(self, "heads", "width")


UNET_20 = UNetConfig(
    in_channels=4,
    out_channels=8,
    width=384,
    mult=(1, 2, 3, 4),
    res_blocks=3,
    attention_levels=(1, 2, 3),
    head_width=64,
    context=768,
    resample="resblock",
    scale_shift=True,
)
UNET_20_INPAINTING = replace(UNET_20, in_channels=9)
TEXT_HEAD_20 = TextHeadConfig()
AUTOENCODER_20 = AutoencoderConfig()
SCALE_20 = 0.0512
"""Latents are the autoencoder's times this number."""

UNET_21 = UNET_20
UNET_21_INPAINTING = UNET_20_INPAINTING
HEAD_21 = PictureTextHeadConfig()
PRIOR_21 = PriorConfig()
MOVQ = AutoencoderConfig(mult=(1, 2, 2, 4), decoder_mult=(1, 2, 2, 4), attention_levels=(3,), variational=False)
