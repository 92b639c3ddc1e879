"""Weights in several files with their index, as diffusers and transformers write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chashka.checkpoints import write
from chashka.checkpoints.torch_file import read_checkpoint


def write_parts(folder: Path, stem: str, tensors: Mapping[str, Any], count: int = 2, variant: str = "") -> Path:
    """The index of ``count`` files of safetensors in ``folder``. variant: such as fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    files, said = [names[i::count] for i in range(count)], {}
    for i, some in enumerate(files, 1):
        file = f"{stem}{variant and f'.{variant}'}-{i:05}-of-{count:05}.safetensors"
        write(folder / file, {name: np.asarray(tensors[name]) for name in some}, {"format": "pt"})
        said |= dict.fromkeys(some, file)
    index = folder / f"{stem}.safetensors.index{variant and f'.{variant}'}.json"
    size = sum(np.asarray(value).nbytes for value in tensors.values())
    index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": said}, indent=2, sort_keys=True))
    return index


def split(file: Path, count: int = 2, variant: str = "") -> Path:
    """The index of the parts that take the place of a file of weights."""
    tensors = {name: np.array(value) for name, value in read_checkpoint(file).items()}
    file.unlink()
    return write_parts(file.parent, file.stem, tensors, count, variant)


def write_torch_parts(folder: Path, stem: str, *parts: Mapping[str, Any]) -> Path:
    """The index of torch's files with these weights."""
    import torch

    said = {}
    for i, part in enumerate(parts, 1):
        file = f"{stem}-{i:05}-of-{len(parts):05}.bin"
        torch.save({name: torch.from_numpy(np.array(value)) for name, value in part.items()}, folder / file)
        said |= dict.fromkeys(part, file)
    index = folder / f"{stem}.bin.index.json"
    index.write_text(json.dumps({"weight_map": said}))
    return index


def say(index: Path, **changes: str | None) -> None:
    """Change what an index says of some weights; None: say nothing of it. Dots of names are written as two underscores."""
    told = json.loads(index.read_text())
    for name, file in changes.items():
        told["weight_map"].pop(name.replace("__", "."), None)
        if file is not None:
            told["weight_map"][name.replace("__", ".")] = file
    index.write_text(json.dumps(told))
