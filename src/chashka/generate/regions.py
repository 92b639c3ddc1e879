"""A part of a picture that is drawn alone: what is cut out around a mask, and how it is put back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.families.family import Preset
from chashka.generate.frames import LONGEST_SIDE, SHORTEST_SIDE, sides
from chashka.generate.given import paste, sources
from chashka.request import Inputs, Picture, Request

Mask = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """left, top, width, height in pixels of the picture; drawn: (width, height) that it is drawn at."""

    left: int
    top: int
    width: int
    height: int
    drawn: tuple[int, int]

    @property
    def rows_and_columns(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def cut(self, given: Inputs, mask: Mask) -> Inputs:
        """The picture and the mask of this part alone, at the size that it is drawn at."""
        place = self.rows_and_columns
        pixels = images.resize(np.ascontiguousarray(given.init[place]), *self.drawn)
        return replace(given, init=pixels, mask=images.fit_mask(np.ascontiguousarray(mask[place]), *self.drawn)[0])


def part_of(mask: Mask, padding: int, preset: Preset, size: tuple[int, int] | None) -> Part:
    """The bounds of what the mask repaints, ``padding`` pixels around them, grown to the shape of ``size``.

    mask: (H, W) in [0, 1]. size: None for the model's own area, in the shape of the part. A mask of nothing gives all of it.
    """
    height, width = mask.shape
    spans = []
    for axis, most in ((0, width), (1, height)):
        found = np.flatnonzero(mask.max(axis=axis))
        spans.append((max(found[0] - padding, 0), min(found[-1] + 1 + padding, most)) if found.size else (0, most))
    (left, right), (top, bottom) = ((int(a), int(b)) for a, b in spans)
    most = min(
        LONGEST_SIDE**2 / preset.area, preset.area / SHORTEST_SIDE**2
    )  # of a strip, so that both sides are possible
    shape = min(max((right - left) / (bottom - top), 1 / most), most)
    drawn = size or sides(preset.area, shape, preset.multiple)
    aspect = drawn[0] / drawn[1]
    left, right = _grown(left, right, math.ceil((bottom - top) * aspect), width)
    top, bottom = _grown(top, bottom, math.ceil((right - left) / aspect), height)
    return Part(left, top, right - left, bottom - top, drawn)


def _grown(start: int, stop: int, wanted: int, most: int) -> tuple[int, int]:
    """A span of at least ``wanted``, or of all that there is, with the old one in its middle where there is room."""
    length = min(max(wanted, stop - start), most)
    start = min(max(start - (length - (stop - start)) // 2, 0), most - length)
    return start, start + length


def put_back(picture: Picture, part: Part, request: Request, given: Inputs, mask: Mask) -> Picture:
    """The whole picture, with what was drawn where the mask repaints, and exactly the given pixels where it keeps."""
    whole = given.init.copy()
    whole[part.rows_and_columns] = images.resize(picture.pixels, part.width, part.height)
    pixels = images.on_colour(paste(whole, given.init, mask), request.background)
    asked = request.with_fields(strength=picture.request.strength)
    return replace(picture, pixels=pixels, request=asked, sources=sources(given))
