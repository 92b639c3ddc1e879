"""The prior of Kandinsky 2.1 and 2.2: from texts, or from pictures, to embeddings that the decoder draws pictures of.

Originals: ai-forever/Kandinsky-2 ``kandinsky2_1_model.py`` (``generate_clip_emb``, ``encode_images``), ``model/prior.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chashka.diffusion import START, Denoiser, Noise, NoiseSchedule, cfg, static_threshold
from chashka.diffusion.samplers import ddpm
from chashka.engines import Graph, GraphNetwork
from chashka.families.latents import Float
from chashka.nets.clip_presets import PIXEL_MEAN, PIXEL_STD
from chashka.prompts import clip_words

LIMIT = 10.0
"""Embeddings over their deviation are cut there, as in the original."""
DRAW = 2
"""The first number of the prior's draws: those before are the picture's own."""


class Opened:
    """A graph that is opened when it is called and can be let go: the prior's networks are needed for a moment only."""

    def __init__(self, open: Callable[[], Graph]) -> None:
        self._open = open
        self._graph: Graph | None = None

    def __call__(self) -> Graph:
        if self._graph is None:
            self._graph = self._open()
        return self._graph

    def close(self) -> None:
        self._graph = None


@dataclass(frozen=True, slots=True)
class PicturePrior:
    """text, vision: CLIP's towers. network: the prior, over ``schedule``. mean, std: (D,) of embeddings.

    side: of the vision tower's square input. pad: the id behind a text's end.
    """

    text: Opened
    vision: Opened
    network: Opened
    schedule: NoiseSchedule
    mean: Float
    std: Float
    side: int
    pad: int = 0

    def sample(
        self, texts: Sequence[str], negative: str, steps: int, guidance_scale: float, noise: Noise, draw: int = DRAW
    ) -> Float:
        """One embedding for each text, (B, D), away from ``negative``. noise: of the shape (B, D); ``draw``: which of its draws."""
        rows = len(texts)
        said = self._said([*texts, negative])
        cond = {name: value[:rows] for name, value in said.items()}
        uncond = {name: value[rows:] for name, value in said.items()}
        denoiser = Denoiser(GraphNetwork(self.network()), self.schedule, "x0")
        denoise = static_threshold(cfg(denoiser, cond, uncond, guidance_scale), LIMIT)
        sigmas = self.schedule.spaced(steps, "even")
        x = self.schedule.start(noise(START, draw), sigmas[0])
        for step in ddpm(denoise, x, sigmas, noise=lambda i, _=0: noise(i, draw)):
            x = step.x
        embedding: Float = (x * self.std + self.mean).astype(np.float32)
        return embedding

    def pictures(self, pictures: Sequence[NDArray[np.uint8]]) -> Float:
        """uint8 (H, W, 4) each, straight alpha (transparent is white) → (B, D): CLIP's embeddings."""
        pixels = np.stack([as_clip_sees(picture, self.side) for picture in pictures])
        seen: Float = self.vision()(pixels=pixels)["pooled"]
        return seen

    def nothing(self) -> Float:
        """(1, D): the embedding of zeros, which stands for no picture."""
        seen: Float = self.vision()(pixels=np.zeros((1, 3, self.side, self.side), np.float32))["pooled"]
        return seen

    def pooled(self, texts: Sequence[str]) -> Float:
        """CLIP's one vector for each text, (B, D)."""
        return self._said(texts)["pooled"]

    def close(self) -> None:
        """Let the networks go; the next call opens them again."""
        for part in (self.text, self.vision, self.network):
            part.close()

    def _said(self, texts: Sequence[str]) -> dict[str, Float]:
        ids, mask = clip_words.encode_batch(texts, self.pad)
        return {**self.text()(ids=ids), "mask": mask}


def as_clip_sees(picture: NDArray[np.uint8], side: int) -> Float:
    """(H, W, 4) → float32 (3, side, side): the shorter side scaled, bicubic, the middle cut out, normalised by channel."""
    from PIL import Image

    alpha = picture[..., 3:].astype(np.float32) / 255
    rgb = np.rint(picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    height, width = rgb.shape[:2]
    short = min(height, width)
    size = (side * width // short, side * height // short)
    scaled = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    top, left = round((size[1] - side) / 2), round((size[0] - side) / 2)
    cut = scaled[top : top + side, left : left + side].astype(np.float32) / 255
    normalised = (cut - np.array(PIXEL_MEAN, np.float32)) / np.array(PIXEL_STD, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)
