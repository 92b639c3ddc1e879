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
from chashka.families.kandinsky import published, published_21, published_22
from chashka.families.kandinsky.opening import COMPONENTS, PICTURE, open_teacup
from chashka.families.kandinsky.options import Options
from chashka.families.teacups import FAST, UPSCALER

TEACUP = Preset(
    name="teacup",
    folder=Path(chashka.__file__).parent / "teacup" / "kandinsky",
    files=tuple(f"{part}.{suffix}" for part in COMPONENTS for suffix in ("xml", "safetensors")),
    area=256 * 256,
    multiple=64,
    summary="objects on transparent ground, 256x256 with alpha, in many languages",
    licence="Apache-2.0; trained on openly licensed pictures, see ATTRIBUTION.md",
    open=open_teacup,
    optional=(
        *(f"{part}.{suffix}" for part in (PICTURE, UPSCALER) for suffix in ("xml", "safetensors")),
        f"{FAST}.safetensors",
    ),
)
PUBLISHED = Preset(
    name="2.0",
    folder=None,
    files=(published.TEXT, *published.SHARED),
    area=512 * 512,
    multiple=64,
    summary="the published model of November 2022: pictures from text and from pictures, 512x512",
    licence="the publisher's",
    open=published.open_text,
    free=64,
    homes=("2_0",),
)
INPAINTING_20 = replace(
    PUBLISHED,
    name="2.0-inpainting",
    files=(published.INPAINTING, *published.SHARED),
    summary="its network that takes a mask: what is white in it is drawn anew",
    open=published.open_inpainting,
    homes=("kandinsky-2.0", "2_0"),
)
PUBLISHED_21 = replace(
    PUBLISHED,
    name="2.1",
    files=(published_21.DECODER, *published_21.SHARED),
    summary="the published model of 2023: pictures from text, from pictures and from mixtures of both",
    open=published_21.open_text,
    homes=("2_1",),
)
INPAINTING_21 = replace(
    PUBLISHED_21,
    name="2.1-inpainting",
    files=(published_21.INPAINTING, *published_21.SHARED),
    summary="its decoder that takes a mask",
    open=published_21.open_inpainting,
    homes=("kandinsky-2.1", "2_1"),
)
PUBLISHED_22 = replace(
    PUBLISHED,
    name="2.2",
    files=published_22.files(published_22.DECODER),
    summary="the later one of 2023, in diffusers' folders prior and decoder; likewise",
    open=published_22.open_text,
    homes=("2_2",),
)
INPAINTING_22 = replace(
    PUBLISHED_22,
    name="2.2-inpainting",
    files=published_22.files(published_22.INPAINTING),
    summary="its decoder that takes a mask",
    open=published_22.open_inpainting,
    homes=("kandinsky-2.2", "2_2"),
)
PRESETS = (TEACUP, PUBLISHED, INPAINTING_20, PUBLISHED_21, INPAINTING_21, PUBLISHED_22, INPAINTING_22)
FAMILY = Family("kandinsky", {preset.name: preset for preset in PRESETS}, Options)
