"""THE loop: (bundle, complete request) → steps, then pictures. One pass; what is made of several is in ``passes``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.diffusion import (
    Array,
    PictureNoise,
    Sampler,
    Step,
    VariedNoise,
    noised_known,
    sampler_name,
    samplers_along,
    with_sampler,
)
from chashka.errors import InputError, NotFiniteError
from chashka.families.conventions import Conventions, Levels
from chashka.families.family import Bundle, Plan
from chashka.generate.frames import Frame, brought, frame_for
from chashka.generate.given import Start, all_blank, paste, prepare, sources, start_x, with_strength
from chashka.prompts import tags
from chashka.request import Inputs, Picture, Request


@dataclass(frozen=True, slots=True)
class Progress:
    """After one step: the sampler's ``step`` (rows are pictures ``first``, ``first + 1`` …), and ``done`` of ``total`` steps."""

    step: Step
    done: int
    total: int
    first: int


def one_pass(
    bundle: Bundle, request: Request, given: Inputs, passed: int | None = None
) -> Generator[Progress, None, list[Picture]]:
    """Yield a :class:`Progress` after every step of every batch, and return the pictures. request: complete.

    passed: steps of the first pass's schedule, where this is the second one of a drawing.
    """
    notes = [*_text_notes(bundle, request), *bundle.notes(request)]
    if request.fast and not bundle.fast:
        notes.append("fast: this model names no quick settings; it was drawn as usual")
    frame = frame_for(bundle, request, given)
    if frame.note:
        notes.append(frame.note)
    conventions = bundle.conventions(request)
    start = prepare(bundle, request, given, frame, conventions, notes)
    if start is None and request.strength is not None:
        notes.append("strength does nothing without a picture to start from (init)")
    request = with_strength(request, given)
    assert request.seed is not None and request.sampler is not None
    levels = levels_of(bundle, request, begins_with(bundle, request, start is not None, given.mask is not None))
    steps = len(levels.run) - 1
    shape = (bundle.codec.channels, frame.drawn[1] // bundle.codec.factor, frame.drawn[0] // bundle.codec.factor)
    plan = Plan(levels.sigmas, shape, pictures=given.pictures, first=levels.first, passed=passed)
    if start is not None and start.mask is not None:
        plan = replace(plan, known=start.x, mask=start.latent_mask, blanked=start.blanked)
    elif bundle.blanks:
        plan = replace(plan, blanked=all_blank(bundle, frame))
    sampler = samplers(bundle)[request.sampler]
    options = _sampler_options(request, sampler, notes)
    keeps = plan.mask is not None and conventions.noised and not bundle.masked
    batches = batches_of(bundle, request)
    total = len(batches) * steps
    pictures: list[Picture] = []
    made_from, done = sources(given), 0
    for offset, count in batches:
        first = request.first + offset
        noises = noises_of(request, first, count)
        noise = noises(shape)
        x = start_x(bundle, noise, levels, start)
        if steps:
            denoise = bundle.denoise(bundle, request, replace(plan, rows=count, noise=noises))
            if keeps:
                options["before"] = noised_known(plan.known, plan.mask, noise)
            for step in sampler(denoise, x, levels.run, noise=noise, **options):
                done += 1
                _check(step.x, f"step {step.index + 1} of {steps}")
                yield Progress(step, done, total, first)
                x = step.x
        x = x * np.float32(bundle.denoiser.schedule.scale(levels.sigmas[-1]))  # what a run that ends above 0 hands over
        for row, pixels in enumerate(_finish(bundle, x, frame, start, request, conventions)):
            pictures.append(
                Picture(
                    pixels,
                    request.seed,
                    first + row,
                    request,
                    tuple(notes),
                    bundle.model,
                    bundle.family.name,
                    bool(made_from),
                    made_from,
                    bundle.added,
                )
            )
    return pictures


def batches_of(bundle: Bundle, request: Request) -> list[tuple[int, int]]:
    """(first, how many) of the pictures that are drawn in one call."""
    most = request.n if bundle.conventions(request).together else bundle.rows
    return [(i, min(most, request.n - i)) for i in range(0, request.n, most)]


def begins_with(bundle: Bundle, request: Request, picture: bool, mask: bool) -> bool:
    """Whether a run begins with the given picture, if there is one. request: its strength is known (``with_strength``).

    Where what a mask keeps is put into x before each step, a strength of 1 begins with noise alone.
    """
    return picture and not (mask and request.strength == 1 and bundle.conventions(request).noised)


def levels_of(bundle: Bundle, request: Request, edited: bool) -> Levels:
    """The noise levels of one pass. edited: it begins with a picture."""
    return bundle.conventions(request).levels(bundle.denoiser.schedule, request, edited)


def noises_of(request: Request, first: int, count: int) -> Callable[[Sequence[int]], PictureNoise]:
    """Noise of ``count`` pictures from number ``first``, of any shape."""
    assert request.seed is not None
    if not request.subseed_strength:
        return partial(PictureNoise, [request.seed] * count, first_picture=first)
    assert request.subseed is not None
    towards = partial(PictureNoise, [request.subseed] * count, first_picture=first)
    return partial(VariedNoise, request.seed, request.subseed_of, towards, request.subseed_strength)


def samplers(bundle: Bundle) -> dict[str, Sampler]:
    """Every sampler that a model can be drawn with, by name."""
    return samplers_along(bundle.denoiser.schedule) | dict(bundle.samplers)


def complete(bundle: Bundle, request: Request) -> Request:
    """The request as this family's options with all defaults in, or an InputError that names what is missing."""
    if not isinstance(request, bundle.family.options):
        request = bundle.family.options(**request.model_dump(exclude_unset=True))
    if request.sampler is not None:  # before spacings are filled in: the name may say one
        said = {"sampler": request.sampler, "spacing": request.spacing}
        request = request.with_fields(**with_sampler(said, bundle.samplers))
    request = bundle.filled(request).filled({"steps": 50, "guidance_scale": 1.0, "sampler": "ddim"})
    if request.seed is None:
        raise InputError("seed: missing; allowed: a whole number from 0 to 2**63 - 1")
    assert request.sampler is not None
    if request.sampler in bundle.samplers:
        return request
    return request.with_fields(sampler=sampler_name(request.sampler))


def _text_notes(bundle: Bundle, request: Request) -> list[str]:
    notes = _tag_notes(bundle, request)
    for name, meter in zip(("prompt", "negative prompt"), bundle.meters(request), strict=True):
        if meter.cut:
            notes.append(
                f"the {name} has {meter.used + meter.cut} tokens, of which the model reads the first {meter.used}"
            )
    return notes


def _tag_notes(bundle: Bundle, request: Request) -> list[str]:
    """What became of tags that did not load a LoRA, and what of the others is not done. Raises InputError as ``tags.check``."""
    notes = []
    if bundle.preset.adapters:
        tags.check(request.prompt)
    for tag in tags.taken_out(request.prompt)[1]:
        if not tag.lora:
            notes.append(f"{tag} in the prompt loads nothing: of such networks only LoRAs are known")
        elif not bundle.preset.adapters:
            notes.append(f"{tag} in the prompt loads nothing: {bundle.model} takes no LoRA")
        elif tag.name.rsplit("/", 1)[-1] not in bundle.loras:
            notes.append(f"{tag} in the prompt was left out: no LoRA of this name is loaded")
        elif tag.unread:
            notes.append(
                f"{tag} in the prompt: {', '.join(tag.unread)[:60]!r} had no effect: known are a weight, te= and unet="
            )
    for tag in tags.taken_out(request.negative_prompt)[1]:
        why = "it belongs into the prompt" if tag.lora else "of such networks only LoRAs are known"
        notes.append(f"{tag} in the negative prompt loads nothing: {why}")
    return notes


def _sampler_options(request: Request, sampler: Sampler, notes: list[str]) -> dict[str, Any]:
    """The request's sampler options that its sampler has."""
    known = inspect.signature(sampler).parameters
    options = request.sampler_options()
    notes.extend(f"{name} has no effect with the sampler {request.sampler}" for name in options if name not in known)
    return {name: value for name, value in options.items() if name in known}


def _check(values: Array, where: str) -> None:
    """Raises NotFiniteError: such numbers would become a black picture."""
    if not np.isfinite(values).all():
        raise NotFiniteError(f"{where} gave numbers that are not finite")


def _finish(
    bundle: Bundle, x: Array, frame: Frame, start: Start | None, request: Request, conventions: Conventions
) -> list[NDArray[np.uint8]]:
    """Decode, bring to the final size, paste what is kept, put on the background."""
    values = bundle.codec.decode(x)
    _check(values, "decoding")
    decoded = images.from_network(values)
    finished = []
    for drawn in decoded:
        pixels = brought(drawn, frame, start is not None)
        if start is not None and start.mask is not None and conventions.paste:
            pixels = paste(pixels, start.pixels, start.mask)
        finished.append(images.on_colour(pixels, request.background))
    return finished
