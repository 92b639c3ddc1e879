"""From a request to a function for samplers, and what ``compat`` means around the loop (docs/stable-diffusion.md)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from chashka.diffusion import Array, Conditioning, Denoise, NoiseSchedule, Table, composed, inpaint, mask_channels
from chashka.diffusion.arrays import concat
from chashka.errors import InputError
from chashka.families.ahead import open_ahead
from chashka.families.conventions import USUAL, Conventions, Levels, any_pixel, usual_levels
from chashka.families.family import Bundle, Plan
from chashka.families.stable_diffusion.options import Options
from chashka.prompts import composition, schedules, tags
from chashka.request import Request

ORIGINAL = ("ddim", "plms")
"""Samplers of the original that know a picture's strength and a mask."""
ROUNDED = ("dpmpp_2m", "unipc")
"""diffusers gives the network whole timesteps with these, wherever their levels lie."""
TABLE = Table.scaled_linear(single=True)
"""The original's buffers are float32, and its samplers compute from the rounded numbers."""


def denoise(bundle: Bundle, request: Options, plan: Plan) -> Denoise:
    """Guidance, by the prompts of each step → blending of what a mask keeps; a network of nine channels sees it as well.

    The original puts what is kept into x instead (``Conventions.noised``), and with a network of nine channels nowhere.
    """
    steps = len(plan.sigmas) - 1
    # a second pass counts the steps that it runs, as the web UI's does
    skipped = 0 if plan.passed is None else plan.first
    seen = {"concat": known_to_the_network(plan)} if bundle.masked else {}
    denoiser = bundle.denoiser
    if request.prediction is not None:
        denoiser = replace(denoiser, prediction=request.prediction)
    if request.compat == "diffusers" and request.sampler in ROUNDED:
        denoiser = replace(denoiser, round_t=True)
    ends = 1.0 if request.guidance_stop is None else request.guidance_stop
    first, stop = math.ceil(request.guidance_start * steps), math.ceil(ends * steps)
    scale = 1.0 if request.guidance_scale is None or first >= stop else request.guidance_scale
    interval = (plan.sigmas[stop], plan.sigmas[first]) if first < stop else None
    said = prompts(request, steps - skipped, plan.passed)
    open_ahead(bundle, plan, 1 if scale == 1 else len(said[0][0]) + 1)
    told = [
        (
            [(encoded(bundle, request, part.text) | seen, part.weight) for part in parts],
            encoded(bundle, request, uncond) | seen,
        )
        for parts, uncond in said
    ]
    guided = [composed(denoiser, conds, uncond, scale, interval, request.guidance_rescale) for conds, uncond in told]

    def scheduled(x: Array, sigma: float) -> Array:
        return guided[max(step_of(sigma, plan.sigmas) - skipped, 0)](x, sigma)

    if plan.mask is None or conventions(request).noised:
        return scheduled
    return inpaint(scheduled, plan.known, plan.mask)


def prompts(request: Options, steps: int, passed: int | None = None) -> list[tuple[list[composition.Part], str]]:
    """What is said in each step: the prompts that AND joins, and the negative prompt. passed: see ``schedules.by_step``.

    A change at step n is heard from the call n + 1 on, as in the web UI, which counts its calls from 0 and its steps from 1.
    """
    prompt, negative_prompt = (tags.taken_out(text)[0] for text in (request.prompt, request.negative_prompt))
    if request.plain():
        return [([composition.Part(prompt)], negative_prompt)] * steps
    joined = composition.parts(prompt)
    changing = [(schedules.by_step(part.text, steps, passed), part.weight) for part in joined]
    negative = schedules.by_step(negative_prompt, steps, passed)
    heard = [max(i - 1, 0) for i in range(steps)]
    return [([composition.Part(texts[i], weight) for texts, weight in changing], negative[i]) for i in heard]


def encoded(bundle: Bundle, request: Options, text: str) -> Conditioning:
    """One row of tokens: all of the text, or with ``compat`` what the original reads of it."""
    at = getattr(bundle.text, "at", None)
    heard = bundle.text if at is None else at(request.clip_skip)
    chunked = getattr(heard, "chunked", None)
    if chunked is None or request.compat is not None:
        plainly: Conditioning = heard.encode([text])
        return plainly
    said: Conditioning = chunked(text, not request.plain())
    return said


