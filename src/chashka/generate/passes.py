"""What a drawing is made of: one pass of the loop, a part of a picture alone, or a pass and another over its enlargement.

``generate`` is a generator, so that progress, previews, pause and cancel are the caller's own loop: look at a
:class:`Progress`, or leave. ``draw`` runs it to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TypeAlias

from chashka.checkpoints.torch_file import not_finite
from chashka.errors import ChashkaError, InputError, NotFiniteError, WeightsError
from chashka.families.family import Bundle
from chashka.families.files import weight_files, weights_below
from chashka.generate import regions
from chashka.generate.frames import LONGEST_SIDE, asked_size, frame_for
from chashka.generate.given import whole_mask, with_strength
from chashka.generate.loop import Progress, batches_of, begins_with, complete, levels_of, one_pass
from chashka.generate.modes import wanted
from chashka.prompts import policy
from chashka.request import Inputs, Picture, Request

Run: TypeAlias = Generator[Progress, None, list[Picture]]


def draw(
    bundle: Bundle,
    request: Request,
    inputs: Inputs | None = None,
    on_step: Callable[[Progress], object] | None = None,
) -> list[Picture]:
    """Draw ``request.n`` pictures. ``on_step`` is called after every step; an exception of its own ends the run.

    Raises RefusedError for words that are never drawn (``prompts.policy``), and what :func:`generate` raises.
    """
    policy.check(wanted(request))
    run = generate(bundle, request, inputs)
    while True:
        try:
            progress = next(run)
        except StopIteration as finished:
            pictures: list[Picture] = finished.value
            return pictures
        if on_step is not None:
            on_step(progress)


def generate(bundle: Bundle, request: Request, inputs: Inputs | None = None) -> Run:
    """Yield a :class:`Progress` after every step of every batch, and return the pictures.

    A request without a seed is refused (choose one and keep it: it belongs to the result). Same bundle, same request,
    same pictures, however many are drawn together. Raises InputError and EngineError.
    """
    request = complete(bundle, request)
    given = inputs or Inputs()
    if given.mask is not None and given.init is None:
        raise InputError("mask: there is no picture to repaint; give the picture (init) too")
    try:
        return (yield from _run(bundle, request, given))
    except NotFiniteError as error:
        if bundle.exact is None:
            raise explained(error, bundle) from error
        note = f"{error} with {bundle.engine}: drawn again in float32, as --precision f32 does at once"
    exact = bundle.exact()
    try:
        pictures = yield from _run(exact, request, given)
    except NotFiniteError as error:
        raise explained(error, exact) from error
    return [replace(picture, notes=(note, *picture.notes)) for picture in pictures]


def explained(error: NotFiniteError, bundle: Bundle) -> ChashkaError:
    """The error of a run in float32, with what is known about its reason: weights that hold such numbers themselves."""
    for file in [*weight_files(bundle.preset), *([] if bundle.vae is None else weights_below(bundle.vae))]:
        spoiled = not_finite(file)
        if spoiled:
            more = f" and {len(spoiled) - 1} more of its tensors hold" if spoiled[1:] else " holds"
            return WeightsError(f"{file}: {spoiled[0]}{more} numbers that are not finite")
    return NotFiniteError(f"{error}, with {bundle.engine}; its weights are sound: try a lower guidance_scale")


def _run(bundle: Bundle, request: Request, given: Inputs) -> Run:
    if request.fast:
        bundle = bundle.drafting()
    if request.tiling is not None:
        bundle = bundle.tiled(request.tiling)
    if request.hires_scale is not None:
        run = _twice(bundle, request, given)
    elif request.only_masked:
        run = _part(bundle, request, given)
    else:
        run = one_pass(bundle, request, given)
    return (yield from run)


def _part(bundle: Bundle, request: Request, given: Inputs) -> Run:
    """The masked part of a picture, as large as the model draws, put back into it."""
    if given.mask is None:
        raise InputError("only_masked: there is no mask; give one, or leave only_masked out")
    mask, note = whole_mask(given, request.mask_blur)
    part = regions.part_of(mask, request.mask_padding, bundle.preset, asked_size(request))
    inner = request.with_fields(
        only_masked=False, mask_blur=0.0, width=part.drawn[0], height=part.drawn[1], background="transparent"
    )
    drawn = yield from one_pass(bundle, inner, part.cut(given, mask))
    notes = () if note is None else (note,)
    return [replace(regions.put_back(p, part, request, given, mask), notes=(*notes, *p.notes)) for p in drawn]


def _twice(bundle: Bundle, request: Request, given: Inputs) -> Run:
    """All pictures, then each of them enlarged and drawn over. What changes with the steps goes on in the second pass."""
    assert request.hires_scale is not None
    if not bundle.preset.free:
        raise InputError(
            f"hires_scale: {bundle.model} draws at one size, so that a second pass adds nothing; chashka upscale enlarges"
        )
    first = request.with_fields(hires_scale=None, background="transparent")
    size = frame_for(bundle, first, given).final
    width, height = (round(side * request.hires_scale) for side in size)
    if max(width, height) > LONGEST_SIDE:
        raise InputError(
            f"hires_scale: {request.hires_scale:g} times {size[0]}x{size[1]} is not possible; allowed: up to {LONGEST_SIDE} "
            f"pixels a side, which is {LONGEST_SIDE / max(size):.3g} times"
        )
    over = request.with_fields(
        hires_scale=None,
        n=1,
        width=width,
        height=height,
        strength=request.hires_strength,
        steps=request.hires_steps or request.steps,
    )
    shown = with_strength(first, given)
    masked = given.mask is not None
    levels = levels_of(bundle, shown, begins_with(bundle, shown, given.init is not None, masked))
    before = (len(levels.run) - 1) * len(batches_of(bundle, shown))
    each = len(levels_of(bundle, over, begins_with(bundle, over, True, masked)).run) - 1
    total, passed = before + each * request.n, len(levels.sigmas) - 1
    pictures = yield from _counted(one_pass(bundle, first, given), 0, total)
    finished = []
    for i, picture in enumerate(pictures):
        second = over.with_fields(first=picture.index)
        (drawn,) = yield from _counted(
            one_pass(bundle, second, replace(given, init=picture.pixels), passed), before + i * each, total
        )
        asked = request.with_fields(strength=picture.request.strength)
        notes = tuple(dict.fromkeys((*picture.notes, *drawn.notes)))
        finished.append(replace(picture, pixels=drawn.pixels, request=asked, notes=notes))
    return finished


def _counted(run: Run, before: int, total: int) -> Run:
    """A part of a longer run: its steps count on from ``before``."""
    while True:
        try:
            progress = next(run)
        except StopIteration as finished:
            pictures: list[Picture] = finished.value
            return pictures
        yield replace(progress, done=before + progress.done, total=total)
