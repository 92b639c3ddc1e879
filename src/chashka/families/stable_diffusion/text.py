"""Stable Diffusion's texts: CLIP's words in chunks of 75, their weights, and CLIP's text tower.

The rules for chunks and weights are AUTOMATIC1111's (``modules/sd_hijack_clip.py``; its wiki, "Infinite prompt length").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from chashka.diffusion import Array, Conditioning
from chashka.engines import Graph
from chashka.families.family import Meter
from chashka.prompts import clip_words, emphasis, tags

CHUNK = clip_words.LENGTH - 2
COMMA = 267
BACK = 20
"""How many words a chunk gives up so that the next one begins behind a comma."""
REMEMBERED = 64


@dataclass(slots=True)
class Chunk:
    """At most 75 ids with their weights."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], weights: Sequence[float]) -> None:
        self.ids += ids
        self.weights += weights


Words: TypeAlias = Mapping[tuple[int, ...], tuple[int, ...]]
"""Ids of what is typed → ids of the vectors that it means: what embeddings add."""


def tokens(text: str, words: Words) -> list[tuple[int, ...]]:
    """Ids of a text, one by one; those of an added word together. Of words that begin alike the longest counts."""
    ids = clip_words.encode(text)
    longest = max(map(len, words), default=0)
    found, i = [], 0
    while i < len(ids):
        typed = next((key for n in range(longest, 0, -1) if (key := tuple(ids[i : i + n])) in words), None)
        found.append((ids[i],) if typed is None else words[typed])
        i += 1 if typed is None else len(typed)
    return found


def chunks(prompt: str, grammar: bool = True, words: Words = MappingProxyType({})) -> list[Chunk]:
    """A prompt as chunks: one at least; a comma among the last words of a full one is where it is cut."""
    found = [Chunk()]
    comma = -1
    for piece in emphasis.pieces(prompt) if grammar else [emphasis.Piece(prompt)]:
        if piece.text is None:
            found.append(Chunk())
            comma = -1
            continue
        for token in tokens(piece.text, words):
            chunk = found[-1]
            if token == (COMMA,):
                comma = len(chunk.ids)
            elif len(chunk.ids) == CHUNK and comma >= 0 and CHUNK - comma <= BACK:
                moved = Chunk(chunk.ids[comma + 1 :], chunk.weights[comma + 1 :])
                del chunk.ids[comma + 1 :], chunk.weights[comma + 1 :]
                found.append(moved)
                comma = -1
            if len(found[-1].ids) + len(token) > CHUNK:
                found.append(Chunk())
                comma = -1
            found[-1].add(token, [piece.weight] * len(token))
    return found


class CLIPText:
    """Texts → ``tokens`` (B, 77·chunks, D). pad: the id behind a text's end (1.x: the end mark, 2.x: 0).

    words: what embeddings
    have added. What it said of the last texts is kept.
    """

    def __init__(self, tower: Graph, pad: int, words: Words = MappingProxyType({})) -> None:
        self._tower, self._pad, self._words = tower, pad, words
        self._kept: OrderedDict[tuple[bool, str], Array] = OrderedDict()

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """One row per text, as it is typed, cut at 77 words. The U-Net knows no pooled vectors: none can stand in their place."""
        return {"tokens": np.stack([self._plain(text)[0] for text in texts])}

    def chunked(self, prompt: str, grammar: bool) -> Conditioning:
        """One row for a prompt of any length, of as many chunks as it has. grammar: its weights and breaks count."""
        return {"tokens": self._of(prompt, grammar)[None]}

    def pooled(self, texts: Sequence[str]) -> Array:
        """CLIP's one vector for each text, (B, P)."""
        return np.stack([self._plain(text)[1] for text in texts])

    def meter(self, text: str) -> Meter:
        """Every word is read, in chunks; weights and other signs of the grammar count for nothing."""
        count = sum(len(chunk.ids) for chunk in chunks(tags.taken_out(text)[0], words=self._words))
        return Meter(count, 0, max(CHUNK * -(-count // CHUNK), CHUNK))

    def _of(self, prompt: str, grammar: bool) -> Array:
        key = (grammar, prompt)
        if key not in self._kept:
            self._kept[key] = np.concatenate([self._weighted(chunk) for chunk in chunks(prompt, grammar, self._words)])
            while len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _plain(self, text: str) -> tuple[Array, Array]:
        typed = [number for token in tokens(text, self._words) for number in token]
        out = self._tower(ids=self._marked(typed[:CHUNK]))
        return out["tokens"][0], out["pooled"][0]

    def _marked(self, ids: Sequence[int]) -> Array:
        """(1, 77): between the two marks, padded."""
        marked = np.full((1, clip_words.LENGTH), self._pad, np.int64)
        marked[0, : len(ids) + 2] = [clip_words.START, *ids, clip_words.END]
        return marked

    def _weighted(self, chunk: Chunk) -> Array:
        """A chunk's tokens (77, D) times their weights, at the mean that they had without."""
        weights = np.ones((clip_words.LENGTH, 1), np.float32)
        weights[1 : 1 + len(chunk.ids), 0] = chunk.weights
        tokens = self._tower(ids=self._marked(chunk.ids))["tokens"][0]
        if (weights == 1).all():
            return tokens
        heavier = tokens * weights
        mean = float(heavier.mean())
        return heavier * np.float32(float(tokens.mean()) / mean) if mean else heavier