def step_of(sigma: float, sigmas: tuple[float, ...]) -> int:
    """The step that a call at ``sigma`` belongs to: the last one that begins at it or above."""
    return max(sum(level >= sigma for level in sigmas[:-1]) - 1, 0)


def known_to_the_network(plan: Plan) -> Array:
    """(1, 1 + C, h, w): the mask, and the latents of the picture whose masked part is grey, or of those that are kept.

    Without a mask all of it is unknown.
    """
    if plan.mask is not None and plan.blanked is None:
        return mask_channels(plan.known, plan.mask)
    if plan.mask is None:
        nothing = np.zeros((1, *plan.shape), np.float32) if plan.blanked is None else plan.blanked
        return concat([np.ones((1, 1, *plan.shape[1:]), np.float32), nothing], axis=1)
    return concat([(plan.mask > 0).astype(np.float32), plan.blanked], axis=1)


def conventions(request: Options) -> Conventions:
    """Those of a request."""
    if request.compat is None:
        return USUAL
    if request.compat == "diffusers":
        return Conventions(levels_of_diffusers)
    noised = request.sampler in ORIGINAL
    return Conventions(_levels_of_the_original, any_pixel, posterior=True, paste=False, noised=noised)


def _levels_of_the_original(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    """DDIM and PLMS of CompVis: often more steps than asked, down to σ of t = 0. DPM-Solver: as many, evenly in t, down to it too.

    A picture runs int(strength · n) of them, with the noise of the level before the first of those that are run.
    """
    assert request.steps is not None
    if request.sampler == "dpmpp_2m" and request.spacing is None and not edited:
        top = len(TABLE.sigmas) - 1
        return Levels(TABLE.at([top * (1 - i / request.steps) for i in range(request.steps)], TABLE.min_sigma))
    if request.sampler not in ORIGINAL:
        return usual_levels(schedule, request, edited)
    sigmas = TABLE.spaced(request.steps, request.spacing or "ddim", TABLE.min_sigma)
    steps = len(sigmas) - 1
    if not edited or request.strength is None:
        return Levels(sigmas)
    run = int(request.strength * request.steps)
    if not 0 < run < steps:
        raise InputError(
            f"strength: {request.strength:g} of {request.steps} steps is not possible with compat=original, where the original "
            f"fails; allowed: from {1 / request.steps:.3g} to less than 1"
        )
    return Levels(sigmas, steps - run, sigmas[steps - run - 1])


def levels_of_diffusers(schedule: NoiseSchedule, request: Request, edited: bool) -> Levels:
    """Those of its schedulers with Stable Diffusion's configuration (``steps_offset`` 1, ``set_alpha_to_one`` false).

    DDIM and PNDM lead and end at σ of t = 0. Euler's and Heun's timesteps are spread evenly, σ between two of the table's is
    linear, and noise alone begins as σ·ε. DPM++ 2M and UniPC leave out the lowest of one timestep more, and round. A picture runs
    int(strength · steps) of them.
    """
    assert request.steps is not None and request.sampler is not None
    steps, name, table = request.steps, request.spacing, TABLE.sigmas
    start = "sigma" if request.sampler in ("euler", "euler_a", "heun") and name != "leading" else None
    if name is not None:
        sigmas = TABLE.spaced(steps, name)
    elif request.sampler in ROUNDED:
        sigmas = TABLE.at([round(t) for t in np.linspace(0, len(table) - 1, steps + 1)[1:]])
    elif start is not None:
        times = np.linspace(0, len(table) - 1, steps)[::-1]
        sigmas = (*np.interp(times, np.arange(len(table)), table).tolist(), 0.0)
    else:
        sigmas = TABLE.spaced(steps, "leading", TABLE.min_sigma)
    if not edited or request.strength is None:
        return Levels(sigmas, start=start)
    run = min(int(request.strength * steps), steps)
    if run < 1:
        raise InputError(
            f"strength: {request.strength:g} of {steps} steps is not possible with compat=diffusers, where nothing would be left; "
            f"allowed: from {1 / steps:.3g} to 1"
        )
    return Levels(sigmas, len(sigmas) - 1 - run, start=start)
