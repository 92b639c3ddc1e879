"""Stable Diffusion: latent diffusion with CLIP's text tower. Its checkpoints are files and folders, told by what is in them.

``teacup`` is the small model inside the package, which shares its autoencoder and its text encoder with Kandinsky's.
"""

from __future__ import annotations

from pathlib import Path

import chashka
from chashka.families.family import Family, Preset
from chashka.families.stable_diffusion.autoencoder import is_one
from chashka.families.stable_diffusion.opening import recognise
from chashka.families.stable_diffusion.options import Options
from chashka.families.stable_diffusion.teacup import ENLARGING, SHARED, UNET, open_teacup
from chashka.families.teacups import AREA, FAST, MULTIPLE

TEACUP = Preset(
    name="teacup",
    folder=Path(chashka.__file__).parent / "teacup" / "stable_diffusion",
    files=(*UNET, *(f"../kandinsky/{name}" for name in SHARED)),
    area=AREA,
    multiple=MULTIPLE,
    summary="the same things drawn the way of Stable Diffusion: its prompt grammar, its schedule, a U-Net of its own",
    licence="Apache-2.0; trained on openly licensed pictures, see ATTRIBUTION.md",
    open=open_teacup,
    optional=(*(f"../kandinsky/{name}" for name in ENLARGING), f"{FAST}.safetensors"),
)
FAMILY = Family("stable_diffusion", {TEACUP.name: TEACUP}, Options, recognise, is_one)
