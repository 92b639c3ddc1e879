"""Multistep samplers: they reuse the previous calls, so a step costs one call (plms: its first one two).

State is local; λ = -log σ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from chashka.diffusion.arrays import Array
from chashka.diffusion.guidance import Before, Denoise
from chashka.diffusion.noise import Noise
from chashka.diffusion.steps import Step, intervals, needed
from chashka.errors import InputError


def dpmpp_2m(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    lower_order_final: bool = False,
) -> Iterator[Step]:
    """DPM-Solver++(2M), arXiv 2211.01095, algorithm 2. Order 2.

    lower_order_final: make the last step first order even where it does not end at σ = 0 (CompVis' ``--dpm_solver``
    does so below 15 steps). A step to σ = 0 is always first order: its h is infinite.
    """
    total = len(sigmas) - 1
    before: tuple[float, Array] | None = None  # h and D of the previous step
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        denoised = denoise(x, sigma)
        if following == 0:
            x = denoised
        else:
            h = math.log(sigma / following)
            estimate = denoised
            if before is not None and not (lower_order_final and i == total - 1):
                estimate = denoised + (h / (2 * before[0])) * (denoised - before[1])
            x = (following / sigma) * x - math.expm1(-h) * estimate
            before = (h, denoised)
        yield Step(i, total, x, following, denoised, i + 1)


def dpmpp_2m_sde(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, noise: Noise | None = None, eta: float = 1.0
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M), arXiv 2211.01095, section 5 and appendix B; the midpoint form of k-diffusion.

    eta scales the added noise; eta 0 is dpmpp_2m and draws nothing.
    """
    if not eta >= 0:
        raise InputError(f"eta: {eta!r} is not possible; give a number from 0 (no noise) to 1")
    draw = needed(noise, "dpmpp_2m_sde") if eta > 0 else None
    total = len(sigmas) - 1
    before: tuple[float, Array] | None = None
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        denoised = denoise(x, sigma)
        if following == 0:
            x = denoised
        else:
            h = math.log(sigma / following)
            weight = -math.expm1(-h * (1 + eta))
            x = (following / sigma) * math.exp(-eta * h) * x + weight * denoised
            if before is not None:
                x = x + weight * (h / (2 * before[0])) * (denoised - before[1])
            if draw is not None:
                x = x + following * math.sqrt(-math.expm1(-2 * eta * h)) * draw(i)
            before = (h, denoised)
        yield Step(i, total, x, following, denoised, i + 1)


_ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def plms(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    order: int = 4,
    before: Before | None = None,
) -> Iterator[Step]:
    """PLMS (arXiv 2202.09778, equations 12 and 13; CompVis ``PLMSSampler``): Adams-Bashforth on ε = (x - D)/σ.

    The first step is Heun-like and costs two calls; then orders 2, 3, 4 up to ``order`` (Disco uses 2). The weights
    assume timesteps evenly spaced in t, whatever σ does in between: use linspace, leading, trailing or ddim spacing, along a
    flow uniform.
    before: what x becomes before each step (``guidance.noised_known``).
    """
    if order not in (1, 2, 3, 4):
        raise InputError(f"order: {order!r} is not possible for plms; give 1, 2, 3 or 4")
    total, calls = len(sigmas) - 1, 0
    history: list[Array] = []  # ε of the last steps, newest first
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        x = x if before is None else before(x, sigma, i)
        denoised = denoise(x, sigma)
        eps = (x - denoised) * (1 / sigma)
        calls += 1
        history = [eps, *history[: order - 1]]
        if len(history) == 1 and order > 1 and following > 0:
            trial = x + (following - sigma) * eps
            ahead = (trial - denoise(trial, following)) * (1 / following)
            calls += 1
            mixed = 0.5 * (eps + ahead)
        else:
            mixed = 0.0 * eps
            for weight, past in zip(_ADAMS_BASHFORTH[len(history) - 1], history, strict=True):
                mixed = mixed + weight * past
        x = x + (following - sigma) * mixed
        yield Step(i, total, x, following, denoised, calls)
