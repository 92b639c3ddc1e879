"""Pictures as points of the text encoder's space, and mixtures of pictures and words there."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.errors import InputError, WeightsError
from chashka.families.family import Bundle
from chashka.families.kandinsky.options import Part
from chashka.families.latents import Float, Graph

SIDE = 64


class PictureEncoder:
    """Pictures → vectors (B, D) like the pooled ones of texts; the whole picture is seen, at 64×64."""

    name = "picture encoder"

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> Float:
        """uint8 (H, W, 4) each, straight alpha, of any size → float32 (B, D)."""
        return self.embed(np.stack([images.to_network(images.resize(squared(p), SIDE, SIDE)) for p in pictures]))

    def embed(self, small: Float) -> Float:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → float32 (B, D)."""
        return self._graph({"pixels": small})["pooled"]


def squared(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) in the middle of a transparent square: nothing is stretched or cut off."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 4), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def mixture(bundle: Bundle, parts: Sequence[Part], pictures: Sequence[NDArray[np.uint8]]) -> Float:
    """(1, D): the direction of the weighted sum of what the parts are, at the length that pooled texts have.

    Raises WeightsError where the model has no picture encoder, InputError for parts that do not fit or cancel out.
    """
    if bundle.picture is None:
        raise WeightsError(
            f"model {bundle.model!r} has no picture encoder (its component 'picture'), so it cannot vary or mix; "
            "train one with chashka train picture and give it to chashka export"
        )
    named = {part.picture for part in parts if part.picture is not None}
    if named != set(range(len(pictures))):
        raise InputError(
            f"mix: names the pictures {sorted(named)}, given were {len(pictures)}; allowed: each of them, counted from 0"
        )
    texts = [part.text for part in parts if part.text is not None]
    seen = list(bundle.picture.encode(pictures)) if pictures else []
    said = iter(bundle.text.pooled(texts) if texts else ())
    total = sum(
        np.float32(part.weight) * (next(said) if part.picture is None else seen[part.picture]) for part in parts
    )
    length = float(np.linalg.norm(total))
    if not length > 1e-3:
        raise InputError("mix: the parts cancel each other out; give one of them more weight")
    point: Float = (total * np.float32(math.sqrt(np.size(total)) / length))[None]
    return point.astype(np.float32)
