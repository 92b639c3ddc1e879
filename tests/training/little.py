"""Recipes of every stage that train in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from chashka.data.composed_words import EMOJI
from chashka.nets.configs import (
    AutoencoderConfig,
    ImageTowerConfig,
    T5Config,
    TextEncoderConfig,
    TextHeadConfig,
    UNetConfig,
)
from chashka.training.recipes import (
    AutoencoderRecipe,
    ContrastiveRecipe,
    Optimiser,
    PictureRecipe,
    Run,
    T5Recipe,
    UNetRecipe,
)

CONCEPTS = ["emoji:1f34e", "emoji:1f408", "emoji:1f697"]
RUN = Run(batch=6, steps=4, log_every=2, save_minutes=9.0, look_minutes=9.0, optimiser=Optimiser(warmup_steps=1))
AUTOENCODER = AutoencoderRecipe(
    run=RUN,
    network=AutoencoderConfig(
        4, 4, 16, (1, 1, 1), 1, 16, 16, (1, 1, 1), 0, stem=4, shortcuts=True, mid_attention=False, norm_groups=4
    ),
    crop=64,
)
CLIP = ContrastiveRecipe(
    run=RUN,
    text=TextEncoderConfig(vocab=300, embed=8, width=16, layers=1, heads=2, pooled=16),
    appearance=4,
)
PICTURE = PictureRecipe(run=RUN, network=ImageTowerConfig(width=16, hidden=24, pooled=16, norm_groups=4))
T5 = T5Recipe(run=RUN, text=T5Config(vocab=300, embed=8, width=16, layers=1, heads=2, ff=16), decoder_layers=1)
UNET = UNetRecipe(
    run=RUN,
    network=UNetConfig(
        16, 16, 8, (1, 2), 1, (1,), head_width=8, context=16, resample="resblock", scale_shift=True, qk_norm=True,
        norm_groups=4,
    ),
    head=TextHeadConfig(16, 16, 16, 16, 32, 2),
)  # fmt: skip


def frozen(runs: Path) -> dict[str, Path]:
    """What the U-Net's stage needs of the others, for a folder of runs."""
    return {stage: runs / stage / "average.safetensors" for stage in ("autoencoder", "clip", "t5")}


def with_scenes(shards: Path) -> None:
    """Three scenes, two captions of the first and one of each other."""
    import torch  # the base tests collect this folder without it
    from safetensors.torch import save_file

    noun = torch.tensor([[10, 4, -1, -1, -1], [4, 4, 4, -1, -1], [6, -1, -1, -1, -1]], dtype=torch.int8)
    row = torch.full((3,), -1, dtype=torch.int8)
    wide = torch.full((3, 5), -1, dtype=torch.int8)
    columns = {"noun": noun, "colour": wide.clone(), "size": wide.clone(), "relation": torch.tensor([3, -1, -1])}
    columns |= {name: row.clone() for name in ("ground", "ground_colour", "style")}
    captions = {
        "scene": [0, 0, 1, 2],
        "locale": [0, 1, 0, 0],
        "offsets": [0, 4, 8, 12, 16],
        "ids": [1, 270, 280, 2] * 4,
    }
    columns |= {name: torch.tensor(values) for name, values in captions.items()}
    metadata = {"emoji": json.dumps(EMOJI), "styles": '["flat", "3d"]', "locales": '["en", "ru"]'}
    save_file(columns, shards / "scenes.safetensors", metadata)
