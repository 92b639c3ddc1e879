"""The unigram vocabulary of the teacup text encoders: text → token ids, in pure Python.

The model is the unigram language model of Kudo (arXiv 1804.10959, section 3.2): every piece has a log-probability, and
a text is cut into the pieces whose sum is highest (Viterbi). Two things differ from the common readers:

* a space is a hard border for the search and has no piece of its own, so a text with its spaces lost
  («космосвнутричашки») gets nearly the same ids as the proper one;
* ids 0…3 are pad, bos, eos and unknown, 4…259 the 256 bytes, and pieces follow. A character without a piece becomes
  its UTF-8 bytes, so no text is refused and 3 is never produced.

The file is text, one ``piece<TAB>log-probability`` a line, highest first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.errors import FileError, InputError, WeightsError

PAD, BOS, EOS, UNKNOWN = 0, 1, 2, 3
FIRST_BYTE = 4
FIRST_PIECE = FIRST_BYTE + 256
MAX_LENGTH = 32
"""Ids of one text, bos and eos included, that the teacup encoders were trained with."""
UNKNOWN_PENALTY = 10.0
"""How far below the rarest piece a character without a piece scores (the value of sentencepiece and tokenizers)."""

Ids: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.float32]

_ALIKE = {
    **dict.fromkeys(map(ord, "‘’ʼ`´′ʹ"), "'"),
    **dict.fromkeys(map(ord, "«»“”„‟″"), '"'),
    **dict.fromkeys(map(ord, "‐‑‒–—―−"), "-"),
    ord("ё"): "е",
    ord("ـ"): None,  # the Arabic elongation mark says nothing
    0x200C: " ",  # zero width non-joiner: between parts of a Persian word, often typed as a space or left out
    **dict.fromkeys(range(0xFE00, 0xFE10)),  # variation selectors
    **dict.fromkeys(range(0xE0100, 0xE01F0)),
}


def normalise(text: str) -> str:
    """The form in which texts are compared and cut: NFKC, lower case, ё→е, one kind of quote, apostrophe and dash.

    Control characters become spaces; format characters (direction marks, joiners, soft hyphens) and variation selectors
    go; runs of white space become one space, none at the ends. Applying it twice changes nothing.
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.lower().replace("`", "'").split())
    # Twice: lower case and look-alikes can leave something that NFKC composes (and the other way round).
    for _ in range(2):
        # İ lowers to an i with a combining dot, which no other way of typing the letter gives.
        text = unicodedata.normalize("NFKC", text.translate(_ALIKE)).lower().replace("i\u0307", "i").translate(_ALIKE)
    if not text.isprintable():
        text = "".join(map(_visible, text))
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Cs":  # half of a surrogate pair has no UTF-8 form
        return "\ufffd"
    return " " if category in ("Cc", "Zs", "Zl", "Zp") else character


@dataclass(frozen=True, slots=True)
class Encoded:
    """``ids``: bos, pieces, eos. ``used`` pieces are among them; ``cut`` pieces did not fit."""

    ids: list[int]
    used: int
    cut: int


