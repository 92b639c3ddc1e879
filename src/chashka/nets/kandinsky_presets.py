"""Sizes of the published Kandinsky networks. No torch is imported here.

Version 2.0: ai-forever/Kandinsky-2.0, ``kandinsky2/configs`` and the key inventories in ``tests/golden``. Version 2.1:
ai-forever/Kandinsky-2 ``configs.py``. Version 2.2 says its own in its folder's files.
"""

from __future__ import annotations

from dataclasses import replace

from chashka.nets.configs import AutoencoderConfig, PictureTextHeadConfig, PriorConfig, TextHeadConfig, UNetConfig

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
