"""Weights as int8 with one scale per output channel, and back: q·scale, the same float32 numbers in any library.

Symmetric, rounded to nearest. A scale has 11 significant bits, q at most 7: their product is exact in float32, so nothing
depends on who multiplies. It also makes the round trip exact: what was stored is found again when it is stored again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.errors import WeightsError

NumpyArray: TypeAlias = npt.NDArray[Any]

SCALES = ".__scale__"
"""The tensor of scales is called as the weight with this behind it: float32 (channels,), or absent for other precisions."""

LARGEST = 127
CLIPS = (1.0, 0.975, 0.95, 0.925, 0.9, 0.85, 0.8, 0.7)
"""Candidates for the largest value that is kept, as shares of a channel's largest: the one with the least squared error wins."""


def to_int8(weight: NumpyArray) -> tuple[NumpyArray, NumpyArray]:
    """(C, …) finite floats → int8 of the same shape and float32 scales (C,), each channel with its own.

    Raises WeightsError for a value that is not finite.
    """
    rows = np.asarray(weight, np.float32).reshape(len(weight), -1)
    if not np.isfinite(rows).all():
        raise WeightsError("int8 cannot hold values that are not finite: keep these weights in float16")
    peak = np.abs(rows).max(1)
    scale, best = _eleven_bits(peak / LARGEST), np.full(len(rows), np.inf)
    for clip in CLIPS:
        tried = _eleven_bits(peak * np.float32(clip) / LARGEST)
        error = np.square(_rounded(rows, tried) * tried[:, None] - rows, dtype=np.float64).sum(1)
        better = error < best
        scale, best = np.where(better, tried, scale), np.where(better, error, best)
    return _rounded(rows, scale).astype(np.int8).reshape(weight.shape), scale


def from_int8(values: NumpyArray, scales: NumpyArray) -> NumpyArray:
    """int8 (C, …) and float32 (C,) → float32 (C, …). Raises WeightsError for scales that do not fit."""
    if values.dtype != np.int8 or values.ndim < 2 or scales.shape != values.shape[:1] or scales.dtype != np.float32:
        raise WeightsError(
            f"scales {scales.dtype} {scales.shape} do not fit weights {values.dtype} {values.shape}; expected are "
            "float32 (channels,) and int8 (channels, …): the file is damaged"
        )
    return values.astype(np.float32) * scales.reshape(-1, *(1,) * (values.ndim - 1))


def widened(tensors: Mapping[str, NumpyArray]) -> dict[str, NumpyArray]:
    """The tensors without their scales, those that had scales as float32. Raises WeightsError for scales without weights."""
    scales = {name.removesuffix(SCALES): array for name, array in tensors.items() if name.endswith(SCALES)}
    lost = sorted(scales.keys() - tensors.keys())
    if lost:
        raise WeightsError(f"there are scales for {lost[0]!r}, which is not in the file: it is damaged")
    return {
        name: from_int8(array, scales[name]) if name in scales else array
        for name, array in tensors.items()
        if not name.endswith(SCALES)
    }


def _rounded(rows: NumpyArray, scale: NumpyArray) -> NumpyArray:
    whole: NumpyArray = np.clip(np.rint(rows / scale[:, None]), -LARGEST, LARGEST)
    return whole


def _eleven_bits(scale: NumpyArray) -> NumpyArray:
    """float32 rounded to float16's significant bits, without its narrow range; 1 for channels of zeros."""
    fraction, exponent = np.frexp(np.where(scale > np.finfo(np.float32).tiny * 2**13, scale, 1).astype(np.float32))
    short: NumpyArray = np.ldexp(np.rint(fraction * 2**11) / np.float32(2**11), exponent).astype(np.float32)
    return short
