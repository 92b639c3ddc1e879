"""Kandinsky: latent diffusion with two multilingual text encoders whose outputs are joined, as in version 2.0.

One encoder is contrastive (its pooled vector is added to the time embedding), the other is T5's; the text head brings both
to one width and puts their tokens one after the other. ``teacup`` is the small model inside the package.
"""

from __future__ import annotations

import math
from pathlib import Path

import chashka
from chashka.diffusion import Denoise, cfg, dynamic_threshold, inpaint, static_threshold
from chashka.families.family import Bundle, Family, Plan, Preset
from chashka.families.kandinsky.opening import COMPONENTS, open_teacup
from chashka.families.kandinsky.options import Options

TEACUP = Preset(
    name="teacup",
    folder=Path(chashka.__file__).parent / "teacup" / "kandinsky",
    files=tuple(f"{part}.{suffix}" for part in COMPONENTS for suffix in ("xml", "safetensors")),
    area=256 * 256,
    multiple=64,
    summary="objects on transparent ground, 256x256 with alpha, in many languages",
    licence="Apache-2.0; trained on openly licensed pictures, see ATTRIBUTION.md",
)


def denoise(bundle: Bundle, request: Options, plan: Plan) -> Denoise:
    """Text → guidance → threshold → inpainting, in this order; the negative prompt stands where the empty text would."""
    guided = request.guidance_scale is not None and request.guidance_scale != 1
    interval = guidance_interval(request, plan.sigmas)
    scale = request.guidance_scale if guided and interval is not None else 1.0
    texts = bundle.text.encode([request.prompt, request.negative_prompt])
    cond = {name: value[:1] for name, value in texts.items()}
    uncond = {name: value[1:] for name, value in texts.items()}
    result = cfg(bundle.denoiser, cond, uncond, scale or 0.0, interval)
    if request.denoised_type == "dynamic_threshold":
        result = dynamic_threshold(result, request.dynamic_threshold_v / 100)
    elif request.denoised_type == "clip_denoised":
        result = static_threshold(result)
    if plan.mask is not None:
        result = inpaint(result, plan.known, plan.mask)
    return result


def guidance_interval(request: Options, sigmas: tuple[float, ...]) -> tuple[float, float] | None:
    """(low, high): guidance is applied at low < σ ≤ high. Fractions of steps become noise levels once; None: nowhere."""
    steps = len(sigmas) - 1
    first, stop = math.ceil(request.guidance_start * steps), math.ceil(request.guidance_stop * steps)
    return (sigmas[stop], sigmas[first]) if first < stop else None


FAMILY = Family("kandinsky", {TEACUP.name: TEACUP}, Options, open_teacup, denoise)
