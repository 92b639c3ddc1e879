"""Sizes: what is asked for, what a model draws, and how one is brought to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.families.family import Bundle
from chashka.request import Inputs, Request

LONGEST_SIDE = 2048
SHORTEST_SIDE = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes in pixels: what is drawn (width, height), and what comes out. cut: it is cut to that, not scaled."""

    drawn: tuple[int, int]
    final: tuple[int, int]
    note: str | None = None
    cut: bool = False


def frame_for(bundle: Bundle, request: Request, inputs: Inputs) -> Frame:
    """What size to draw and what size to give back.

    A model draws near the area it was trained on, in its own multiples, at the shape that was asked for; the result is
    then brought to exactly the asked size. One that draws any size draws the next multiples and is cut to what was asked.
    Without a size: the given picture's, or the model's own.
    """
    preset = bundle.preset
    native = sides(preset.area, 1.0, preset.multiple)
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
    drawn = sides(preset.area, final[0] / final[1], preset.multiple)
    if drawn != final and (request.width or request.height):
        verb = "enlarged" if final[0] * final[1] > drawn[0] * drawn[1] else "reduced"
        notes.append(f"drawn at {drawn[0]}x{drawn[1]}, which suits the model, and {verb} to {final[0]}x{final[1]}")
    return Frame(drawn, final, "; ".join(notes) or None)


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
    """The picture at the drawn size: scaled, or with its last rows and columns repeated where the frame is cut."""
    if not frame.cut:
        return images.resize(pixels, *frame.drawn)
    right, below = frame.drawn[0] - frame.final[0], frame.drawn[1] - frame.final[1]
    return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode="edge")


def fitted_mask(mask: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
    """The mask likewise."""
    if not frame.cut:
        return images.fit_mask(mask, *frame.drawn)[0]
    return np.pad(mask, ((0, frame.drawn[1] - frame.final[1]), (0, frame.drawn[0] - frame.final[0])), mode="edge")


def cover(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Scale evenly until (width, height) is covered and cut the rest off on both sides alike: nothing is stretched."""
    rows, columns = pixels.shape[:2]
    scale = max(width / columns, height / rows)
    wide, high = max(round(columns * scale), width), max(round(rows * scale), height)
    scaled = images.resize(pixels, wide, high)
    left, top = (wide - width) // 2, (high - height) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
