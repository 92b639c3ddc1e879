"""Samplers that mix slopes, along a flow's straight path: in its own time.

Heun's method and PLMS average slopes dx/dσ. A flow begins at σ = 999, the first of twelve steps ends at 5.5 (shift 0.5), and
slopes change over such a step so much that the average is far off. In x/(1 + σ) = (1 - t)·data + t·noise and t = σ/(1 + σ) the
path is nearly straight and the same formulas hold: (y - D)/t is dy/dt, noise - data (arXiv 2209.03003). Samplers that take the
last estimate of the data, DDIM, Euler, DPM++ and UniPC, do the same in both or need neither.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from chashka.diffusion.arrays import Array
from chashka.diffusion.guidance import Before, Denoise
from chashka.diffusion.multistep import plms
from chashka.diffusion.samplers import SAMPLERS, Sampler, heun
from chashka.diffusion.schedule import Flow, NoiseSchedule
from chashka.diffusion.steps import Step, intervals


def samplers_along(schedule: NoiseSchedule) -> dict[str, Sampler]:
    """``SAMPLERS`` as a schedule wants them."""
    return SAMPLERS | {"heun": straight(heun), "plms": straight(plms)} if isinstance(schedule, Flow) else SAMPLERS


def straight(sampler: Sampler) -> Sampler:
    """The sampler with steps in t; what it is given and what it yields stays in σ."""

    @functools.wraps(sampler)
    def along(
        denoise: Denoise, x: Array, sigmas: Sequence[float], *, before: Before | None = None, **options: Any
    ) -> Iterator[Step]:
        intervals(sigmas)  # says what is wrong with them
        times = [float(sigma) / (1.0 + float(sigma)) for sigma in sigmas]
        back = dict(zip(times, map(float, sigmas), strict=True))

        def denoised(y: Array, t: float) -> Array:
            return denoise(y * (1.0 + back[t]), back[t])

        if before is not None:
            options["before"] = lambda y, t, i: before(y * (1.0 + back[t]), back[t], i) * (1.0 / (1.0 + back[t]))
        first = x * (1.0 / (1.0 + float(sigmas[0])))
        for step in sampler(denoised, first, times, **options):
            sigma = back[step.sigma]
            yield replace(step, x=step.x * (1.0 + sigma), sigma=sigma)

    return along
