"""Stable Diffusion: latent diffusion with CLIP's text tower. Its checkpoints are files and folders, told by what is in them."""

from __future__ import annotations

from chashka.families.family import Family
from chashka.families.stable_diffusion.opening import recognise
from chashka.families.stable_diffusion.options import Options

FAMILY = Family("stable_diffusion", {}, Options, recognise)
