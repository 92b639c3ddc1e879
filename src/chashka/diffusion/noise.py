"""Noise that depends on the seed and on the picture's number, and on nothing else.

A row's numbers come from Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3") with the seed
as key and (picture, step, draw) as counter, through our own Box-Muller. Batch size, neighbours, engine, device,
operating system and library versions do not matter: the counter-based bits are fixed by their paper, and the
transform uses only operations that IEEE 754 rounds exactly (+ - * / and square root), never a library's log or sine,
whose last bit differs between processors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chashka.diffusion.arrays import Array, asarray
from chashka.errors import InputError

_LN2 = 0.6931471805599453
START = -1
"""The step number of the initial draw."""


class Noise(Protocol):
    """What samplers call: unit noise like x for a step; recorded draws replay through the same argument."""

    def __call__(self, step: int, draw: int = 0) -> Array:
        """Unit noise of the shape of x. ``draw`` counts the draws inside one step."""


class PictureNoise:
    """One independent stream per row.

    seeds: one integer in [0, 2⁶⁴) per row, equal ones allowed. shape: of one row, (C, H, W). first_picture: the
    number of row 0, so that row i is picture first_picture + i of its seed: pictures 2 and 3 of a request may be
    drawn alone. like: an array whose kind and device the noise gets (numpy when None). Values are float32.
    """

    def __init__(
        self, seeds: Sequence[int], shape: Sequence[int], first_picture: int = 0, *, like: Array | None = None
    ) -> None:
        for seed in seeds:
            if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
                raise InputError(f"seed: {seed!r} is not possible; give a whole number from 0 to 2**64 - 1")
        if first_picture < 0:
            raise InputError(f"first_picture: {first_picture!r} is not possible; give 0 or more")
        self.seeds = tuple(int(seed) for seed in seeds)
        self.shape = tuple(int(n) for n in shape)
        self.first_picture = first_picture
        self._like = like

    def __call__(self, step: int, draw: int = 0) -> Array:
        """Unit noise (B, *shape) for ``step`` (0 and up; ``START`` = -1 for the initial draw)."""
        rows = [
            picture_noise(seed, self.first_picture + i, step, draw, self.shape) for i, seed in enumerate(self.seeds)
        ]
        noise = np.stack(rows) if rows else np.zeros((0, *self.shape), np.float32)
        if self._like is None:
            return noise
        return asarray(noise, self._like, "float32")

    def start(self) -> Array:
        """The initial draw, unit noise (B, *shape)."""
        return self(START)


class VariedNoise(PictureNoise):
    """Variations of one picture: its noise, whose first draw is turned towards that of others.

    seed, picture: of the one that is varied. towards: makes the others' noise of a shape, one row for each variation. share:
    0 is the picture itself, 1 the others' first draw.
    """

    def __init__(
        self,
        seed: int,
        picture: int,
        towards: Callable[[Sequence[int]], PictureNoise],
        share: float,
        shape: Sequence[int],
    ) -> None:
        self._towards, self._share = towards(shape), share
        super().__init__([seed] * len(self._towards.seeds), shape)
        self._picture = picture

    def __call__(self, step: int, draw: int = 0) -> Array:
        base = np.stack([picture_noise(seed, self._picture, step, draw, self.shape) for seed in self.seeds])
        if step != START:
            return base
        return turned(base, self._towards(step, draw), self._share)


def turned(a: NDArray[np.float32], b: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Each row of ``a`` turned towards that of ``b`` on the sphere (slerp): unit noise stays unit noise.

    Arc cosine and sine are the library's: the last bit may differ between machines.
    """
    rows = [array.reshape(len(array), -1).astype(np.float64) for array in (a, b)]
    cosine = np.clip((rows[0] * rows[1]).sum(1) / np.prod([np.linalg.norm(r, axis=1) for r in rows], axis=0), -1, 1)
    angle = np.arccos(cosine)[:, None]
    near = np.sin(angle) < 1e-4  # the same direction: nothing to turn
    angle = np.where(near, 1.0, angle)
    first = np.where(near, 1 - share, np.sin((1 - share) * angle) / np.sin(angle))
    second = np.where(near, share, np.sin(share * angle) / np.sin(angle))
    mixed: NDArray[np.float32] = (first * rows[0] + second * rows[1]).astype(np.float32).reshape(a.shape)
    return mixed


def picture_noise(seed: int, picture: int, step: int, draw: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """Unit noise of one row, float32 of ``shape``.

    The lowest counter word is left to Philox, which counts its own blocks there; picture, step and draw take the three
    words above it, so that streams cannot run into each other. step -1 is stored as 0.
    """
    size = math.prod(shape)
    key = np.array([seed, 0], dtype=np.uint64)
    counter = np.array([0, draw, step + 1, picture], dtype=np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(size + size % 2)
    return box_muller(bits)[:size].astype(np.float32).reshape(tuple(shape))


def box_muller(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Normal numbers from an even count of 64-bit words: words 2i and 2i + 1 give numbers 2i and 2i + 1.

    radius √(-2 ln u) with u = (w₀»11 + 1)·2⁻⁵³ in (0, 1], angle 2π·v with v = (w₁»11)·2⁻⁵³ in [0, 1).
    """
    high = (bits >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2.0 * _log((high[0::2] + 1.0) * 2.0**-53))
    cosine, sine = _cos_sin_turns(high[1::2] * 2.0**-53)
    return np.stack([radius * cosine, radius * sine], axis=1).reshape(-1)


def _log(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln u for u in (0, 1], from u = m·2^e, √½ ≤ m < √2, and ln m = 2·artanh((m - 1)/(m + 1)) as a series."""
    mantissa, exponent = np.frexp(u)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    exponent = exponent - small
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * _LN2 + 2.0 * s * _polynomial(s * s, [1.0 / (2 * k + 1) for k in range(12)])


def _cos_sin_turns(v: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """cos and sin of 2πv for v in [0, 1): quarter turns exactly, the rest (|angle| ≤ π/4) by Taylor series."""
    quarter = np.floor(4.0 * v + 0.5)
    angle = (v - 0.25 * quarter) * (2.0 * math.pi)
    square = angle * angle
    cos = _polynomial(square, [(-1.0) ** k / math.factorial(2 * k) for k in range(10)])
    sin = angle * _polynomial(square, [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(10)])
    turn = quarter.astype(np.int64) % 4
    odd = turn % 2 == 1
    flip_cos = np.where((turn == 1) | (turn == 2), -1.0, 1.0)
    flip_sin = np.where(turn >= 2, -1.0, 1.0)
    return flip_cos * np.where(odd, sin, cos), flip_sin * np.where(odd, cos, sin)


def _polynomial(x: NDArray[np.float64], coefficients: Sequence[float]) -> NDArray[np.float64]:
    """Σ c_k·x^k by Horner's rule, one rounded operation at a time (no fused multiply-add)."""
    result = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x
        result = result + coefficient
    return result
