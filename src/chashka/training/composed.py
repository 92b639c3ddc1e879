"""What a U-Net reads of composed scenes in training, all of the same pictures: composed once, seen by every reader.

features/scenes.safetensors, composed.safetensors (features.py) and places.safetensors (places.py) are written so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from chashka.training.features import EMBEDDED, at_once, latents_of
from chashka.training.loop import generator
from chashka.training.places import places_of
from chashka.training.recipes import UNetRecipe
from chashka.training.scenes import Composed, Composer, SceneTable

Reader = Callable[[torch.Tensor, Composed], dict[str, torch.Tensor]]
"""Numbers of scenes (B,) and their pictures → rows of a file's tensors, on the CPU."""


@torch.no_grad()
def write_composed(folder: Path, composer: Composer, readers: Mapping[str, Reader], recipe: UNetRecipe) -> None:
    """Compose the first ``recipe.scene_pool`` scenes and write what the readers say of them, by the names of their files.

    The same recipe on the same kind of device gives the same pictures, so a reader that comes later sees what the others saw.
    """
    count, chance = min(recipe.scene_pool, len(composer.scenes)), generator(recipe.run.seed + 79, 0)
    said: dict[str, list[dict[str, torch.Tensor]]] = {name: [] for name in readers}
    for rows in torch.arange(count).split(at_once(64, composer.device)):
        scenes = composer.compose(rows, chance)
        for name, reader in readers.items():
            said[name].append(reader(rows, scenes))
    for name, parts in said.items():
        save_file({key: torch.cat([part[key] for part in parts]) for key in parts[0]}, folder / "part")
        (folder / "part").replace(folder / name)


def encoded(encoder: nn.Module, scale: float) -> Reader:
    """Their latents."""
    return lambda rows, scenes: {"latents": latents_of(encoder, scenes.picture, scale)}


def embedded(tower: nn.Module) -> Reader:
    """Their points beside the texts', by a picture encoder that sees them small."""
    return lambda rows, scenes: {
        "pooled": tower(F.interpolate(scenes.picture, size=(EMBEDDED, EMBEDDED), mode="area")).half().cpu()
    }


def laid_out(table: SceneTable, side: int) -> Reader:
    """Who is where, of ``side`` × ``side`` places."""
    return lambda rows, scenes: places_of(table, rows, scenes.visible, side)
