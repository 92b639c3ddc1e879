"""One-step samplers and the table of all of them.

A sampler is a generator function ``(denoise, x, sigmas, *, noise, **options) → Iterator[Step]``: it calls
``denoise(x, sigma)``, owns no state beyond its local variables, and yields after every step, so progress, preview,
pause and cancel are the caller's loop. ``sigmas`` are Python floats, descending; the last one may be above 0. x is in
sigma space (data + σ·noise), numpy or torch. Grad mode is never touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from chashka.diffusion.arrays import Array
from chashka.diffusion.guidance import Before, Denoise
from chashka.diffusion.multistep import dpmpp_2m, dpmpp_2m_sde, plms
from chashka.diffusion.noise import Noise
from chashka.diffusion.steps import Step, intervals, needed
from chashka.diffusion.unipc import unipc
from chashka.errors import InputError

Sampler: TypeAlias = Callable[..., Iterator[Step]]


def ddim(
    denoise: Denoise,
    x: Array,
    sigmas: Sequence[float],
    *,
    noise: Noise | None = None,
    eta: float = 0.0,
    before: Before | None = None,
) -> Iterator[Step]:
    """DDIM (arXiv 2010.02502, equations 12 and 16) in sigma coordinates. One call a step, order 1.

    eta 0 is Euler's method and draws nothing; eta 1 is DDPM with its small posterior variance, which is also
    k-diffusion's ancestral Euler. In these coordinates the noise added is σ_up = η·σ'·√(1 - (σ'/σ)²). before: what x becomes
    before each step (``guidance.noised_known``).
    """
    if not eta >= 0:
        raise InputError(f"eta: {eta!r} is not possible; give a number from 0 (no noise) to 1 (DDPM)")
    draw = needed(noise, "eta above 0") if eta > 0 else None
    total = len(sigmas) - 1
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        x = x if before is None else before(x, sigma, i)
        denoised = denoise(x, sigma)
        up = min(eta * following * math.sqrt(max(1 - (following / sigma) ** 2, 0.0)), following)
        down = math.sqrt(following**2 - up**2)
        x = denoised + (down / sigma) * (x - denoised)
        if draw is not None and up > 0:
            x = x + up * draw(i)
        yield Step(i, total, x, following, denoised, i + 1)


def euler(denoise: Denoise, x: Array, sigmas: Sequence[float], *, noise: Noise | None = None) -> Iterator[Step]:
    """Euler's method on dx/dσ = (x - D)/σ: ddim with eta 0 (EDM, arXiv 2206.00364, algorithm 1, uncorrected)."""
    return ddim(denoise, x, sigmas, noise=noise, eta=0.0)


def ddpm(denoise: Denoise, x: Array, sigmas: Sequence[float], *, noise: Noise | None = None) -> Iterator[Step]:
    """Ancestral sampling (DDPM, arXiv 2006.11239, algorithm 2, variance β̃ of equation 7): ddim with eta 1."""
    return ddim(denoise, x, sigmas, noise=noise, eta=1.0)


def euler_a(
    denoise: Denoise, x: Array, sigmas: Sequence[float], *, noise: Noise | None = None, eta: float = 1.0
) -> Iterator[Step]:
    """k-diffusion's ``sample_euler_ancestral``: the same function of σ as ddim, with eta 1 by default."""
    return ddim(denoise, x, sigmas, noise=noise, eta=eta)


def heun(denoise: Denoise, x: Array, sigmas: Sequence[float], *, noise: Noise | None = None) -> Iterator[Step]:
    """Heun's method (EDM, arXiv 2206.00364, algorithm 1). Order 2; two calls a step, one where it ends at σ = 0."""
    total, calls = len(sigmas) - 1, 0
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        denoised = denoise(x, sigma)
        slope = (x - denoised) * (1 / sigma)
        trial = x + (following - sigma) * slope
        calls += 1
        if following > 0:
            calls += 1
            corrected = (trial - denoise(trial, following)) * (1 / following)
            x = x + (following - sigma) * 0.5 * (slope + corrected)
        else:
            x = trial
        yield Step(i, total, x, following, denoised, calls)


def lcm(denoise: Denoise, x: Array, sigmas: Sequence[float], *, noise: Noise | None = None) -> Iterator[Step]:
    """Multistep consistency sampling (arXiv 2303.01469, algorithm 1; LCM, arXiv 2310.04378, algorithm 3).

    For networks whose D already lands on the data: x ← D + σ'·noise. With one step, x ← D.
    """
    total = len(sigmas) - 1
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        denoised = denoise(x, sigma)
        x = denoised
        if following > 0:
            x = x + following * needed(noise, "lcm")(i)
        yield Step(i, total, x, following, denoised, i + 1)


SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "euler": euler,
    "ddpm": ddpm,
    "euler_a": euler_a,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "unipc": unipc,
    "plms": plms,
    "lcm": lcm,
}
