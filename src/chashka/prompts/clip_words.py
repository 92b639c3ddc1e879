"""CLIP's byte-pair vocabulary: text → ids, in pure Python. Original: openai/CLIP ``simple_tokenizer.py``.

The 49,408 ids are the 256 bytes, the same at a word's end, the merges of ``clip_merges.txt`` in their order, and two marks.
Of the original's ``ftfy`` there is what changes well-formed text: NFC, and straight quotes. It does not mend mojibake.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from chashka.prompts.vocabulary import Ids, Mask

START, END = 49406, 49407
LENGTH = 77
MARKS = {"<|startoftext|>": START, "<|endoftext|>": END}
SHORTENED = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
"""What English leaves of a word after an apostrophe is a word of its own."""
STRAIGHT = {**dict.fromkeys(map(ord, "ʼ‘’‚‛"), "'"), **dict.fromkeys(map(ord, "“”„‟"), '"')}
MERGES = Path(__file__).with_name("clip_merges.txt")


@dataclass(frozen=True, slots=True, eq=False)
class BytePairs:
    """A vocabulary of CLIP's kind. merges: pairs of pieces, the first to be joined first. ids: of pieces and of the marks.

    start, end: ids of the marks. A piece without an id is read as the end mark, as ``transformers`` does.
    """

    merges: tuple[tuple[str, str], ...]
    ids: Mapping[str, int]
    start: int = START
    end: int = END
    _ranks: dict[tuple[str, str], int] = field(init=False, repr=False)
    _known: dict[str, list[int]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ranks", {pair: rank for rank, pair in enumerate(self.merges)})

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without marks at its ends and however many they are."""
        ids: list[int] = []
        for word in _words(clean(text)):
            ids += [self.ids[word]] if word in MARKS else self._pieces(word)
        return ids

    def _pieces(self, word: str) -> list[int]:
        """The word's bytes, joined pair by pair, the pair of the earliest merge first."""
        if word in self._known:
            return self._known[word]
        letters = [_alphabet()[byte] for byte in word.encode()]
        parts = [*letters[:-1], letters[-1] + "</w>"]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            joined, i = [], 0
            while i < len(parts):
                if tuple(parts[i : i + 2]) == best:
                    joined.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            parts = joined
        return self._known.setdefault(word, [self.ids.get(part, self.end) for part in parts])


def encode(text: str) -> list[int]:
    """Ids of a text by CLIP's own vocabulary, without marks at its ends and however many they are."""
    return original().encode(text)


def encode_batch(texts: Sequence[str], pad: int = 0, length: int = LENGTH) -> tuple[Ids, Mask]:
    """ids int64 and mask float32, both (B, length): start mark, text, end mark; cut with the end mark kept, padded with ``pad``."""
    ids = np.full((len(texts), length), pad, np.int64)
    mask = np.zeros((len(texts), length), np.float32)
    for row, text in enumerate(texts):
        marked = [START, *encode(text)[: length - 2], END]
        ids[row, : len(marked)] = marked
        mask[row, : len(marked)] = 1
    return ids, mask


def clean(text: str) -> str:
    """HTML's entities read twice, NFC, straight quotes, white space made one space, lower case."""
    plain = unicodedata.normalize("NFC", html.unescape(html.unescape(text))).translate(STRAIGHT)
    return " ".join(plain.split()).lower()


def _words(text: str) -> Iterator[str]:
    """Runs of letters, single digits, runs of anything else but white space; the marks and ``SHORTENED`` as they are."""
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        whole = next((w for w in (*MARKS, *SHORTENED) if text.startswith(w, place)), None)
        end = place + 1
        if whole is not None:
            end = place + len(whole)
        elif _kind(text[place]) != "N":
            while end < len(text) and _kind(text[end]) == _kind(text[place]):
                end += 1
        yield text[place:end]
        place = end


def _kind(character: str) -> str:
    """L for letters, N for numbers, a space for white space, nothing for all others."""
    kind = unicodedata.category(character)[0]
    return kind if kind in "LN" else " " if character.isspace() else ""


@cache
def _alphabet() -> dict[int, str]:
    """A printable letter for every byte: itself where it is one, else letters from 256 on (GPT-2's ``bytes_to_unicode``)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@cache
def original() -> BytePairs:
    """CLIP's own vocabulary, which nearly every Stable Diffusion has."""
    lines = MERGES.read_text(encoding="utf-8").splitlines()
    merges = tuple((first, second) for first, _, second in (line.partition(" ") for line in lines))
    letters = list(_alphabet().values())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in merges)]
    return BytePairs(merges, {piece: i for i, piece in enumerate(pieces)} | MARKS)
