"""The sizes of the embedded networks. No torch is imported here."""

from __future__ import annotations

from chashka.nets.configs import (
    AutoencoderConfig,
    ImageTowerConfig,
    JudgeConfig,
    T5Config,
    TextEncoderConfig,
    TextHeadConfig,
    UNetConfig,
    UpscalerConfig,
)

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
    places=3,
)
TEACUP_TEXT_HEAD = TextHeadConfig(tokens1=256, pooled1=256, tokens2=192, context=256, added=256, heads=4)
TEACUP_TEXT = TextEncoderConfig()
TEACUP_T5 = T5Config()
TEACUP_IMAGE_TOWER = ImageTowerConfig()
TEACUP_UPSCALER = UpscalerConfig()
JUDGE = JudgeConfig()
