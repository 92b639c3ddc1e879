"""Kandinsky: latent diffusion with two multilingual text encoders whose outputs are joined, as in version 2.0.

One encoder is contrastive (its pooled vector is added to the time embedding), the other is T5's; the text head brings both
to one width and puts their tokens one after the other. ``teacup`` is the small model inside the package; ``2.0`` are the published
checkpoints (docs/kandinsky.md).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import chashka
from chashka.families.family import Family, Preset
from chashka.families.kandinsky.opening import COMPONENTS, PICTURE, UPSCALER, open_teacup
from chashka.families.kandinsky.options import Options
from chashka.families.kandinsky.published import INPAINTING, SHARED, TEXT, open_inpainting, open_text

TEACUP = Preset(
    name="teacup",
    folder=Path(chashka.__file__).parent / "teacup" / "kandinsky",
    files=tuple(f"{part}.{suffix}" for part in COMPONENTS for suffix in ("xml", "safetensors")),
    area=256 * 256,
    multiple=64,
    summary="objects on transparent ground, 256x256 with alpha, in many languages",
    licence="Apache-2.0; trained on openly licensed pictures, see ATTRIBUTION.md",
    open=open_teacup,
    optional=tuple(f"{part}.{suffix}" for part in (PICTURE, UPSCALER) for suffix in ("xml", "safetensors")),
)
PUBLISHED = Preset(
    name="2.0",
    folder=None,
    files=(TEXT, *SHARED),
    area=512 * 512,
    multiple=64,
    summary="the published model of November 2022: pictures from text and from pictures, 512x512",
    licence="the publisher's",
    open=open_text,
    free=True,
    homes=("2_0",),
)
INPAINTING_20 = replace(
    PUBLISHED,
    name="2.0-inpainting",
    files=(INPAINTING, *SHARED),
    summary="the published model that takes a mask: what is white in it is drawn anew",
    open=open_inpainting,
    homes=("kandinsky-2.0", "2_0"),
)
FAMILY = Family("kandinsky", {preset.name: preset for preset in (TEACUP, PUBLISHED, INPAINTING_20)}, Options)
