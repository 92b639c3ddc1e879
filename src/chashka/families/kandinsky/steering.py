"""From a request to a function for samplers: text or mixture, guidance, thresholds, what a mask keeps."""

from __future__ import annotations

import math

import numpy as np

from chashka.diffusion import (
    Array,
    Conditioning,
    Denoise,
    Denoiser,
    cfg,
    dynamic_threshold,
    inpaint,
    mask_channels,
    static_threshold,
)
from chashka.errors import InputError
from chashka.families.ahead import open_ahead
from chashka.families.family import Bundle, Plan
from chashka.families.kandinsky.options import Options
from chashka.families.kandinsky.picture import mixture


def denoise(bundle: Bundle, request: Options, plan: Plan) -> Denoise:
    """Text or mixture → guidance → threshold → inpainting, in this order; the negative prompt stands where the empty text would.

    A network that was trained with masks sees the mask and what is kept; around any other, what is kept is blended in.
    """
    refuse(bundle, request, "compat", "prior_steps", "prior_guidance_scale", "negative_prior_prompt")
    if request.mix is None and plan.pictures:
        raise InputError("pictures: given, but the request mixes none of them; say how with mix")
    guided = request.guidance_scale not in (None, 1)
    open_ahead(bundle, plan, 2 if guided else 1)
    mixed = {} if request.mix is None else {0: mixture(bundle, request.mix, plan.pictures)}
    texts = bundle.text.encode([request.prompt, request.negative_prompt], mixed)
    seen = {"concat": known_to_the_network(plan)} if bundle.masked else {}
    cond = {name: value[:1] for name, value in texts.items()} | seen
    uncond = {name: value[1:] for name, value in texts.items()} | seen
    if bundle.weakened:
        # the guide lacks the text and some blocks; what it lacks is what guidance strengthens
        cond["keep"], uncond["keep"] = np.ones(1, np.float32), np.zeros(1, np.float32)
    result = guidance(bundle.denoiser, cond, uncond, request, plan)
    if request.denoised_type == "dynamic_threshold":
        result = dynamic_threshold(result, request.dynamic_threshold_v / 100)
    elif request.denoised_type == "clip_denoised":
        result = static_threshold(result)
    if plan.mask is not None and not bundle.masked:
        result = inpaint(result, plan.known, plan.mask)
    return result


def refuse(bundle: Bundle, request: Options, *fields: str) -> None:
    """Raise InputError for fields of other models of the family that the request sets."""
    for name in fields:
        if getattr(request, name):
            raise InputError(f"{name}: {bundle.model} has nothing that it could be for; leave it out")


def guidance(denoiser: Denoiser, cond: Conditioning, uncond: Conditioning, request: Options, plan: Plan) -> Denoise:
    """Classifier-free guidance as the request asks for it, between its fractions of the steps."""
    guided = request.guidance_scale is not None and request.guidance_scale != 1
    interval = guidance_interval(request, plan.sigmas)
    scale = request.guidance_scale if guided and interval is not None else 1.0
    return cfg(denoiser, cond, uncond, scale or 0.0, interval)


def known_to_the_network(plan: Plan) -> Array:
    """(1, 1 + C, h, w): the mask, whole cells as in training, and the latents outside of it; nothing but ones without a mask."""
    if plan.mask is None:
        return mask_channels(np.zeros((1, *plan.shape), np.float32), np.ones((1, 1, *plan.shape[1:]), np.float32))
    return mask_channels(plan.known, (plan.mask > 0).astype(np.float32))


def guidance_interval(request: Options, sigmas: tuple[float, ...]) -> tuple[float, float] | None:
    """(low, high): guidance is applied at low < σ ≤ high. Fractions of steps become noise levels once; None: nowhere."""
    steps = len(sigmas) - 1
    first, stop = math.ceil(request.guidance_start * steps), math.ceil(request.guidance_stop * steps)
    return (sigmas[stop], sigmas[first]) if first < stop else None
