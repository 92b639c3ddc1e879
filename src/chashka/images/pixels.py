"""Arrays: between straight alpha, which files and people use, and premultiplied alpha in [-1, 1], which networks see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chashka.request import TRANSPARENT, rgb

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom."""
LANCZOS_REACH = 3
"""Pixels, of the larger of the two sizes, that Lanczos' filter sees on each side."""
FAINT = 2 / 255
"""Alpha this near to 0 or 1 is 0 or 1: a decoder's tiny errors would otherwise tint the transparent part."""


def to_network(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (…, H, W, 4 or 3), straight alpha → float32 (…, 4, H, W) in [-1, 1], premultiplied; transparent is -1 everywhere."""
    values = pixels.astype(np.float32) / np.float32(255)
    if values.shape[-1] == 3:
        values = np.concatenate([values, np.ones_like(values[..., :1])], axis=-1)
    values[..., :3] *= values[..., 3:]
    return np.ascontiguousarray(np.moveaxis(values * np.float32(2) - np.float32(1), -1, -3))


def from_network(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 (…, 4, H, W), premultiplied, clipped to [-1, 1] → uint8 (…, H, W, 4), straight alpha.

    Colour cannot be brighter than alpha allows, so it is clipped to alpha before it is divided by it; where alpha is 0,
    colour is 0.
    """
    unit = np.clip(np.moveaxis(np.asarray(values, dtype=np.float32), -3, -1) * 0.5 + 0.5, 0.0, 1.0)
    alpha = unit[..., 3:]
    alpha = np.where(alpha < FAINT, np.float32(0), np.where(alpha > 1 - FAINT, np.float32(1), alpha))
    colour = np.minimum(unit[..., :3], alpha) / np.where(alpha > 0, alpha, np.float32(1))
    out: NDArray[np.uint8] = np.rint(np.concatenate([colour, alpha], axis=-1) * 255).astype(np.uint8)
    return out


def resize(pixels: NDArray[np.uint8], width: int, height: int, wrap: str = "") -> NDArray[np.uint8]:
    """uint8 (H, W, 3 or 4) → (height, width, same): Lanczos on premultiplied values, in float, so that edges get no halo.

    wrap: of 'x' and 'y', the axes on which the picture continues at its opposite edge, before as after.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    pixels, box = _continued(pixels, width, height, wrap)
    if pixels.shape[-1] == 3:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box))
    alpha = pixels[..., 3].astype(np.float32) / np.float32(255)
    small_alpha = np.clip(resize_plane(alpha, width, height, box=box), 0.0, 1.0)
    divisor = np.where(small_alpha > 0, small_alpha, np.float32(1))
    planes = [
        np.clip(resize_plane(pixels[..., c] * alpha, width, height, box=box) / divisor, 0.0, 255.0) * (small_alpha > 0)
        for c in range(3)
    ]
    out: NDArray[np.uint8] = np.rint(np.stack([*planes, small_alpha * 255], axis=-1)).astype(np.uint8)
    return out


def resize_plane(
    plane: NDArray[np.float32],
    width: int,
    height: int,
    method: Image.Resampling = Image.Resampling.LANCZOS,
    box: Box | None = None,
) -> NDArray[np.float32]:
    """float32 (H, W) → (height, width). box: the part that is scaled; what lies around it is seen at its edges."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((width, height), method, box), dtype=np.float32)


def _continued(pixels: NDArray[np.uint8], width: int, height: int, wrap: str) -> tuple[NDArray[np.uint8], Box]:
    """The picture with as much of its opposite edges around it as the filter sees, and where in that it stands."""
    rows, columns = pixels.shape[:2]
    below = math.ceil(LANCZOS_REACH * max(rows / height, 1)) if "y" in wrap else 0
    right = math.ceil(LANCZOS_REACH * max(columns / width, 1)) if "x" in wrap else 0
    wide = np.pad(pixels, ((below, below), (right, right), (0, 0)), mode="wrap") if wrap else pixels
    return wide, (right, below, right + columns, below + rows)


def on_colour(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.uint8]:
    """uint8 (…, H, W, 4) → (…, H, W, 3) on a colour (a name or #rrggbb); 'transparent' changes nothing."""
    return pixels if colour == TRANSPARENT else flatten(pixels, rgb(colour))


def flatten(pixels: NDArray[np.uint8], colour: Sequence[int] = (255, 255, 255)) -> NDArray[np.uint8]:
    """uint8 (…, H, W, 4) composited on a colour → (…, H, W, 3); pictures without alpha come back as they are."""
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.float32) / np.float32(255)
    back = np.asarray(colour, dtype=np.float32)
    out: NDArray[np.uint8] = np.rint(pixels[..., :3] * alpha + back * (1 - alpha)).astype(np.uint8)
    return out


def grid(pictures: Sequence[NDArray[np.uint8]], gap: int = 8) -> NDArray[Any]:
    """Pictures of one size as a sheet, nearly square, transparent (or white, without alpha) between them."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width, channels = pictures[0].shape
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    sheet = np.full(shape, 0 if channels == 4 else 255, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet
