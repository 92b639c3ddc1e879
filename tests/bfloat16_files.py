"""bfloat16 as files have it, made of other numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from chashka.checkpoints.bfloat16 import BFLOAT16


def as_bfloat16(values: Any) -> np.ndarray:
    """The upper halves of float32 numbers: cut off, not rounded."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    return np.asarray(bits >> 16, "<u2").view(BFLOAT16)


def twins(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(in bfloat16, the same numbers in float32); integers stay what they are."""
    short = {name: as_bfloat16(value) if value.dtype.kind == "f" else value for name, value in tensors.items()}
    return short, {name: widened(value) for name, value in short.items()}


def widened(array: np.ndarray) -> np.ndarray:
    """Written down apart from what is tested: a float32 has two bytes of zeros below."""
    if array.dtype != BFLOAT16:
        return array
    bits = np.ascontiguousarray(array).view("<u2").reshape(array.shape)
    pairs = np.stack([np.zeros_like(bits), bits], axis=-1)
    return pairs.view("<f4").reshape(array.shape).astype(np.float32)
