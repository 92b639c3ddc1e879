"""THE loop: (bundle, request) → steps, then pictures.

``generate`` is a generator, so that progress, previews, pause and cancel are the caller's own loop: look at a
:class:`Progress`, or leave. ``draw`` runs it to the end.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.diffusion import SAMPLERS, START, Array, PictureNoise, Sampler, Step, sampler_name
from chashka.errors import EngineError, InputError
from chashka.families.conventions import Conventions, Levels
from chashka.families.family import Bundle, Plan
from chashka.request import Inputs, Picture, Request, Source

LONGEST_SIDE = 2048
SHORTEST_SIDE = 64
GREY = np.array([0, 0, 0, 1], np.float32)[:, None, None]
"""What stands for the masked part of a picture: the middle of the network's range, opaque."""
POSTERIOR = 1
"""The number of the draw, besides the initial one, that a given picture is encoded with where its posterior is sampled."""


@dataclass(frozen=True, slots=True)
class Progress:
    """After one step: the sampler's ``step`` (rows are pictures ``first``, ``first + 1`` …), and ``done`` of ``total`` steps."""

    step: Step
    done: int
    total: int
    first: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes in pixels: what is drawn (width, height), and what comes out. cut: it is cut to that, not scaled."""

    drawn: tuple[int, int]
    final: tuple[int, int]
    note: str | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class _Start:
    """The given picture as the loop needs it: ``pixels`` uint8 and ``mask`` float32 at the final size, x and mask as latents."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.float32] | None
    x: Array
    latent_mask: Array
    blanked: Array = None


def draw(
    bundle: Bundle,
    request: Request,
    inputs: Inputs | None = None,
    on_step: Callable[[Progress], object] | None = None,
) -> list[Picture]:
    """Draw ``request.n`` pictures. ``on_step`` is called after every step; an exception of its own ends the run."""
    run = generate(bundle, request, inputs)
    while True:
        try:
            progress = next(run)
        except StopIteration as finished:
            pictures: list[Picture] = finished.value
            return pictures
        if on_step is not None:
            on_step(progress)


def generate(
    bundle: Bundle, request: Request, inputs: Inputs | None = None
) -> Generator[Progress, None, list[Picture]]:
    """Yield a :class:`Progress` after every step of every batch, and return the pictures.

    A request without a seed is refused (choose one and keep it: it belongs to the result). Same bundle, same request,
    same pictures, however many are drawn together. Raises InputError and EngineError.
    """
    request = _complete(bundle, request)
    given = inputs or Inputs()
    if given.mask is not None and given.init is None:
        raise InputError("mask: there is no picture to repaint; give the picture (init) too")
    notes = _text_notes(bundle, request)
    if request.fast and not bundle.fast:
        notes.append("fast: this model names no quick settings; it was drawn as usual")
    frame = frame_for(bundle, request, given)
    if frame.note:
        notes.append(frame.note)
    conventions = bundle.conventions(request)
    start = _prepare(bundle, request, given, frame, conventions, notes)
    if start is None and request.strength is not None:
        notes.append("strength does nothing without a picture to start from (init)")
    request = _with_strength(request, start)
    assert request.steps is not None and request.seed is not None and request.sampler is not None
    levels = conventions.levels(bundle.denoiser.schedule, request, start is not None)
    steps = len(levels.run) - 1
    shape = (bundle.codec.channels, frame.drawn[1] // bundle.codec.factor, frame.drawn[0] // bundle.codec.factor)
    plan = Plan(levels.sigmas, shape, pictures=given.pictures)
    if start is not None and start.mask is not None:
        plan = replace(plan, known=start.x, mask=start.latent_mask, blanked=start.blanked)
    sampler = samplers(bundle)[request.sampler]
    options = _sampler_options(request, sampler, notes)
    most = request.n if conventions.together else bundle.rows
    batches = [(i, min(most, request.n - i)) for i in range(0, request.n, most)]
    total = len(batches) * steps
    pictures: list[Picture] = []
    sources, done = _sources(given), 0
    for offset, count in batches:
        first = request.first + offset
        noises = partial(PictureNoise, [request.seed] * count, first_picture=first)
        noise = noises(shape)
        x = _start_x(bundle, noise, levels, start)
        if steps:
            denoise = bundle.denoise(bundle, request, replace(plan, rows=count, noise=noises))
            for step in sampler(denoise, x, levels.run, noise=noise, **options):
                done += 1
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
                    bool(sources),
                    sources,
                )
            )
    return pictures


def samplers(bundle: Bundle) -> dict[str, Sampler]:
    """Every sampler that a model can be drawn with, by name."""
    return SAMPLERS | dict(bundle.samplers)


