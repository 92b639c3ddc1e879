"""UniPC: a predictor and a corrector that share their calls, so a step costs one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from chashka.diffusion.arrays import Array
from chashka.diffusion.guidance import Denoise
from chashka.diffusion.noise import Noise
from chashka.diffusion.steps import Step, intervals
from chashka.errors import InputError

_Past: TypeAlias = list[tuple[float, Array]]  # (λ, D) of the last calls, oldest first; λ = -log σ


def unipc(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    order: int = 2,
    lower_order_final: bool = False,
) -> Iterator[Step]:
    """UniPC with data prediction and B₂ (arXiv 2302.04867, algorithms 5 to 8). Order ``order`` + 1 with its corrector.

    The corrector reuses the call at the new point, which is then not made again. order: 1 to 3. lower_order_final:
    lower the predictor's order towards the end, down to 1 in the last step, as the original does (no corrector follows
    it). A step to σ = 0 is first order anyway.
    """
    if order not in (1, 2, 3):
        raise InputError(f"order: {order!r} is not possible for unipc; give 1, 2 or 3")
    total = len(sigmas) - 1
    past: _Past = []
    x_before, sigma_before = x, 0.0
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        denoised = denoise(x, sigma)
        if past:
            x = _update(x_before, sigma_before, sigma, past, denoised)
        past = [*past, (-math.log(sigma), denoised)][-order:]
        known = past[-(total - i) :] if lower_order_final else past
        x_before, sigma_before = x, sigma
        x = denoised if following == 0 else _update(x, sigma, following, known)
        yield Step(i, total, x, following, denoised, i + 1)


def _update(x: Array, sigma: float, following: float, past: _Past, ahead: Array | None = None) -> Array:
    """x from ``sigma`` to ``following``: the predictor (ahead None) or the corrector (ahead: D at the new point)."""
    here, newest = past[-1]
    h = -math.log(following) - here
    points = [((level - here) / h, value) for level, value in past[:-1]]
    if ahead is not None:
        points.append((1.0, ahead))
    factor = math.expm1(-h)
    out = (following / sigma) * x - factor * newest
    for weight, (r, value) in zip(_weights([r for r, _ in points], h), points, strict=True):
        out = out - (factor * weight / r) * (value - newest)
    return out


def _weights(places: list[float], h: float) -> list[float]:
    """a_k of algorithms 5 and 7: Σ_k r_k^(j-1)·a_k = φ_j(-h)·j!/B(h) solved for a; one point is set to 1/2 there."""
    if len(places) <= 1:
        return [0.5] * len(places)
    factor = math.expm1(-h)
    phi, factorial, right = factor / -h - 1, 1.0, []
    for k in range(1, len(places) + 1):
        right.append(phi * factorial / factor)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    matrix = [[r**k for r in places] for k in range(len(places))]
    solution: list[float] = np.linalg.solve(np.array(matrix), np.array(right)).tolist()
    return solution
