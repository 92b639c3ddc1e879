"""Finding pictures that are the same, or as good as the same: an option of the build, off for the shipped models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

NEAR_BITS = 4
"""Bits of the 64-bit hash that may differ before two pictures are compared at all."""
NEAR_MEAN, NEAR_MOST = 0.75, 24.0
"""Mean and largest difference of two 32×32 thumbnails (0 to 255) that still count as the same picture."""
_THUMB = 32


@dataclass(frozen=True, slots=True)
class Signature:
    """``bits``: which cells of 8×8 are lighter than their mean, over grey; ``thumb`` uint8 (32, 32, 4) premultiplied."""

    bits: int
    thumb: Array


def signature(pixels: Array) -> Signature:
    """Of uint8 (H, W, 4) premultiplied, H = W a multiple of 32."""
    thumb = _blocks(pixels.astype(np.float32), _THUMB)
    grey = (thumb[..., :3] + (255 - thumb[..., 3:]) * 0.5).mean(axis=-1, keepdims=True)
    cells = _blocks(grey, 8)[..., 0]
    bits = np.packbits(cells > cells.mean()).tobytes()
    return Signature(int.from_bytes(bits, "big"), thumb.round().astype(np.uint8))


def duplicates(signatures: Sequence[Signature]) -> list[int | None]:
    """For each picture the index of the first earlier one that it repeats, or None."""
    bits = np.array([entry.bits for entry in signatures], np.uint64)
    first: list[int | None] = []
    for index, entry in enumerate(signatures):
        near = np.flatnonzero(np.bitwise_count(bits[:index] ^ bits[index]) <= NEAR_BITS)
        candidates = (int(i) for i in near if first[i] is None)
        same = (i for i in candidates if _same(signatures[i].thumb, entry.thumb))
        first.append(next(same, None))
    return first


def _same(a: Array, b: Array) -> bool:
    difference = np.abs(a.astype(np.int16) - b)
    return bool(difference.mean() <= NEAR_MEAN and difference.max() <= NEAR_MOST)


def _blocks(values: Array, cells: int) -> Array:
    """Means over a grid of ``cells`` × ``cells`` blocks."""
    side = values.shape[0] // cells
    means: Array = values.reshape(cells, side, cells, side, -1).mean(axis=(1, 3))
    return means
