"""Stable Diffusion's texts: words in chunks (CLIP's of 75), their weights, and the text tower.

The rules for chunks and weights are AUTOMATIC1111's (``modules/sd_hijack_clip.py``; its wiki, "Infinite prompt length").
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from chashka.diffusion import Array, Conditioning
from chashka.engines import Graph
from chashka.errors import InputError
from chashka.families.family import Meter
from chashka.families.stable_diffusion.options import Options
from chashka.families.stable_diffusion.sampling import prompts
from chashka.prompts import clip_words, emphasis, tags

BACK = 20
"""How many words a chunk gives up so that the next one begins behind a comma."""
REMEMBERED = 64
MOST_WORDS = 9_600
"""Words that there is room for in all chunks of a text, 128 of CLIP's: attention to them takes memory in proportion. Ten thousand
letters of English are about 31 chunks."""


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


@dataclass(frozen=True, slots=True)
class Reader:
    """How a text becomes ids. encode: without marks, however many. room: of a chunk. comma: its id. words: see ``Words``."""

    encode: Callable[[str], Sequence[int]]
    room: int
    comma: int
    words: Words = field(default_factory=dict)

    def tokens(self, text: str) -> list[tuple[int, ...]]:
        """Ids of a text, one by one; those of an added word together. Of words that begin alike the longest counts."""
        ids = self.encode(text)
        longest = max(map(len, self.words), default=0)
        found, i = [], 0
        while i < len(ids):
            keys = (tuple(ids[i : i + n]) for n in range(longest, 0, -1))
            typed = next((key for key in keys if key in self.words), None)
            found.append((ids[i],) if typed is None else self.words[typed])
            i += 1 if typed is None else len(typed)
        return found

    def chunks(self, prompt: str, grammar: bool = True) -> list[Chunk]:
        """A prompt as chunks: one at least; a comma among the last words of a full one is where it is cut.

        ``BREAK`` begins one even where nothing stands before it; at the end it begins none.
        """
        found = [Chunk()]
        comma = -1
        for piece in emphasis.pieces(prompt) if grammar else [emphasis.Piece(prompt)]:
            if piece.text is None:
                found.append(Chunk())
                comma = -1
                continue
            for token in self.tokens(piece.text):
                chunk = found[-1]
                if token == (self.comma,):
                    comma = len(chunk.ids)
                elif len(chunk.ids) == self.room and comma >= 0 and self.room - comma <= BACK:
                    moved = Chunk(chunk.ids[comma + 1 :], chunk.weights[comma + 1 :])
                    del chunk.ids[comma + 1 :], chunk.weights[comma + 1 :]
                    found.append(moved)
                    comma = -1
                if len(found[-1].ids) + len(token) > self.room:
                    found.append(Chunk())
                    comma = -1
                found[-1].add(token, [piece.weight] * len(token))
        return found if found[-1].ids else found[:-1] or found


CLIP = Reader(clip_words.encode, clip_words.LENGTH - 2, comma=267)
Tower: TypeAlias = Callable[[Sequence[int]], tuple[Array, Array]]
"""Ids of one chunk → its tokens (L, D), the first of them the beginning's, and the text as a whole (P,)."""
Layers: TypeAlias = Callable[[int], Tower]
"""clip_skip → the tower that ends at that layer, 1 the last. Raises InputError for one that it does not have."""


def clip_tower(graph: Graph, pad: int, marks: tuple[int, int] = (clip_words.START, clip_words.END)) -> Tower:
    """CLIP's: chunks between its two marks, padded to 77. pad: the id behind a text's end."""
    start, end = marks

    def tower(ids: Sequence[int]) -> tuple[Array, Array]:
        marked = np.full((1, clip_words.LENGTH), pad, np.int64)
        marked[0, : len(ids) + 2] = [start, *ids, end]
        out = graph(ids=marked)
        return out["tokens"][0], out["pooled"][0]

    return tower


