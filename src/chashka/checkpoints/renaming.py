"""Renaming without leftovers: every weight of a file has a place in the network, or is known to be harmless."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from chashka.checkpoints.safetensors_file import NumpyArray
from chashka.errors import WeightsError

Tensors: TypeAlias = Mapping[str, NumpyArray]
HARMLESS = re.compile(r"(.*\.)?position_ids$")
"""What components of diffusers and transformers hold besides weights."""


class _Watched(dict[str, NumpyArray]):
    """Tensors that remember which of them were taken."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors)
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> NumpyArray:
        self.taken.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: NumpyArray | None = None) -> NumpyArray | None:  # type: ignore[override]
        if name in self:
            self.taken.add(name)
        return super().get(name, default)


def without_rest(
    rename: Callable[[Tensors], dict[str, NumpyArray]], tensors: Tensors, source: Path, what: str
) -> dict[str, NumpyArray]:
    """``rename`` of all of ``tensors``. what: the network, for people. Raises WeightsError that names what it left over."""
    watched = _Watched(tensors)
    try:
        found = rename(watched)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    except (ValueError, TypeError, IndexError) as error:
        raise WeightsError(f"{source}: a weight of {what} has another shape than expected ({error})") from error
    left = [name for name in tensors if name not in watched.taken and not HARMLESS.match(name)]
    if left:
        raise WeightsError(f"{source}: {some(left)}: {what} has no such weights; it belongs to another kind of model")
    return found


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
