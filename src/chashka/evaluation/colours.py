"""What colour a thing is: a histogram of its pixels over the eleven colours that captions name, in OKLab."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.data.colours import LMS_TO_LAB, OKLCH, RGB_TO_LMS

Float: TypeAlias = npt.NDArray[np.float32]

_LMS, _LAB = np.array(RGB_TO_LMS, np.float32), np.array(LMS_TO_LAB, np.float32)
PROTOTYPES: Float = np.array(
    [(light, c * math.cos(math.radians(h)), c * math.sin(math.radians(h))) for light, c, h in OKLCH], np.float32
)
"""(11, 3) OKLab: lightness, a, b."""
LIGHTNESS = 0.5
"""How much a difference of lightness counts beside one of a and b: shading moves lightness, and is no other colour."""


def oklab(rgb: Float) -> Float:
    """sRGB (N, 3) in [0, 1] → OKLab (N, 3) (Ottosson 2020)."""
    rgb = np.clip(rgb, 0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab: Float = (np.cbrt(np.maximum(linear @ _LMS.T, 0)) @ _LAB.T).astype(np.float32)
    return lab


def histogram(rgb: Float) -> Float:
    """sRGB pixels (N, 3) in [0, 1] → shares (11,) of the pixels nearest to each colour; zeros for no pixels."""
    if not len(rgb):
        return np.zeros(len(PROTOTYPES), np.float32)
    weight = np.array([LIGHTNESS, 1.0, 1.0], np.float32)
    difference = (oklab(rgb)[:, None] - PROTOTYPES) * weight
    nearest = np.square(difference).sum(-1).argmin(1)
    shares: Float = (np.bincount(nearest, minlength=len(PROTOTYPES)) / len(rgb)).astype(np.float32)
    return shares


def colour_of(network: Float, mask: npt.NDArray[np.bool_]) -> int:
    """The commonest colour (row of ``PROTOTYPES``) of one picture, (4, H, W) premultiplied in [-1, 1], where ``mask`` (H, W).

    Only what is at least half opaque counts; -1 where nothing is.
    """
    unit = network * 0.5 + 0.5
    inside = mask & (unit[3] >= 0.5)
    shares = histogram((unit[:3, inside] / unit[3, inside]).T.astype(np.float32))
    return int(shares.argmax()) if shares.any() else -1
