"""A model whose mathematics is closed: Gaussian data around a colour that the text decides, so its denoiser is exact."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.diffusion import SAMPLERS, Conditioning, Denoiser, Flow
from chashka.families.family import Bundle, Family, Meter, Preset
from chashka.families.kandinsky.options import Options
from chashka.families.kandinsky.steering import denoise

Float = NDArray[np.float32]
SPREAD = 0.05
"""The standard deviation of the toy's pictures around their colour, in latents."""


class ToyText:
    """A word more, a token more; the colour is a hash of the text, the empty text is the middle of all colours."""

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Float] | None = None) -> Conditioning:
        rows = self.pooled(texts)
        for row, value in (pooled or {}).items():
            rows[row] = value[0]
        return {"added": rows}

    def pooled(self, texts: Sequence[str]) -> Float:
        return np.stack([colour(text) for text in texts])

    def meter(self, text: str) -> Meter:
        words = len(text.split())
        return Meter(min(words, 8), max(words - 8, 0), 8)


class PlainText:
    """What a text encoder without pooled vectors offers."""

    def __init__(self) -> None:
        self.encode, self.meter = ToyText().encode, ToyText().meter


class ToyPicture:
    """A picture's point is its mean colour."""

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> Float:
        return np.stack([images.to_network(p).mean(axis=(1, 2)) for p in pictures])


class ToyUpscaler:
    """Every pixel four times, a little lighter where its neighbours are; counts the sizes that it was given."""

    reach = 2

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def enlarge(self, pixels: Float) -> Float:
        self.shapes.append(pixels.shape)
        padded = np.pad(pixels, ((0, 0), (0, 0), (2, 2), (2, 2)))  # zeros around, as convolutions have them
        around = padded[..., 4:, 2:-2] + padded[..., :-4, 2:-2] + padded[..., 2:-2, 4:] + padded[..., 2:-2, :-4]
        return (pixels + 0.1 * around).astype(np.float32).repeat(2, axis=2).repeat(2, axis=3)


class ToyCodec:
    """Latents are means of 16×16 pixels."""

    factor = 16
    channels = 4

    def encode(self, pixels: Float, noise: Float | None = None) -> Float:
        b, c, h, w = pixels.shape
        return pixels.reshape(b, c, h // 16, 16, w // 16, 16).mean(axis=(3, 5))

    def decode(self, x: Float) -> Float:
        return np.clip(x, -1, 1).repeat(16, axis=2).repeat(16, axis=3)

    def preview(self, x: Float) -> Float:
        return np.clip(x, -1, 1)


class ToyNetwork:
    """E[x0 | x] of N(colour, SPREAD²), as a network that predicts x0; counts its calls and rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Float, t: Float, cond: Conditioning) -> Float:
        self.rows.append(len(x))
        sigma = (t / (1000 - t)).reshape(-1, 1, 1, 1)
        mean = cond["added"][:, :, None, None]
        noisy = x * (1 + sigma)
        return ((SPREAD**2 * noisy + sigma**2 * mean) / (SPREAD**2 + sigma**2)).astype(np.float32)


def colour(text: str) -> Float:
    """Premultiplied, opaque, in [-0.6, 0.6]."""
    if not text:
        return np.array([0, 0, 0, 1], dtype=np.float32)
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:3], dtype=np.uint8)
    return np.append(digest / 255 * 1.2 - 0.6, 1).astype(np.float32)


def toy_bundle(folder: Path | None = None, rows: int = 4) -> Bundle:
    """A bundle named ``toy-plain`` that takes Kandinsky's options."""
    preset = Preset("plain", folder or Path(), (), 256 * 256, 64, "colours", "none", lambda *_: toy_bundle())
    declaration = Family("toy", {"plain": preset}, Options)
    defaults = {"steps": 8, "guidance_scale": 1.0, "sampler": "ddim"}
    denoiser = Denoiser(ToyNetwork(), Flow(), "x0")
    return Bundle(
        declaration,
        preset,
        denoiser,
        ToyCodec(),
        ToyText(),
        denoise,
        defaults,
        rows,
        "numpy",
        picture=ToyPicture(),
        upscaler=ToyUpscaler(),
        fast={"steps": 3, "sampler": "euler"},
        samplers={"p_sampler": SAMPLERS["ddpm"]},
    )
