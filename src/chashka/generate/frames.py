"""Sizes: what is asked for, what a model draws, and how one is brought to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.families.family import Bundle, Preset
from chashka.request import Inputs, Request

LONGEST_SIDE = 2048
SHORTEST_SIDE = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes in pixels, (width, height): what is drawn, what of it is kept (its left upper part), and what that comes out as.

    wrap: of 'x' and 'y', the axes on which the picture continues at its opposite edge: nothing is cut off there.
    """

    drawn: tuple[int, int]
    kept: tuple[int, int]
    final: tuple[int, int]
    note: str | None = None
    wrap: str = ""


def frame_for(bundle: Bundle, request: Request, inputs: Inputs) -> Frame:
    """What size to draw and what size to give back.

    A model draws near the area it was trained on, in its own multiples, at the shape that was asked for; the result is
    then brought to exactly the asked size. One that draws any size draws the next of its steps and is cut to what was asked; on an
    axis that has no edge it draws the nearest multiple, which is scaled. Without a size: the given picture's, or the model's own.
    """
    preset, wrap = bundle.preset, request.tiling or ""
    native = sides(preset.area, 1.0, preset.multiple)
    notes = []
    asked = asked_size(request)
    if asked is not None:
        final = asked
    elif inputs.init is not None:
        height, width = inputs.init.shape[:2]
        final = _within_limits(width, height)
        if final != (width, height):
            notes.append(f"the picture was {width}x{height} and was brought to {final[0]}x{final[1]}")
    else:
        final = native
    if preset.free:
        drawn, kept = _any_size(final, preset, wrap)
    else:
        drawn = kept = sides(preset.area, final[0] / final[1], preset.multiple)
    if kept != final and asked is not None:
        verb = "enlarged" if final[0] * final[1] > kept[0] * kept[1] else "reduced"
        notes.append(f"drawn at {kept[0]}x{kept[1]}, which suits the model, and {verb} to {final[0]}x{final[1]}")
    return Frame(drawn, kept, final, "; ".join(notes) or None, wrap)


def asked_size(request: Request) -> tuple[int, int] | None:
    """Width and height of a request, of which one alone means a square; None where it leaves both open."""
    width, height = request.width or request.height, request.height or request.width
    return (width, height) if width and height else None


def _any_size(final: tuple[int, int], preset: Preset, wrap: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """What is drawn and what of it is kept, for a model that draws any size: (width, height) each."""
    drawn, kept = [], []
    for axis, side in zip("xy", final, strict=True):
        if axis in wrap:  # a ring of an odd number of latents has no half
            whole = max(round(side / preset.multiple), 1) * preset.multiple
            drawn.append(whole)
            kept.append(whole)
        else:
            drawn.append(-(-side // preset.free) * preset.free)
            kept.append(side)
    return (drawn[0], drawn[1]), (kept[0], kept[1])


def sides(area: int, aspect: float, multiple: int) -> tuple[int, int]:
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


def fitted(pixels: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """A given picture at the drawn size: scaled to what is kept, whose last rows and columns are repeated beyond it."""
    return np.pad(images.resize(pixels, *frame.kept, frame.wrap), (*_beyond(frame), (0, 0)), mode="edge")


def fitted_mask(mask: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """The mask likewise."""
    return np.pad(images.fit_mask(mask, *frame.kept)[0], _beyond(frame), mode="edge")


def _beyond(frame: Frame) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns that are drawn and not kept, as ``numpy.pad`` wants them."""
    return (0, frame.drawn[1] - frame.kept[1]), (0, frame.drawn[0] - frame.kept[0])


def brought(pixels: NDArray[np.uint8], frame: Frame, given: bool) -> NDArray[np.uint8]:
    """What was drawn, at the size that comes out. given: it lies over a given picture, so that nothing may be cut off."""
    kept = np.ascontiguousarray(pixels[: frame.kept[1], : frame.kept[0]])
    return images.resize(kept, *frame.final, frame.wrap) if given or frame.wrap else cover(kept, *frame.final)


def cover(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale evenly until (width, height) is covered and cut the rest off on both sides alike: nothing is stretched."""
    rows, columns = pixels.shape[:2]
    scale = max(width / columns, height / rows)
    wide, high = max(round(columns * scale), width), max(round(rows * scale), height)
    scaled = images.resize(pixels, wide, high)
    left, top = (wide - width) // 2, (high - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
