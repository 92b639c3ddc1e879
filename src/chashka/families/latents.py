"""Between pictures and latents: an autoencoder with its one scale."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from chashka import engines

Float = NDArray[np.float32]
Graph: TypeAlias = Callable[[Mapping[str, Float]], Mapping[str, Float]]
"""Named arrays in, named arrays out; names and shapes are those of docs/networks.md."""


LARGEST_AREA = 768 * 768
"""Pixels that are encoded or decoded at once; of larger pictures TILE × TILE at a time, which overlap by OVERLAP."""
TILE, OVERLAP = 512, 128
SMALL_TILE, SMALL_OVERLAP = 256, 64
"""The same for codecs that have to be careful with memory, and for every picture that is larger than one tile."""
LOGVAR = (-30.0, 20.0)
"""Bounds of the encoder's log-variance (CompVis ``DiagonalGaussianDistribution``)."""


def by_mapping(graph: engines.Graph) -> Graph:
    """An engine's graph as a function of one mapping, which is how codec and text encoders call it."""
    return lambda inputs: graph(**inputs)


class LatentCodec:
    """Latents are the encoder's mean times ``scale``; decoding divides.

    preview: an affine map (4, C + 1) from latents to premultiplied pixels, its last column the constant. Without one it is
    fitted by least squares to the first picture that is previewed, which costs one decoding. factor: pixels per latent, on a
    side. alpha: the networks know transparency; those that do not are given pictures on white, and what they draw is opaque.
    """

    def __init__(
        self,
        encoder: engines.Graph,
        decoder: engines.Graph,
        scale: float,
        channels: int = 16,
        preview: Float | None = None,
        factor: int = 16,
        alpha: bool = True,
    ) -> None:
        self._encoder, self._decoder, self._scale = encoder, decoder, np.float32(scale)
        self._map, self._alpha = preview, alpha
        self._plain, self._axes = (encoder, decoder), ""
        self._careful = False
        self.channels, self.factor = channels, factor

    def encode(self, pixels: Float, noise: Float | None = None) -> Float:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → (B, C, H/factor, W/factor).

        The mean: same picture, same x. With unit noise of that shape: a sample of what the encoder thinks possible.
        """
        given = np.ascontiguousarray(pixels if self._alpha else on_white(pixels), dtype=np.float32)
        whole = self._whole(*(side // self.factor for side in given.shape[2:]))
        moments: Float = self._encoder(pixels=given)["moments"] if whole else self._in_tiles(given, "pixels", "moments")
        mean = moments[:, : self.channels]
        if noise is not None and moments.shape[1] > self.channels:
            mean = mean + np.exp(0.5 * np.clip(moments[:, self.channels :], *LOGVAR)) * noise
        return mean * self._scale

    def decode(self, x: Float) -> Float:
        """(B, C, h, w) → float32 (B, 4, factor·h, factor·w), premultiplied."""
        x = np.ascontiguousarray(x / self._scale, dtype=np.float32)
        whole = self._whole(*x.shape[2:])
        pixels: Float = self._decoder(latents=x)["pixels"] if whole else self._in_tiles(x, "latents", "pixels")
        return pixels if self._alpha else np.concatenate([pixels, np.ones_like(pixels[:, :1])], axis=1)

    def ready(self, rows: int, height: int, width: int) -> None:
        """Get ready to decode x of (rows, C, height, width); exported decoders alone, which are small."""
        if self._whole(height, width) and "class" in self._decoder.metadata:
            self._decoder.prepare(latents=(rows, self.channels, height, width))

    def _whole(self, height: int, width: int) -> bool:
        largest = SMALL_TILE * SMALL_TILE if self._careful else LARGEST_AREA
        return height * width * self.factor**2 <= largest

    def tiled(self, axes: str) -> LatentCodec:
        """The same whose pictures continue at their opposite edges. axes: of 'x' and 'y'."""
        made = copy.copy(self)
        made._encoder, made._decoder = self._encoder.tiled(axes), self._decoder.tiled(axes)
        made._axes = axes
        return made

    def careful(self) -> LatentCodec:
        """The same in less memory: in small tiles, which see less of the picture and may differ a little."""
        made = copy.copy(self)
        made._careful = True
        return made

    def _in_tiles(self, given: Float, what: str, result: str) -> Float:
        """Encode or decode squares that overlap, and fade each into the next one. what, result: the graph's input and output.

        Sizes are in latents; a side of what is read and made is so many times as long.
        """
        graph = self._plain[what == "latents"]
        read, made = (self.factor if name == "pixels" else 1 for name in (what, result))
        sizes = (SMALL_TILE, SMALL_OVERLAP) if self._careful else (TILE, OVERLAP)
        side, overlap = (pixels // self.factor for pixels in sizes)
        around = [(overlap, overlap) if axis in self._axes else (0, 0) for axis in "yx"]
        wide = np.pad(given, [(0, 0), (0, 0), *((read * one, read * two) for one, two in around)], mode="wrap")
        lengths = [length // read for length in wide.shape[2:]]
        total: Float | None = None
        weights = np.zeros((1, 1, *(made * length for length in lengths)), np.float32)
        for top, left in itertools.product(*(_starts(length, side, overlap) for length in lengths)):
            part = wide[:, :, read * top : read * (top + side), read * left : read * (left + side)]
            drawn = graph(**{what: np.ascontiguousarray(part)})[result]
            if total is None:
                total = np.zeros((*drawn.shape[:2], *weights.shape[2:]), np.float32)
            high, across = drawn.shape[2:]
            fade = _fade(high, overlap * made)[:, None] * _fade(across, overlap * made)
            place = np.s_[:, :, made * top : made * top + high, made * left : made * left + across]
            total[place] += drawn * fade
            weights[place] += fade
        assert total is not None
        whole: Float = (total / weights).astype(np.float32)
        below, right = (made * pad[0] for pad in around)
        return whole[:, :, below : whole.shape[2] - below, right : whole.shape[3] - right]

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


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles of ``side`` begin, so that they cover ``length`` and overlap by ``overlap`` or more."""
    last = max(length - side, 0)
    count = -(-last // (side - overlap))
    return [0] if not count else [round(i * last / count) for i in range(count + 1)]


def _fade(length: int, overlap: int) -> Float:
    """Weights of a tile's pixels along one axis: rising over the overlap, and falling likewise; never 0."""
    ramp = (np.arange(length, dtype=np.float32) + 1) / (overlap + 1)
    fade: Float = np.minimum(1, np.minimum(ramp, ramp[::-1])).astype(np.float32)
    return fade


def on_white(pixels: Float) -> Float:
    """(B, 4, H, W), premultiplied in [-1, 1] → (B, 3, H, W): what is transparent becomes white."""
    return pixels[:, :3] + (1 - pixels[:, 3:])


def stored_preview(metadata: Mapping[str, str], channels: int) -> Float | None:
    """The affine map that a decoder's file may carry under ``preview``: JSON, 4 rows of C + 1 numbers."""
    text = metadata.get("preview")
    if text is None:
        return None
    values = np.array(json.loads(text), dtype=np.float32)
    return values if values.shape == (4, channels + 1) else None