def frame_for(bundle: Bundle, request: Request, inputs: Inputs) -> Frame:
    """What size to draw and what size to give back.

    A model draws near the area it was trained on, in its own multiples, at the shape that was asked for; the result is
    then brought to exactly the asked size. One that draws any size draws the next multiples and is cut to what was asked.
    Without a size: the given picture's, or the model's own.
    """
    preset = bundle.preset
    native = _sides(preset.area, 1.0, preset.multiple)
    notes = []
    if request.width or request.height:
        final = (request.width or request.height or 0, request.height or request.width or 0)
    elif inputs.init is not None:
        height, width = inputs.init.shape[:2]
        final = _within_limits(width, height)
        if final != (width, height):
            notes.append(f"the picture was {width}x{height} and was brought to {final[0]}x{final[1]}")
    else:
        final = native
    if preset.free:
        width, height = (-(-side // preset.multiple) * preset.multiple for side in final)
        return Frame((width, height), final, "; ".join(notes) or None, cut=True)
    drawn = _sides(preset.area, final[0] / final[1], preset.multiple)
    if drawn != final and (request.width or request.height):
        verb = "enlarged" if final[0] * final[1] > drawn[0] * drawn[1] else "reduced"
        notes.append(f"drawn at {drawn[0]}x{drawn[1]}, which suits the model, and {verb} to {final[0]}x{final[1]}")
    return Frame(drawn, final, "; ".join(notes) or None)


def _sides(area: int, aspect: float, multiple: int) -> tuple[int, int]:
    """Width and height, both multiples of ``multiple``: of those within 0.7 to 1.3 of ``area``, the nearest to ``aspect``.

    A shape that is wrong by a tenth counts as much as an area that is wrong by half: what is drawn in another shape than was
    asked for comes out stretched.
    """
    cells = area / multiple**2
    best, miss = (1, 1), math.inf
    for width in range(1, max(math.floor(1.3 * cells), 1) + 1):
        most = max(math.floor(1.3 * cells / width), 1)
        for height in sorted({min(max(of(width / aspect), 1), most) for of in (math.floor, math.ceil)}):
            size = width * height / cells
            away = abs(math.log(width / height / aspect)) + 0.25 * abs(math.log(size))
            if 0.7 <= size <= 1.3 and away < miss:
                best, miss = (width, height), away
    return best[0] * multiple, best[1] * multiple


def _within_limits(width: int, height: int) -> tuple[int, int]:
    """The size at the same ratio with no side above 2048, and then none below 64."""
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return max(round(width * scale), SHORTEST_SIDE), max(round(height * scale), SHORTEST_SIDE)


def _complete(bundle: Bundle, request: Request) -> Request:
    """The request as this family's options with all defaults in, or an InputError that names what is missing."""
    if not isinstance(request, bundle.family.options):
        request = bundle.family.options(**request.model_dump(exclude_unset=True))
    request = bundle.filled(request).filled({"steps": 50, "guidance_scale": 1.0, "sampler": "ddim"})
    if request.seed is None:
        raise InputError("seed: missing; allowed: a whole number from 0 to 2**63 - 1")
    assert request.sampler is not None
    if request.sampler in bundle.samplers:
        return request
    return request.with_fields(sampler=sampler_name(request.sampler))


def _text_notes(bundle: Bundle, request: Request) -> list[str]:
    notes = []
    for name, text in (("prompt", request.prompt), ("negative prompt", request.negative_prompt)):
        meter = bundle.text.meter(text)
        if meter.cut:
            notes.append(
                f"the {name} has {meter.used + meter.cut} tokens, of which the model reads the first {meter.used}"
            )
    return notes


def _prepare(
    bundle: Bundle, request: Request, inputs: Inputs, frame: Frame, conventions: Conventions, notes: list[str]
) -> _Start | None:
    """Encode the given picture and mask once; None for text alone."""
    if inputs.init is None:
        return None
    pixels = images.resize(inputs.init, *frame.final)
    noise = None
    if conventions.posterior:
        assert request.seed is not None
        shape = (bundle.codec.channels, *(side // bundle.codec.factor for side in reversed(frame.drawn)))
        noise = PictureNoise([request.seed], shape, request.first)(START, POSTERIOR)
    x = bundle.codec.encode(images.to_network(_fitted(pixels, frame))[None], noise)
    if inputs.mask is None:
        return _Start(pixels, None, x, None)
    mask, note = _mask_for(inputs, frame)
    if note:
        notes.append(note)
    fitted = _fitted_mask(mask, frame)
    cells = conventions.cells(fitted, bundle.codec.factor)
    start = _Start(pixels, mask, x, np.ascontiguousarray(cells[None, None], dtype=np.float32))
    if not bundle.blanks:
        return start
    blank = np.where(fitted >= 0.5, GREY, images.to_network(_fitted(pixels, frame)))[None]
    return replace(start, blanked=bundle.codec.encode(blank.astype(np.float32), noise))


def _fitted(pixels: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """The picture at the drawn size: scaled, or with its last rows and columns repeated where the frame is cut."""
    if not frame.cut:
        return images.resize(pixels, *frame.drawn)
    right, below = frame.drawn[0] - frame.final[0], frame.drawn[1] - frame.final[1]
    return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")


def _fitted_mask(mask: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """The mask likewise."""
    if not frame.cut:
        return images.fit_mask(mask, *frame.drawn)[0]
    return np.pad(mask, ((0, frame.drawn[1] - frame.final[1]), (0, frame.drawn[0] - frame.final[0])), mode="edge")


def _sources(inputs: Inputs) -> tuple[Source, ...]:
    """What the pictures are made from, for their metadata: sums, never names of files."""
    named = [
        ("init", inputs.init),
        ("mask", inputs.mask),
        *((f"picture {i}", p) for i, p in enumerate(inputs.pictures)),
    ]
    there = [(use, np.ascontiguousarray(array)) for use, array in named if array is not None]
    return tuple(Source(use, a.shape[1], a.shape[0], hashlib.sha256(a.tobytes()).hexdigest()) for use, a in there)


def _mask_for(inputs: Inputs, frame: Frame) -> tuple[NDArray[np.float32], str | None]:
    """The mask at the final size, and a note if its shape was not the picture's."""
    height, width = inputs.init.shape[:2]
    fitted, note = images.fit_mask(inputs.mask, width, height)
    return images.fit_mask(fitted, *frame.final)[0], note


def _with_strength(request: Request, start: _Start | None) -> Request:
    """Strength as it is used, so that metadata tells the truth: none without a picture."""
    if start is None:
        return request.with_fields(strength=None)
    if request.strength is None:
        return request.with_fields(strength=0.7 if start.mask is None else 1.0)
    return request


def _start_x(bundle: Bundle, noise: PictureNoise, levels: Levels, start: _Start | None) -> Array:
    """x to begin with: pure noise, or the given picture with noise of the first level that is run."""
    unit, schedule = noise.start(), bundle.denoiser.schedule
    if start is None or levels.first == 0:
        return schedule.start(unit, levels.sigmas[0])
    begin = levels.run[0] if len(levels.run) > 1 else 0.0
    entry = begin if levels.entry is None else levels.entry
    x = np.repeat(start.x, len(unit), axis=0) + np.float32(entry) * unit
    return x if entry == begin else x * np.float32(schedule.scale(entry) / schedule.scale(begin))


def _sampler_options(request: Request, sampler: Sampler, notes: list[str]) -> dict[str, Any]:
    """The request's sampler options that its sampler has."""
    known = inspect.signature(sampler).parameters
    options = request.sampler_options()
    notes.extend(f"{name} has no effect with the sampler {request.sampler}" for name in options if name not in known)
    return {name: value for name, value in options.items() if name in known}


def _finish(
    bundle: Bundle, x: Array, frame: Frame, start: _Start | None, request: Request, conventions: Conventions
) -> list[NDArray[np.uint8]]:
    """Decode, bring to the final size, paste what is kept, put on the background."""
    if not np.isfinite(x).all():
        raise EngineError("the model produced numbers that are not finite; try a lower guidance scale or precision f32")
    decoded = images.from_network(bundle.codec.decode(x))
    finished = []
    for pixels in decoded:
        if frame.cut:
            pixels = np.ascontiguousarray(pixels[: frame.final[1], : frame.final[0]])
        elif start is None:
            pixels = _cover(pixels, *frame.final)
        else:
            pixels = images.resize(pixels, *frame.final)
        if start is not None and start.mask is not None and conventions.paste:
            pixels = _paste(pixels, start.pixels, start.mask)
        finished.append(images.on_colour(pixels, request.background))
    return finished


def _cover(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale evenly until (width, height) is covered and cut the rest off on both sides alike: nothing is stretched."""
    rows, columns = pixels.shape[:2]
    scale = max(width / columns, height / rows)
    wide, high = max(round(columns * scale), width), max(round(rows * scale), height)
    scaled = images.resize(pixels, wide, high)
    left, top = (wide - width) // 2, (high - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def _paste(drawn: NDArray[np.uint8], kept: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``drawn`` where the mask is 1, exactly ``kept`` where it is 0, premultiplied mixtures between."""
    m = mask[None]
    mixed = images.to_network(drawn) * m + images.to_network(kept) * (1 - m)
    result = np.where(mask[..., None] >= 1, drawn, images.from_network(mixed))
    return np.where(mask[..., None] <= 0, kept, result)
