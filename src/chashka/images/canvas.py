"""More room around a picture: the canvas and the mask that outpainting starts from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chashka.errors import InputError

LONGEST = 2048
"""Pixels of a side at most, as in requests."""


def extend(
    pixels: NDArray[np.uint8], *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """uint8 (H, W, 4) with so many transparent pixels at its sides, and the mask float32 (h, w): 1 there, 0 on the picture.

    Raises InputError for numbers below 0, for none above, and for a result with a side outside of 64 to 2048 pixels.
    """
    sides = {"left": left, "right": right, "top": top, "bottom": bottom}
    for name, value in sides.items():
        if value < 0:
            raise InputError(f"{name}: {value} is not possible; allowed: a whole number of pixels from 0")
    if not any(sides.values()):
        raise InputError("extend: no side was given; give at least one of left, right, top, bottom in pixels")
    height, width = pixels.shape[0] + top + bottom, pixels.shape[1] + left + right
    if not (min(height, width) >= 64 and max(height, width) <= LONGEST):
        raise InputError(
            f"extend: the result would have {width}x{height} pixels; allowed: 64 to {LONGEST} on each side"
        )
    canvas = np.zeros((height, width, 4), np.uint8)
    mask = np.ones((height, width), np.float32)
    inner = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
    canvas[inner], mask[inner] = pixels, 0.0
    return canvas, mask
