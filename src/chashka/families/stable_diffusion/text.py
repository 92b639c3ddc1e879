"""Stable Diffusion's texts: CLIP's words and its text tower."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chashka.diffusion import Array, Conditioning
from chashka.engines import Graph
from chashka.families.family import Meter
from chashka.prompts import clip_words

REMEMBERED = 64


class CLIPText:
    """Texts → ``tokens`` (B, 77, D). pad: the id behind a text's end (1.x: the end mark, 2.x: 0). What was said last is kept."""

    def __init__(self, tower: Graph, pad: int) -> None:
        self._tower, self._pad = tower, pad
        self._kept: OrderedDict[str, tuple[Array, Array]] = OrderedDict()

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """One row per text. Its pooled vectors are not used by the U-Net, so that none can stand in their place."""
        return {"tokens": np.stack([self._of(text)[0] for text in texts])}

    def pooled(self, texts: Sequence[str]) -> Array:
        """CLIP's one vector for each text, (B, P)."""
        return np.stack([self._of(text)[1] for text in texts])

    def meter(self, text: str) -> Meter:
        limit, count = clip_words.LENGTH - 2, len(clip_words.encode(text))
        return Meter(min(count, limit), max(count - limit, 0), limit)

    def _of(self, text: str) -> tuple[Array, Array]:
        if text not in self._kept:
            ids, _ = clip_words.encode_batch([text], self._pad)
            out = self._tower(ids=ids)
            self._kept[text] = (out["tokens"][0], out["pooled"][0])
            while len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(text)
        return self._kept[text]
