"""Weights that are others' with changes of low rank: W + up·down (LoRA, arXiv 2106.09685), stored apart from what they change.

``<layer>.up`` is (O, r), ``<layer>.down`` (r, I), for a weight ``<layer>.weight`` of the shape (O, …), I numbers for each of the O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.checkpoints.bfloat16 import computable
from chashka.errors import WeightsError

NumpyArray: TypeAlias = npt.NDArray[Any]

UP, DOWN, WEIGHT = ".up", ".down", ".weight"


def layers(change: Mapping[str, Any], base: Mapping[str, Any], where: str) -> list[str]:
    """The layers that ``change`` changes. Raises WeightsError where the two do not fit, naming the first that does not."""
    names = sorted({name.removesuffix(UP).removesuffix(DOWN) for name in change})
    for name in names:
        parts = [tensors.get(name + end) for tensors, end in ((base, WEIGHT), (change, UP), (change, DOWN))]
        shapes = [None if part is None else tuple(part.shape) for part in parts]
        if None in shapes or not _fit(*shapes):  # type: ignore[arg-type]
            raise WeightsError(
                f"{where}: {name} has the shapes {shapes[1]} and {shapes[2]}, the weight that they change {shapes[0]}; "
                "they belong to another network"
            )
    return names


def changed(base: Mapping[str, NumpyArray], change: Mapping[str, NumpyArray], where: str) -> dict[str, NumpyArray]:
    """Those of the base's tensors that are changed, as they become, float32. Raises WeightsError where the two do not fit."""
    out = {}
    for name in layers(change, base, where):
        weight = computable(base[name + WEIGHT]).astype(np.float32)
        up, down = (computable(change[name + end]).astype(np.float32) for end in (UP, DOWN))
        out[name + WEIGHT] = weight + (up @ down).reshape(weight.shape)
    return out


def _fit(weight: tuple[int, ...], up: tuple[int, ...], down: tuple[int, ...]) -> bool:
    whole = len(weight) > 1 and len(up) == len(down) == 2 and up[1] == down[0]
    return whole and up[0] == weight[0] and down[1] == math.prod(weight[1:])
