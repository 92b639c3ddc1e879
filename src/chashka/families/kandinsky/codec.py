"""Between pictures and latents: the teacup autoencoder with its one scale."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Graph: TypeAlias = Callable[[Mapping[str, Float]], Mapping[str, Float]]
"""Named arrays in, named arrays out; names and shapes are those of docs/networks.md."""


class LatentCodec:
    """Latents are the encoder's mean times ``scale``; decoding divides.

    preview: an affine map (4, C + 1) from latents to premultiplied pixels, its last column the constant. Without one it is
    fitted by least squares to the first picture that is previewed, which costs one decoding.
    """

    factor = 16

    def __init__(
        self, encoder: Graph, decoder: Graph, scale: float, channels: int = 16, preview: Float | None = None
    ) -> None:
        self._encoder, self._decoder, self._scale = encoder, decoder, np.float32(scale)
        self._map = preview
        self.channels = channels

    def encode(self, pixels: Float) -> Float:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → (B, C, H/16, W/16). The mean, no noise: same picture, same x."""
        moments = self._encoder({"pixels": np.ascontiguousarray(pixels, dtype=np.float32)})["moments"]
        return moments[:, : self.channels] * self._scale

    def decode(self, x: Float) -> Float:
        """(B, C, h, w) → float32 (B, 4, 16h, 16w), premultiplied."""
        return self._decoder({"latents": np.ascontiguousarray(x / self._scale, dtype=np.float32)})["pixels"]

    def preview(self, x: Float) -> Float:
        """(B, C, h, w) → float32 (B, 4, h, w) in [-1, 1]: one pixel per latent."""
        if self._map is None:
            self._map = self._fitted(x[:1])
        out = np.einsum("oc,bchw->bohw", self._map[:, :-1], x) + self._map[:, -1][None, :, None, None]
        small: Float = np.clip(out, -1, 1).astype(np.float32)
        return small

    def _fitted(self, x: Float) -> Float:
        pixels = self.decode(x)
        rows, columns = x.shape[2:]
        cells = pixels.reshape(1, 4, rows, self.factor, columns, self.factor).mean(axis=(3, 5))
        known = np.concatenate([x, np.ones_like(x[:, :1])], axis=1).reshape(self.channels + 1, -1).T
        # a little ridge: a blank picture must not make the map explode
        square = known.T @ known + 1e-3 * len(known) * np.eye(known.shape[1])
        return np.linalg.solve(square, known.T @ cells.reshape(4, -1).T).T.astype(np.float32)


def stored_preview(metadata: Mapping[str, str], channels: int) -> Float | None:
    """The affine map that a decoder's file may carry under ``preview``: JSON, 4 rows of C + 1 numbers."""
    text = metadata.get("preview")
    if text is None:
        return None
    values = np.array(json.loads(text), dtype=np.float32)
    return values if values.shape == (4, channels + 1) else None