class Vocabulary:
    """Pieces with their log-probabilities; ``len`` counts all ids, specials and bytes included."""

    __slots__ = ("_number", "_unknown", "longest", "pieces", "scores")

    def __init__(self, pieces: Sequence[str], scores: Sequence[float]) -> None:
        """``pieces[i]`` has id ``FIRST_PIECE + i``. Raises WeightsError for lists that do not fit or repeat a piece."""
        self.pieces = list(pieces)
        self.scores = list(scores)
        self._number = dict(zip(self.pieces, range(len(self.pieces)), strict=True))
        if not self.pieces or len(self.pieces) != len(self.scores) or len(self._number) != len(self.pieces):
            raise WeightsError(
                f"vocabulary: {len(self.pieces)} pieces, {len(self._number)} different, {len(self.scores)} scores; "
                "pieces must differ and each needs one score"
            )
        self.longest = max(map(len, self.pieces))
        self._unknown = min(self.scores) - UNKNOWN_PENALTY

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read ``piece<TAB>log-probability`` lines. Raises FileError (unreadable) or WeightsError (not such a file)."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise FileError(f"{path}: cannot read the vocabulary ({error.strerror or error})") from error
        except UnicodeDecodeError as error:
            raise WeightsError(f"{path}: not a vocabulary: byte {error.start} is not UTF-8 text") from error
        cells = text.replace("\n", "\t").removesuffix("\t").split("\t")
        try:
            return cls(cells[::2], list(map(float, cells[1::2])))
        except ValueError as error:
            raise WeightsError(f"{path}: not a vocabulary of piece<TAB>log-probability lines ({error})") from error
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return FIRST_PIECE + len(self.pieces)

    def encode(self, text: str, max_length: int = MAX_LENGTH) -> Encoded:
        """``bos pieces… eos``, at most ``max_length`` ids; InputError when that is below 2 (no room for both ends)."""
        if max_length < 2:
            raise InputError(f"max_length is {max_length}; at least 2 ids are needed: the beginning and the end")
        ids: list[int] = []
        for word in normalise(text).split(" "):
            ids += self.word(word)
        used = min(len(ids), max_length - 2)
        return Encoded([BOS, *ids[:used], EOS], used, len(ids) - used)

    def encode_batch(self, texts: Sequence[str], max_length: int = MAX_LENGTH) -> tuple[Ids, Mask]:
        """``ids`` int64 (B, L), padded with 0 to the longest text, and ``mask`` float32 (B, L), 1 where an id is."""
        rows = [self.encode(text, max_length).ids for text in texts]
        length = max(map(len, rows), default=0)
        ids = np.zeros((len(rows), length), np.int64)
        mask = np.zeros((len(rows), length), np.float32)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = values
            mask[row, : len(values)] = 1
        return ids, mask

    def word(self, word: str) -> list[int]:
        """Ids of one word that is already normalised and holds no space (Viterbi over its code points)."""
        number, scores, longest, unknown = self._number, self.scores, self.longest, self._unknown
        length = len(word)
        best = [0.0] + [float("-inf")] * length
        start_of, piece_of = [0] * (length + 1), [-1] * (length + 1)
        for start in range(length):
            here = best[start]
            if word[start] not in number and here + unknown > best[start + 1]:
                best[start + 1], start_of[start + 1], piece_of[start + 1] = here + unknown, start, -1
            for stop in range(start + 1, min(start + longest, length) + 1):
                index = number.get(word[start:stop])
                if index is not None and here + scores[index] > best[stop]:
                    best[stop], start_of[stop], piece_of[stop] = here + scores[index], start, index
        ids: list[int] = []
        stop = length
        while stop:
            start, index = start_of[stop], piece_of[stop]
            if index >= 0:
                ids.append(FIRST_PIECE + index)
            else:
                ids += [FIRST_BYTE + byte for byte in reversed(word[start:stop].encode())]
            stop = start
        ids.reverse()
        return ids

    def log_probability(self, word: str) -> float:
        """Log-probability of the best cut of one normalised word; see ``UNKNOWN_PENALTY``."""
        total, stray = 0.0, 0
        for value in self.word(word):
            if value >= FIRST_PIECE:
                total += self.scores[value - FIRST_PIECE]
            else:  # count a character by its leading byte
                stray += (value - FIRST_BYTE) & 0xC0 != 0x80
        return total + stray * self._unknown

    def score(self, piece: str) -> float | None:
        """Log-probability of a piece, None when there is no such piece."""
        index = self._number.get(piece)
        return None if index is None else self.scores[index]

    def id_of(self, piece: str) -> int | None:
        """Id of a piece, None when there is no such piece."""
        index = self._number.get(piece)
        return None if index is None else FIRST_PIECE + index

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids without its spaces; special ids are left out, broken byte runs give U+FFFD.

        Raises InputError for an id outside 0…len - 1.
        """
        out = bytearray()
        for value in ids:
            if not 0 <= value < len(self):
                raise InputError(f"token id {value} is not in the vocabulary; allowed: 0 to {len(self) - 1}")
            if value >= FIRST_PIECE:
                out += self.pieces[value - FIRST_PIECE].encode()
            elif value >= FIRST_BYTE:
                out.append(value - FIRST_BYTE)
        return out.decode("utf-8", errors="replace")