class ChunkedText:
    """Texts → ``tokens`` (B, L·chunks, D). What it said of the last texts is kept.

    whole: for a U-Net that also reads a text's one vector, as ``added`` (B, P): of several chunks their mean direction. layers:
    the tower at other layers; None where it has none to choose from.
    """

    def __init__(
        self, tower: Tower, reader: Reader = CLIP, *, whole: bool = False, layers: Layers | None = None
    ) -> None:
        self._tower, self._reader, self._whole, self._layers = tower, reader, whole, layers
        self._kept: OrderedDict[tuple[bool, str], Conditioning] = OrderedDict()
        self._others: dict[int, ChunkedText] = {}
        self._lock = threading.Lock()

    def at(self, clip_skip: int | None) -> ChunkedText:
        """The same at another layer, made at the first call and kept; None: itself. Raises InputError for one that is not there."""
        if clip_skip is None or self._layers is None:
            return self
        with self._lock:  # jobs that draw side by side
            if clip_skip not in self._others:
                self._others[clip_skip] = ChunkedText(self._layers(clip_skip), self._reader, whole=self._whole)
            return self._others[clip_skip]

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """One row per text, as it is typed, cut at one chunk. Nothing can stand in the place of pooled vectors."""
        told = [self._plain(text) for text in texts]
        tokens = {"tokens": np.stack([one[0] for one in told])}
        return tokens | ({"added": np.stack([one[1] for one in told])} if self._whole else {})

    def chunked(self, prompt: str, grammar: bool) -> Conditioning:
        """One row for a prompt of any length, of as many chunks as it has. grammar: its weights and breaks count."""
        key = (grammar, prompt)
        if key not in self._kept:
            self._kept[key] = self._of(prompt, grammar)
            while len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return dict(self._kept[key])

    def pooled(self, texts: Sequence[str]) -> Array:
        """The tower's one vector for each text, (B, P)."""
        return np.stack([self._plain(text)[1] for text in texts])

    def meter(self, text: str) -> Meter:
        """Every word is read, in chunks; weights count for nothing. What a request makes of its schedules: :meth:`meters`."""
        return self._chunks(tags.taken_out(text)[0], True)

    def meters(self, request: Options, steps: int, over: int = 0) -> tuple[Meter, Meter]:
        """The prompt and the negative prompt: of each the longest text that is read in any of the steps, one of AND's at a time.

        over: steps of a second pass, whose texts count too. Raises InputError for a text of too many chunks.
        """
        said = prompts(request, steps) + prompts(request, over, steps)
        prompt = {part.text for parts, _ in said for part in parts}
        told = self._longest(prompt, request), self._longest({negative for _, negative in said}, request)
        for name, meter in zip(("prompt", "negative_prompt"), told, strict=True):
            if meter.limit > MOST_WORDS:
                room = self._reader.room
                raise InputError(
                    f"{name}: it is read in {meter.limit // room} chunks of {room} words; allowed: at most {MOST_WORDS // room}; "
                    "make it shorter"
                )
        return told

    def _longest(self, texts: Iterable[str], request: Options) -> Meter:
        count = self._cut if request.compat is not None else partial(self._chunks, grammar=not request.plain())
        return max((count(text) for text in texts), key=lambda meter: meter.used + meter.cut)

    def _cut(self, text: str) -> Meter:
        """As :meth:`encode` reads it."""
        typed, room = sum(map(len, self._reader.tokens(text))), self._reader.room
        return Meter(min(typed, room), max(typed - room, 0), room)

    def _chunks(self, text: str, grammar: bool) -> Meter:
        """As :meth:`chunked` reads it."""
        chunks, room = self._reader.chunks(text, grammar), self._reader.room
        return Meter(sum(len(chunk.ids) for chunk in chunks), 0, room * len(chunks))

    def _of(self, prompt: str, grammar: bool) -> Conditioning:
        told = [self._weighted(chunk) for chunk in self._reader.chunks(prompt, grammar)]
        tokens = {"tokens": np.concatenate([one[0] for one in told])[None]}
        if not self._whole:
            return tokens
        mean = np.mean([one[1] for one in told], axis=0)
        length = np.linalg.norm(told[0][1]) / max(float(np.linalg.norm(mean)), 1e-6)
        return tokens | {"added": (mean * np.float32(length))[None]}

    def _plain(self, text: str) -> tuple[Array, Array]:
        typed = [number for token in self._reader.tokens(text) for number in token]
        return self._tower(typed[: self._reader.room])

    def _weighted(self, chunk: Chunk) -> tuple[Array, Array]:
        """A chunk's tokens (L, D) times their weights, at the mean that they had without, and its one vector."""
        tokens, whole = self._tower(chunk.ids)
        weights = np.ones((len(tokens), 1), np.float32)
        weights[1 : 1 + len(chunk.ids), 0] = chunk.weights
        if (weights == 1).all():
            return tokens, whole
        heavier = tokens * weights
        mean = float(heavier.mean())
        return (heavier * np.float32(float(tokens.mean()) / mean) if mean else heavier), whole
