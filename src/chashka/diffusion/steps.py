"""What every sampler yields, and the two checks that all of them make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chashka.diffusion.arrays import Array
from chashka.diffusion.noise import Noise
from chashka.errors import InputError


@dataclass(frozen=True, slots=True)
class Step:
    """The state after one step.

    index: from 0. total: steps of the run. x: (B, …) in sigma space at level ``sigma``. denoised: the step's estimate
    of the data (what previews show). calls: denoiser calls since the start, the cost; second-order samplers make more
    of them than steps.
    """

    index: int
    total: int
    x: Array
    sigma: float
    denoised: Array
    calls: int


def intervals(sigmas: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Neighbouring noise levels (σ, σ') as Python floats; InputError unless they descend strictly to 0 or more."""
    values = [float(s) for s in sigmas]
    pairs = list(pairwise(values))
    if not pairs or values[-1] < 0 or any(not a > b for a, b in pairs):
        raise InputError("sigmas: expected at least two numbers, strictly descending, the last one 0 or more")
    return iter(pairs)


def needed(noise: Noise | None, what: str) -> Noise:
    """``noise``, or an InputError that says what draws it."""
    if noise is None:
        raise InputError(f"noise: {what} draws noise in every step; pass noise=PictureNoise(seeds, shape)")
    return noise
