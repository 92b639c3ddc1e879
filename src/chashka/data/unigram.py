"""Training of a unigram language model of pieces (Kudo, arXiv 1804.10959, section 3.2), in numpy.

Seeds are the frequent substrings of the words; expectation maximisation finds their probabilities, and the pieces
whose loss would hurt the likelihood least are dropped, a quarter at a time, until the wanted number is left. All words
go through a step together, one column of letters at a time, so that a pass over millions of letters takes seconds.

Common trainers keep their words in hash tables with random seeds and so never give the same pieces twice; this one has
a fixed order of every sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.errors import InputError

Array: TypeAlias = npt.NDArray[Any]

LONGEST_WORD = 32
"""Letters of a word that are looked at: products of 32 probabilities still fit a float64."""
SPARSE = 0.5
"""Pieces that are expected fewer times are dropped after a step (as in sentencepiece's trainer)."""


@dataclass(slots=True)
class _Words:
    """Words, longest first, laid out one after another with one node before each letter and one after the last.

    ``letters`` (N,) code points, 0 at the last node of a word; ``start``, ``length``, ``count`` (W,).
    """

    letters: Array
    start: Array
    length: Array
    count: Array

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> _Words:
        words = sorted(((word[:LONGEST_WORD], count) for word, count in counts.items() if word), reverse=True)
        words.sort(key=lambda pair: -len(pair[0]))
        text = "".join(word + "\0" for word, _ in words)
        length = np.array([len(word) for word, _ in words], np.int64)
        letters = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
        return cls(letters, np.cumsum(length + 1) - length - 1, length, np.array([c for _, c in words], np.float64))

    def nodes(self, place: int, room: int) -> Array:
        """The node ``place`` letters into every word that has at least ``room`` letters."""
        return self.start[: np.searchsorted(-self.length, -room, side="right")] + place


@dataclass(slots=True)
class _Pieces:
    """Pieces and where they occur: piece ``edges[n - 1][i]`` has n letters and begins at node i (``len``: none does).

    ``place`` and ``size`` (P,): a node where the piece begins, and its letters. ``score`` (P,): log-probability.
    """

    edges: list[Array]
    place: Array
    size: Array
    score: Array

    def __len__(self) -> int:
        return len(self.size)

    def keep(self, kept: Array) -> None:
        """Drop all pieces but those at the indices ``kept``."""
        number = np.full(len(self) + 1, len(kept), np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        self.edges = [number[edge] for edge in self.edges]
        self.place, self.size, self.score = self.place[kept], self.size[kept], self.score[kept]


def train_unigram(counts: Mapping[str, int], size: int, longest: int = 16, seeds: int = 400_000) -> dict[str, float]:
    """``size`` pieces of at most ``longest`` characters with their log-probabilities, best first.

    ``counts`` says how often each word comes; words hold no spaces. Every character of the words is a piece. The same
    counts give the same pieces. Raises InputError when the words have fewer different substrings than ``size``, or more
    different characters.
    """
    words = _Words.of(counts)
    pieces = _seeds(words, longest, max(seeds, 2 * size))
    letters = int((pieces.size == 1).sum())
    if not letters <= size <= len(pieces):
        raise InputError(
            f"vocabulary: {size} pieces were asked for; these words allow {letters} (their characters) to "
            f"{len(pieces)} (their frequent substrings): change the size or give more words"
        )
    while True:
        for _ in range(2):
            expected = _expected(words, pieces)
            often = np.flatnonzero((expected >= SPARSE) | (pieces.size == 1))
            if size < len(often) < len(pieces):
                pieces.keep(often)
                expected = expected[often]
            pieces.score = _digamma(np.maximum(expected, SPARSE)) - _digamma(expected.sum())
        if len(pieces) == size:
            break
        pieces.keep(_worth_keeping(pieces, expected, max(size, len(pieces) * 3 // 4)))
    texts = ["".join(map(chr, words.letters[p : p + n])) for p, n in zip(pieces.place, pieces.size, strict=True)]
    scores = (float(score) for score in pieces.score)
    return dict(sorted(zip(texts, scores, strict=True), key=lambda pair: (-pair[1], pair[0])))


def _seeds(words: _Words, longest: int, most: int) -> _Pieces:
    """All characters, and the ``most`` substrings with the highest frequency × length.

    Left out are substrings that come twice at most, and those that the same letter always follows: the longer one says
    it all.
    """
    nodes = len(words.letters)
    rng = np.random.Generator(np.random.Philox(0))
    _, character = np.unique(words.letters, return_inverse=True)
    code = rng.integers(1, 2**63, int(character.max()) + 1, np.uint64)[character]
    weight = np.repeat(words.count, words.length + 1)
    left = np.repeat(words.start + words.length, words.length + 1) - np.arange(nodes)  # letters up to the word's end
    digest = np.zeros(nodes, np.uint64)
    multiplier = np.uint64(0x9E3779B97F4A7C15)
    found: list[tuple[Array, Array, Array]] = []  # for every length: first node, count, index at each node (or −1)
    for size in range(1, longest + 2):
        here = np.flatnonzero(left >= size)
        digest[here] = digest[here] * multiplier + code[here + size - 1]
        _, first, inverse = np.unique(digest[here], return_index=True, return_inverse=True)
        index = np.full(nodes, -1, np.int32)
        index[here] = inverse
        found.append((here[first], np.bincount(inverse, weight[here]), index))
    chosen: list[Array] = []
    for size, ((first, count, _), (_, next_count, next_index)) in enumerate(pairwise(found), start=1):
        longer = next_index[first]
        follows = np.where(longer >= 0, next_count[longer] if len(next_count) else 0.0, 0.0) == count
        chosen.append((count > 2) & ~follows if size > 1 else np.ones(len(first), bool))
    worth = np.concatenate([found[n][1] * (n + 1) * keep * (n > 0) for n, keep in enumerate(chosen)])
    singles = len(chosen[0])
    ranked = np.argsort(-worth, kind="stable")[: max(0, min(most - singles, int((worth > 0).sum())))]
    kept = np.concatenate([np.arange(singles), np.sort(ranked)])
    number = np.full(len(worth) + 1, len(kept), np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    offsets = np.cumsum([0, *(len(f[0]) for f in found[:-1])])
    edges = [
        number[np.where(index >= 0, index + offset, len(worth))]
        for (_, _, index), offset in zip(found[:-1], offsets[:-1], strict=True)
    ]
    place = np.concatenate([f[0] for f in found[:-1]])[kept]
    sizes = np.concatenate([np.full(len(f[0]), n + 1) for n, f in enumerate(found[:-1])])[kept]
    score = np.concatenate([f[1] for f in found[:-1]])[kept] * sizes
    return _Pieces(edges, place, sizes, np.log(score / score.sum()))


def _expected(words: _Words, pieces: _Pieces) -> Array:
    """(P,) how often each piece is expected in all words: the forward-backward algorithm, in plain probabilities."""
    chance = np.append(np.exp(pieces.score), 0.0)
    lengths = range(1, len(pieces.edges) + 1)
    forward, backward = np.zeros(len(words.letters)), np.zeros(len(words.letters))
    forward[words.start] = 1.0
    backward[words.start + words.length] = 1.0
    for place in range(1, int(words.length.max()) + 1):
        node = words.nodes(place, place)
        total = np.zeros(len(node))
        for size in lengths[:place]:
            total += forward[node - size] * chance[pieces.edges[size - 1][node - size]]
        forward[node] = total
    for place in range(int(words.length.max()) - 1, -1, -1):
        node = words.nodes(place, place + 1)
        total = np.zeros(len(node))
        for size in lengths:
            room = words.nodes(place, place + size)  # shorter words have no such piece here
            if not len(room):
                break
            total[: len(room)] += chance[pieces.edges[size - 1][room]] * backward[room + size]
        backward[node] = total
    share = np.repeat(words.count / forward[words.start + words.length], words.length + 1)
    expected = np.zeros(len(pieces) + 1)
    for size in lengths:
        edge = pieces.edges[size - 1]
        node = np.flatnonzero(edge < len(pieces))
        value = forward[node] * chance[edge[node]] * backward[node + size] * share[node]
        expected += np.bincount(edge[node], value, len(pieces) + 1)
    return expected[:-1]


def _worth_keeping(pieces: _Pieces, expected: Array, count: int) -> Array:
    """Indices of ``count`` pieces: all single characters, then those whose absence costs most likelihood.

    A piece that goes is spelt with its best other cut: the cost is its expected count times the difference.
    """
    score = np.append(pieces.score, -np.inf)
    cost = np.full(len(pieces), np.inf)
    for size in range(2, len(pieces.edges) + 1):
        of_size = np.flatnonzero(pieces.size == size)
        place = pieces.place[of_size]
        best = np.full((size + 1, len(of_size)), -np.inf)
        best[0] = 0.0
        for stop in range(1, size + 1):
            for part in range(1, min(stop, size - 1) + 1):
                edge = pieces.edges[part - 1][place + stop - part]
                np.maximum(best[stop], best[stop - part] + score[edge], out=best[stop])
        cost[of_size] = expected[of_size] * (pieces.score[of_size] - best[size])
    return np.sort(np.argsort(-cost, kind="stable")[:count])


def _digamma(x: Any) -> Array:
    """Derivative of log Γ for x > 0: recurrence to x ≥ 6, then the asymptotic series (Abramowitz & Stegun 6.3.18).

    In place of log(x) it makes the maximisation favour few pieces (the mean field of a Dirichlet prior).
    """
    x = np.asarray(x, np.float64).copy()
    result: Array = np.zeros_like(x)
    for _ in range(6):
        small = x < 6
        result = np.where(small, result - 1 / x, result)
        x = np.where(small, x + 1, x)
    inverse = 1 / (x * x)
    return np.asarray(result + np.log(x) - 0.5 / x - inverse * (1 / 12 - inverse * (1 / 120 - inverse / 252)))
