"""The recipes by name, and recipes as JSON. Only the standard library is imported here."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from chashka.errors import TrainingError
from chashka.nets.teacup_configs import TEACUP_TEXT_HEAD, TEACUP_UNET
from chashka.training.fields import build
from chashka.training.recipes import (
    CHOOSING,
    COMPOSED_ONLY,
    REPORTING,
    AutoencoderRecipe,
    ContrastiveRecipe,
    DistilRecipe,
    JudgeRecipe,
    PictureRecipe,
    Recipe,
    T5Recipe,
    UNetRecipe,
    UpscaleRecipe,
)
from chashka.training.run import Optimiser, Run

STAGES: dict[str, type[Recipe]] = {
    "autoencoder": AutoencoderRecipe,
    "clip": ContrastiveRecipe,
    "t5": T5Recipe,
    "picture": PictureRecipe,
    "upscale": UpscaleRecipe,
    "unet": UNetRecipe,
    "distil": DistilRecipe,
    "judge": JudgeRecipe,
}
RETIRED = {"clip": ("image", "images")}
"""Fields that recipes of a stage once had; older files have them still, and they say nothing any more."""
MASKED = replace(TEACUP_UNET, in_channels=2 * TEACUP_UNET.out_channels + 1)
STABLE = replace(MASKED, attention="transformer", linear_proj=True, pooled=256)
WHOLE: dict[str, Any] = {
    "text_block": 32,
    "captions_per_concept": 64,
    "scenes": 0.35,
    "canvases": ((192, 320, 0.09), (320, 192, 0.09), (192, 256, 0.06), (256, 192, 0.06)),
    "without": REPORTING,
    "composed_only": COMPOSED_ONLY,
    "picture_share": 0.17,
    "mask_share": 0.15,
}
"""What a U-Net of the package learns besides single pictures on squares; in 15 % of all, a picture stands in place of a text."""
DRAWN: dict[str, Any] = {"time_mean": 0.0, "draw_steps": 12, "draw_guidance": 4.5}
"""High noise as often as low, where it is decided what is drawn; and how these draw."""
TOLD = replace(MASKED, width=96, told=4)
READER = replace(TEACUP_TEXT_HEAD, added=384, places=4)
RELATED: dict[str, Any] = {**WHOLE, "scenes": 0.6, "related": 0.7}
READING: dict[str, Any] = {
    **RELATED,
    **DRAWN,
    "time_mean": 0.2,
    "time_std": 1.5,
    "draw_guidance": 3.0,
    "reading": 0.1,
    "reading_first": 0.045,
}
"""Who is where: the head reads it, the U-Net is told (decision 010), and both ends of the path come oftener."""
MUON = Optimiser(kind="muon", lr=1e-3, warmup_steps=50, decay_share=0.4)
RECIPES: dict[str, Recipe] = {
    "autoencoder": AutoencoderRecipe(),
    "decoder": AutoencoderRecipe(
        freeze_encoder=True,
        latent_noise=0.35,
        equivariance=0.0,
        run=Run(
            batch=16,
            minutes=60.0,
            optimiser=Optimiser(lr=6e-4, betas=(0.9, 0.95), weight_decay=0.0, warmup_steps=50, decay_share=0.5),
        ),
    ),
    "clip": ContrastiveRecipe(),
    "t5": T5Recipe(),
    "picture": PictureRecipe(),
    "upscale": UpscaleRecipe(),
    "unet": UNetRecipe(network=MASKED, **WHOLE, **DRAWN, run=Run(batch=64, minutes=180.0, optimiser=MUON)),
    "unet-96": UNetRecipe(network=TOLD, head=READER, **READING, run=Run(batch=64, minutes=600.0, optimiser=MUON)),
    # For a large GPU: everything on the device, a compiled step; cut into slices of any length.
    "unet-128": UNetRecipe(
        network=replace(TOLD, width=128, dropout=0.1),
        head=replace(READER, added=512),
        **READING | {"canvas_pictures": 1_500, "canvas_scenes": 1_000},
        variants=6,
        scene_pool=30_000,
        compile=True,
        run=Run(batch=1024, minutes=27.0, save_minutes=2.0, int8_from=0.4, optimiser=replace(MUON, lr=1.3e-3)),
    ),
    # Stable Diffusion's: transformers that read the contrastive encoder's tokens and one vector, along the table of its schedule.
    "stable-diffusion": UNetRecipe(
        network=STABLE,
        head=None,
        schedule="scaled_linear",
        **{**WHOLE, "picture_share": 0.0},
        draw_guidance=5.0,
        run=Run(batch=64, minutes=180.0, optimiser=MUON),
    ),
    "distil": DistilRecipe(network=TOLD, head=READER, guidance=3.0, **RELATED),
    "judge": JudgeRecipe(),
    "judge-b": JudgeRecipe(run=replace(JudgeRecipe().run, seed=1), sources=CHOOSING),
}


def to_json(recipe: Recipe) -> str:
    """The recipe as indented JSON with sorted keys (same recipe, same bytes)."""
    return json.dumps(dataclasses.asdict(recipe), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def from_json(text: str, where: str = "recipe") -> Recipe:
    """Read a recipe. Raises TrainingError for an unknown stage or an unknown field, naming what is allowed."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise TrainingError(f"{where}: not JSON ({error})") from error
    stage = values.get("stage") if isinstance(values, dict) else None
    if stage not in STAGES:
        raise TrainingError(f"{where}: stage is {stage!r}; allowed: {', '.join(STAGES)}")
    kept = {name: value for name, value in values.items() if name not in RETIRED.get(stage, ())}
    built: Recipe = build(STAGES[stage], kept, where)
    return built


def load(name_or_file: str, stage: str) -> Recipe:
    """A recipe by its name in ``RECIPES`` or from a JSON file, checked to be of ``stage``."""
    if name_or_file in RECIPES:
        recipe = RECIPES[name_or_file]
    elif Path(name_or_file).is_file():
        recipe = from_json(Path(name_or_file).read_text(encoding="utf-8"), name_or_file)
    else:
        raise TrainingError(f"recipe {name_or_file!r}: no such file; names that exist: {', '.join(RECIPES)}")
    if recipe.stage != stage:
        raise TrainingError(f"recipe {name_or_file!r} is for the stage '{recipe.stage}', asked was '{stage}'")
    return recipe
