"""Configurations of every network, as frozen dataclasses without torch: they are stored in the weight files."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from chashka.errors import WeightsError

Config = TypeVar("Config")


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """AutoencoderKL of latent diffusion; the defaults are Stable Diffusion 1.x.

    ``width`` times ``mult`` are the encoder's channels by level; every level but the last halves the size. The decoder has
    its own ``decoder_width`` and ``decoder_mult``, and one block more a level than ``decoder_res_blocks``, as in the
    original. Teacup extras, off by default: ``stem`` s unshuffles s×s pixels into channels before the first convolution and
    shuffles them back after the last; ``shortcuts`` adds DC-AE's parameter-free paths around the resamplers
    (arXiv 2410.10733); ``mid_attention`` False leaves the middle's attention out.
    """

    in_channels: int = 3
    out_channels: int = 3
    width: int = 128
    mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    z_channels: int = 4
    decoder_width: int = 128
    decoder_mult: tuple[int, ...] = (1, 2, 4, 4)
    decoder_res_blocks: int = 2
    stem: int = 1
    shortcuts: bool = False
    mid_attention: bool = True
    norm_groups: int = 32


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The U-Net of guided-diffusion, latent diffusion and Kandinsky 2.0.

    ``width`` times ``mult`` are the channels by level, ``res_blocks`` a level; ``attention_levels`` have attention, of kind
    'qkv' (self-attention, with the text's keys before the picture's where ``context`` is set) or 'transformer' (latent
    diffusion's spatial transformer). Exactly one of ``heads`` (a number for every level) and ``head_width`` is set.
    ``context`` is the width of text tokens. ``linear_proj``: the transformer's projections are linear (Stable Diffusion 2).
    ``resample`` 'conv' or 'resblock'. ``scale_shift``: the time embedding scales and shifts after the norm.
    Teacup extras, off by default: ``qk_norm`` normalises queries and keys of every head to a learned length; ``norm_groups``
    of GroupNorm; ``dropout`` in the residual blocks.
    """

    in_channels: int
    out_channels: int
    width: int
    mult: tuple[float, ...]
    res_blocks: int = 2
    attention_levels: tuple[int, ...] = ()
    attention: str = "qkv"
    heads: int | None = None
    head_width: int | None = None
    context: int | None = None
    linear_proj: bool = False
    resample: str = "conv"
    scale_shift: bool = False
    qk_norm: bool = False
    norm_groups: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if (self.heads is None) == (self.head_width is None):
            raise ValueError(f"exactly one of heads ({self.heads}) and head_width ({self.head_width}) must be set")
        if self.attention not in ("qkv", "transformer"):
            raise ValueError(f"attention is {self.attention!r}; allowed: 'qkv', 'transformer'")
        if self.resample not in ("conv", "resblock"):
            raise ValueError(f"resample is {self.resample!r}; allowed: 'conv', 'resblock'")

    def heads_of(self, channels: int) -> int:
        """Attention heads at a level of so many channels."""
        return self.heads or channels // (self.head_width or channels)


@dataclass(frozen=True, slots=True)
class TextHeadConfig:
    """Kandinsky 2.0's text head: two encoders' tokens and one pooled vector become ``tokens`` and ``added``.

    ``tokens1``, ``pooled1``, ``tokens2`` are the widths that come in; ``context`` and ``added`` those that go out; ``heads`` of
    the attention pooling over the second encoder's tokens.
    """

    tokens1: int = 1024
    pooled1: int = 640
    tokens2: int = 512
    context: int = 768
    added: int = 1536
    heads: int = 8


@dataclass(frozen=True, slots=True)
class TextEncoderConfig:
    """The teacup's contrastive text encoder; ``embed`` is the width of the factorised embedding table."""

    vocab: int = 32768
    embed: int = 96
    width: int = 256
    layers: int = 3
    heads: int = 4
    max_length: int = 32
    pooled: int = 256


@dataclass(frozen=True, slots=True)
class T5Config:
    """The teacup's T5-style encoder: ``ff`` is the inner width of the gated feed-forward; ``buckets`` of relative position."""

    vocab: int = 32768
    embed: int = 64
    width: int = 192
    layers: int = 3
    heads: int = 3
    ff: int = 512
    buckets: int = 16
    max_distance: int = 32


@dataclass(frozen=True, slots=True)
class ImageTowerConfig:
    """The teacup's picture tower: 64×64 RGBA → an 8×8 grid of ``width`` and a pooled vector."""

    in_channels: int = 4
    width: int = 192
    blocks: int = 2
    pooled: int = 256
    norm_groups: int = 16


TEACUP_AUTOENCODER = AutoencoderConfig(
    in_channels=4,
    out_channels=4,
    width=64,
    mult=(1, 2, 2),
    res_blocks=1,
    z_channels=16,
    decoder_width=80,
    decoder_mult=(1, 2, 2),
    decoder_res_blocks=1,
    stem=4,
    shortcuts=True,
    mid_attention=False,
    norm_groups=16,
)
TEACUP_UNET = UNetConfig(
    in_channels=16,
    out_channels=16,
    width=64,
    mult=(1, 2, 2),
    res_blocks=2,
    attention_levels=(1, 2),
    head_width=32,
    context=256,
    resample="resblock",
    scale_shift=True,
    qk_norm=True,
    dropout=0.0,
)
TEACUP_TEXT_HEAD = TextHeadConfig(tokens1=256, pooled1=256, tokens2=192, context=256, added=256, heads=4)
TEACUP_TEXT = TextEncoderConfig()
TEACUP_T5 = T5Config()
TEACUP_IMAGE_TOWER = ImageTowerConfig()


def to_json(config: Any) -> str:
    """A config as compact JSON with sorted keys, for a weight file's metadata."""
    return json.dumps(dataclasses.asdict(config), sort_keys=True, separators=(",", ":"))


def from_json(cls: type[Config], text: str) -> Config:
    """Read a config back. Raises WeightsError when its fields are not those of ``cls`` (a file of another version)."""
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return cls(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"this is not a {cls.__name__}: {error}") from error
