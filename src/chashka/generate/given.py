"""A given picture and its mask: what the loop begins with, and what of them stays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.diffusion import START, Array, PictureNoise
from chashka.families.conventions import Conventions, Levels
from chashka.families.family import Bundle
from chashka.generate.frames import Frame, fitted, fitted_mask
from chashka.request import Inputs, Request, Source

GREY = np.array([0, 0, 0, 1], np.float32)[:, None, None]
"""What stands for the masked part of a picture: the middle of the network's range, opaque."""
POSTERIOR = 1
"""The number of the draw, besides the initial one, that a given picture is encoded with where its posterior is sampled."""


@dataclass(frozen=True, slots=True)
class Start:
    """The given picture as the loop needs it: ``pixels`` uint8 and ``mask`` float32 at the final size, x and mask as latents."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.float32] | None
    x: Array
    latent_mask: Array
    blanked: Array = None


def prepare(
    bundle: Bundle, request: Request, inputs: Inputs, frame: Frame, conventions: Conventions, notes: list[str]
) -> Start | None:
    """Encode the given picture and mask once; None for text alone."""
    if inputs.init is None:
        return None
    pixels = images.resize(inputs.init, *frame.final)
    noise = None
    if conventions.posterior:
        assert request.seed is not None
        shape = (bundle.codec.channels, *(side // bundle.codec.factor for side in reversed(frame.drawn)))
        noise = PictureNoise([request.seed], shape, request.first)(START, POSTERIOR)
    x = bundle.codec.encode(images.to_network(fitted(pixels, frame))[None], noise)
    if inputs.mask is None:
        return Start(pixels, None, x, None)
    mask, note = _mask_for(inputs, frame, request.mask_blur)
    if note:
        notes.append(note)
    shaped = fitted_mask(mask, frame)
    cells = conventions.cells(shaped, bundle.codec.factor)
    start = Start(pixels, mask, x, np.ascontiguousarray(cells[None, None], dtype=np.float32))
    if not bundle.blanks:
        return start
    blank = np.where(shaped >= 0.5, GREY, images.to_network(fitted(pixels, frame)))[None]
    return replace(start, blanked=bundle.codec.encode(blank.astype(np.float32), noise))


def all_blank(bundle: Bundle, frame: Frame) -> Array:
    """What a network that is given masked pictures sees where there is no mask: latents of a picture that is masked all over."""
    width, height = frame.drawn
    return bundle.codec.encode(np.broadcast_to(GREY, (1, 4, height, width)).astype(np.float32))


def whole_mask(inputs: Inputs, blur: float) -> tuple[NDArray[np.float32], str | None]:
    """The mask at the picture's own size, and a note if it had another. blur: how soft its edge is made, in pixels."""
    height, width = inputs.init.shape[:2]
    fitted, note = images.fit_mask(inputs.mask, width, height)
    return images.blurred(fitted, blur), note


def _mask_for(inputs: Inputs, frame: Frame, blur: float) -> tuple[NDArray[np.float32], str | None]:
    """The mask at the final size, and a note if its shape was not the picture's."""
    fitted, note = whole_mask(inputs, 0.0)
    return images.blurred(images.fit_mask(fitted, *frame.final)[0], blur), note


def with_strength(request: Request, inputs: Inputs) -> Request:
    """Strength as it is used, so that metadata tells the truth: none without a picture."""
    if inputs.init is None:
        return request.with_fields(strength=None)
    if request.strength is None:
        return request.with_fields(strength=0.7 if inputs.mask is None else 1.0)
    return request


def start_x(bundle: Bundle, noise: PictureNoise, levels: Levels, start: Start | None) -> Array:
    """x to begin with: pure noise, or the given picture with noise of the first level that is run."""
    unit, schedule = noise.start(), bundle.denoiser.schedule
    if start is None or levels.first == 0:
        return schedule.start(unit, levels.sigmas[0], levels.start)
    begin = levels.run[0] if len(levels.run) > 1 else 0.0
    entry = begin if levels.entry is None else levels.entry
    x = np.repeat(start.x, len(unit), axis=0) + np.float32(entry) * unit
    return x if entry == begin else x * np.float32(schedule.scale(entry) / schedule.scale(begin))


def sources(inputs: Inputs) -> tuple[Source, ...]:
    """What the pictures are made from, for their metadata: sums, never names of files."""
    named = [
        ("init", inputs.init),
        ("mask", inputs.mask),
        *((f"picture {i}", p) for i, p in enumerate(inputs.pictures)),
    ]
    there = [(use, np.ascontiguousarray(array)) for use, array in named if array is not None]
    return tuple(Source(use, a.shape[1], a.shape[0], hashlib.sha256(a.tobytes()).hexdigest()) for use, a in there)


def paste(drawn: NDArray[np.uint8], kept: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``drawn`` where the mask is 1, exactly ``kept`` where it is 0, premultiplied mixtures between."""
    m = mask[None]
    mixed = images.to_network(drawn) * m + images.to_network(kept) * (1 - m)
    result = np.where(mask[..., None] >= 1, drawn, images.from_network(mixed))
    return np.where(mask[..., None] <= 0, kept, result)
