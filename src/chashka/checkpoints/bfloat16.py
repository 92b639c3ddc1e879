"""bfloat16 in numpy, which has no such type: the upper two bytes of a float32, which here stay the bytes that the file has.

numpy calls two such bytes void. It moves, cuts, turns and joins them, and refuses to compute with them, so that bits are never
taken for numbers: what computes asks ``computable`` for float32, one tensor at a time, and torch is given the bytes themselves
(``strict``). So a file of weights is never held twice (docs/decisions/011-bfloat16-as-bytes.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

NumpyArray: TypeAlias = npt.NDArray[Any]

BFLOAT16 = np.dtype("V2")


def computable(array: NumpyArray) -> NumpyArray:
    """bfloat16 as float32 of the same shape, exactly the same numbers; everything else as it is, uncopied."""
    if array.dtype != BFLOAT16:
        return array
    wide = np.array(array.view("<u2"), np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def joinable(arrays: Sequence[NumpyArray]) -> list[NumpyArray]:
    """Arrays that numpy joins: as they are, or where bfloat16 is beside another type computable."""
    alike = all(array.dtype == arrays[0].dtype for array in arrays)
    return list(arrays) if alike else [computable(array) for array in arrays]
