"""Strict loading: a module takes exactly the tensors it has, or says which ones do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chashka.checkpoints.bfloat16 import BFLOAT16
from chashka.checkpoints.safetensors_file import GRAPH_TENSOR, NumpyArray, forget
from chashka.errors import WeightsError

if TYPE_CHECKING:
    import torch
    from torch import nn

SHOWN = 3  # names in a message, so that it stays one line


def load_strict(module: nn.Module, tensors: Mapping[str, Any], path: Path | str) -> None:
    """Give ``module``, usually built on the meta device, the numpy arrays of ``tensors``, uncopied where possible.

    Floating tensors are cast, one after the other, to the dtype that the module was built with (float16 and bfloat16 files load
    into float32 modules); what was cast leaves no pages of the mapped file in memory.
    Raises WeightsError with the missing and unexpected names and the wrong shapes; ``path`` is named in it. Buffers
    that are not in the state dict have no values on the meta device: a module that has them is refused.
    """
    given = {name: array for name, array in tensors.items() if name != GRAPH_TENSOR}
    wanted = module.state_dict(keep_vars=True)
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    wrong = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and tuple(given[name].shape) != tuple(value.shape)
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", wrong)]
    if any(names for _, names in problems):
        found = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems if names)
        hint = _hint(missing, unexpected, wrong)
        raise WeightsError(f"{path} does not fit {type(module).__name__}: {found}. {hint}")
    state = {}
    for name, value in wanted.items():
        tensor = as_torch(given[name])
        if value.is_floating_point() and tensor.dtype != value.dtype:
            tensor = tensor.to(value.dtype)
            forget(given[name])
        state[name] = tensor
    module.load_state_dict(state, strict=True, assign=True)
    empty = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    if empty:
        raise WeightsError(f"{type(module).__name__} has values that no file stores: {_some(empty)}")


def as_torch(array: NumpyArray) -> torch.Tensor:
    """The same memory as a tensor. Of bfloat16 torch is given the bytes, as a type that numpy has too."""
    import torch

    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _hint(missing: list[str], unexpected: list[str], wrong: list[str]) -> str:
    """What most likely happened."""
    if wrong and not missing and not unexpected:
        return "The file was made with another config"
    bare = {name.partition(".")[2] for name in unexpected}
    if missing and set(missing) <= bare:
        prefix = unexpected[0].partition(".")[0]
        return f"Its names carry the prefix '{prefix}.': remove it"
    if missing and not unexpected and not wrong:
        return "The file is incomplete, or the config asks for more layers than it has"
    return "It belongs to another network or to another layout of names"
