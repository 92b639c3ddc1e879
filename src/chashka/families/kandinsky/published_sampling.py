"""Drawing with the published Kandinsky 2.0: its guidance, thresholds, blending and sampler (docs/kandinsky.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from chashka.diffusion import (
    Array,
    Conditioning,
    Denoise,
    Network,
    Noise,
    Sampler,
    Step,
    dynamic_threshold,
    inpaint,
    static_threshold,
)
from chashka.diffusion.arrays import concat, namespace
from chashka.diffusion.samplers import ddim
from chashka.diffusion.steps import intervals, needed
from chashka.errors import InputError
from chashka.families.family import Bundle, Plan
from chashka.families.kandinsky.options import OWN_SAMPLER, Options
from chashka.families.kandinsky.steering import guidance, refuse

ETA = 0.05
"""Of DDIM where a request says none: the original functions' default."""
OF_2023 = 0.995
"""The percentile that ``p_sampler`` of 2023 takes whatever it is asked."""


class Learned:
    """A :data:`Denoise` beside what the network said of the variance in the same call: ``fraction``, in about [-1, 1].

    Of guided rows it is the conditional ones', unguided, as in the original.
    """

    def __init__(self, denoise: Denoise, recorder: Recorder) -> None:
        self._denoise, self._recorder = denoise, recorder

    def __call__(self, x: Array, sigma: float) -> Array:
        return self._denoise(x, sigma)

    def fraction(self, rows: int) -> Array:
        """(rows, C, h, w) of the last call."""
        return self._recorder.last[:rows]


class Recorder:
    """A :class:`Network` that keeps the second half of what it says. One for each run: runs may go side by side."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.last: Array = None

    def __call__(self, x: Array, t: Array, cond: Conditioning) -> Array:
        out = self._network(x, t, cond)
        self.last = out[:, out.shape[1] // 2 :]
        return out


def p_sampler(denoise: Learned, x: Array, sigmas: Sequence[float], *, noise: Noise | None = None) -> Iterator[Step]:
    """Ancestral sampling with the learned variance between β̃ and β (arXiv 2102.09672, equation 15), in sigma space.

    The mean is D + (σ'/σ)²·(x - D). In network space β̃ = (1 - ᾱ')/(1 - ᾱ)·β with β = 1 - ᾱ/ᾱ'; dividing by ᾱ' gives β̃ here
    as σ'²·(1 - σ'²/σ²) and β as (1 + σ'²)·β. Original: guided-diffusion ``gaussian_diffusion.py``, ``p_sample``.
    """
    if not isinstance(denoise, Learned):
        raise InputError("sampler: p_sampler needs a network with learned variance; use ddpm")
    draw = needed(noise, "p_sampler")
    total = len(sigmas) - 1
    for i, (sigma, following) in enumerate(intervals(sigmas)):
        denoised = denoise(x, sigma)
        x = denoised + (following / sigma) ** 2 * (x - denoised)
        if following > 0:
            beta = 1 - (1 + following**2) / (1 + sigma**2)
            largest = math.log((1 + following**2) * beta)
            smallest = math.log(following**2 * (1 - (following / sigma) ** 2))
            share = (denoise.fraction(x.shape[0]) + 1) / 2
            xp = namespace(x)
            x = x + xp.exp(0.5 * (share * largest + (1 - share) * smallest)) * draw(i)
        yield Step(i, total, x, following, denoised, i + 1)


def own_samplers() -> Mapping[str, Sampler]:
    """Samplers of a published model by name; all others of chashka work with it as well."""
    return {OWN_SAMPLER: p_sampler, "ddim": partial(ddim, eta=ETA)}


def denoise(bundle: Bundle, request: Options, plan: Plan) -> Denoise:
    """Guidance of ε alone → threshold → blending → the threshold again, as in 2022; see docs/kandinsky.md for ``compat``."""
    if request.mix is not None or plan.pictures:
        raise InputError("mix: this model cannot mix or vary pictures; kandinsky-teacup can")
    refuse(bundle, request, "prior_steps", "prior_guidance_scale", "negative_prior_prompt")
    texts = bundle.text.encode([request.prompt, request.negative_prompt])
    seen = {"concat": known_to_the_network(plan)} if bundle.masked else {}
    cond = {name: value[:1] for name, value in texts.items()} | seen
    uncond = {name: value[1:] for name, value in texts.items()} | seen
    later = request.compat == "2023" and request.sampler != OWN_SAMPLER
    kept = (lambda result: result) if later else partial(_thresholded, request=request)
    return steered(bundle, request, plan, cond, uncond, kept, kept, blended=not later)


def steered(
    bundle: Bundle,
    request: Options,
    plan: Plan,
    cond: Conditioning,
    uncond: Conditioning,
    before: Callable[[Denoise], Denoise],
    after: Callable[[Denoise], Denoise],
    *,
    blended: bool,
) -> Denoise:
    """Guidance → ``before`` → blending of what a mask keeps, and ``after``; without a mask, or not ``blended``: no second part."""
    recorder = Recorder(bundle.denoiser.network)
    result = before(guidance(replace(bundle.denoiser, network=recorder), cond, uncond, request, plan))
    if plan.mask is not None and blended:
        result = after(inpaint(result, plan.known, plan.mask))
    return Learned(result, recorder)


def _thresholded(result: Denoise, request: Options) -> Denoise:
    first_only = request.compat is not None
    if request.compat == "2023":
        return dynamic_threshold(result, OF_2023, first_only)
    if request.denoised_type == "dynamic_threshold":
        return dynamic_threshold(result, request.dynamic_threshold_v / 100, first_only)
    return static_threshold(result) if request.denoised_type == "clip_denoised" else result


def known_to_the_network(plan: Plan) -> Array:
    """(1, C + 1, h, w): the picture outside of the mask, and 1 where it is kept. Without a mask: nothing is known."""
    if plan.mask is None:
        return np.zeros((1, plan.shape[0] + 1, *plan.shape[1:]), np.float32)
    kept = (plan.mask <= 0).astype(np.float32)
    return concat([plan.known * kept, kept], axis=1)
