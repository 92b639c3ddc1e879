"""Trained weights on the disk: a run's ``average.safetensors`` or a folder of exported components, and their recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.safetensors_file import read_tensors
from chashka.errors import TrainingError
from chashka.training.catalogue import from_json
from chashka.training.recipes import Recipe


def load_component(module: nn.Module, path: Path, part: str) -> nn.Module:
    """Load component ``part`` of an ``average.safetensors``, or of a folder of exported components, strictly."""
    if not path.exists():
        raise TrainingError(f"{path}: no such file; train the stage that writes it first")
    return load_weights(module, components(path, part).get(part, {}), path, part)


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], path: Path, part: str) -> nn.Module:
    """Give ``module`` exactly its weights; ``path`` and ``part`` are where they come from, for the message."""
    have, wanted = ({key: tuple(v.shape) for key, v in state.items()} for state in (weights, module.state_dict()))
    if have != wanted:
        differs = sorted(key for key in have.keys() | wanted.keys() if have.get(key) != wanted.get(key))
        first = differs[0]
        raise TrainingError(
            f"{path}: component '{part}' belongs to another recipe: {len(differs)} tensors differ, "
            f"the first is {first}: {have.get(first, 'missing')} in the file, {wanted.get(first, 'none')} expected"
        )
    module.load_state_dict(weights)
    return module


def metadata_of(path: Path, part: str) -> dict[str, str]:
    """What is stored beside the weights of ``part``, the recipe among it."""
    file = path / f"{part}.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise TrainingError(f"{file}: no such file; train the stage that writes it first")
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


def recipe_of(path: Path, part: str) -> Recipe:
    """The recipe that component ``part`` was trained by: the file's metadata."""
    return from_json(metadata_of(path, part)["recipe"], str(path))


def components(path: Path, *parts: str) -> dict[str, dict[str, torch.Tensor]]:
    """The components in ``path`` by name; of a folder only those among ``parts``."""
    if path.is_dir():
        files = {part: path / f"{part}.safetensors" for part in parts}
        read = {part: read_tensors(file) for part, file in files.items() if file.is_file()}
        return {part: {k: torch.from_numpy(computable(v)) for k, v in read[part].items()} for part in read}
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in load_file(path).items():
        part, key = name.split("/", 1)
        found.setdefault(part, {})[key] = value
    return found
