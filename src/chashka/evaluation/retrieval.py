"""Shares with their standard errors, and how often a text's nearest neighbour is the right one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chashka.errors import InputError
from chashka.evaluation.drawing import Float

ROWS = 32


@dataclass(frozen=True, slots=True)
class Share:
    """``share`` in [0, 1] of ``trials`` and its standard ``error``."""

    trials: int
    share: float
    error: float

    def __str__(self) -> str:
        return f"{self.share:.1%} ± {self.error:.1%}"


class Pooling(Protocol):
    """A text encoder that says a text in one vector."""

    def pooled(self, texts: Sequence[str]) -> Float:
        """float32 (B, D)."""


def share(values: Sequence[float]) -> Share:
    """The mean of independent values in [0, 1], and its standard error; of zeros and ones, √(p(1−p)/n)."""
    array = np.asarray(values, np.float64)
    return Share(len(array), float(array.mean()), float(array.std()) / math.sqrt(len(array)))


def pooled(text: object, texts: Sequence[str]) -> Float:
    """(N, D), in blocks. Raises InputError for a text encoder that has no pooled vectors."""
    if not hasattr(text, "pooled"):
        raise InputError("this model's texts have no pooled vector, so that none can be compared")
    return np.concatenate([text.pooled(texts[i : i + ROWS]) for i in range(0, len(texts), ROWS)])


def cosines(queries: Float, keys: Float) -> Float:
    """(Q, D) and (K, D) → (Q, K)."""
    a, b = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (queries, keys))
    product: Float = (a @ b.T).astype(np.float32)
    return product


def retrieved(queries: Float, keys: Float, wanted: Sequence[int]) -> list[bool]:
    """Whether each query is nearest, by cosine, to the key with its number in ``wanted``. Of equal keys the first counts."""
    nearest = cosines(queries, keys).argmax(1)
    same = [bool(np.allclose(keys[found], keys[own])) for found, own in zip(nearest, wanted, strict=True)]
    return [bool(found == own) or twin for found, own, twin in zip(nearest, wanted, same, strict=True)]
