"""Texts as words that can be looked up, the same in every language and in both databases.

A word is a run of letters, digits and their marks, folded so that spelling does not matter: NFKC, case, ё = е. Scripts that put
no blanks between words (Chinese, Japanese, Thai, …) give their signs, and every pair of neighbours; a search for a longer run
asks for all its pairs. Pictorial signs (☕) are words of their own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

LONGEST_WORD = 64
LONGEST_TEXT = 10_000
"""Characters of a text that are looked at."""
MOST_TERMS = 32
"""Words of a search that are asked for: of a longer one the longest, which are the rarest."""
_UNBROKEN = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese signs from here on
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_LETTER, _SIGN, _PICTORIAL = "letter", "sign", "pictorial"


@dataclass(frozen=True, slots=True)
class Terms:
    """A search: words that must all be there, and the beginning of one more ("" if the last word is a sign)."""

    exact: tuple[str, ...]
    beginning: str

    def __bool__(self) -> bool:
        return bool(self.exact or self.beginning)


def index_terms(texts: Iterable[str]) -> set[str]:
    """Every word of some texts, as it is stored."""
    found: set[str] = set()
    for text in texts:
        for kind, run in _runs(text):
            if kind == _LETTER:
                found.add("".join(run)[:LONGEST_WORD])
            else:
                found.update(run)
                found.update(_pairs(run))
    return found


def search_terms(text: str) -> Terms:
    """What a search asks for; the last word may be the beginning of a longer one, as when somebody is still typing."""
    runs = list(_runs(text))
    beginning = ""
    if runs and runs[-1][0] == _LETTER:
        beginning = "".join(runs.pop()[1])[:LONGEST_WORD]
    found: dict[str, None] = {}
    for kind, run in runs:
        if kind == _LETTER:
            found["".join(run)[:LONGEST_WORD]] = None
        else:
            found.update(dict.fromkeys(_pairs(run) or run))
    chosen = sorted(found, key=len, reverse=True)[:MOST_TERMS]
    return Terms(tuple(chosen), beginning)


def folded(text: str) -> str:
    """A text as it is compared: compatible forms (ﬁ, Ａ), case and ё do not matter, and invisible signs are gone."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text[:LONGEST_TEXT]).casefold())
    return "".join(c for c in plain.replace("ё", "е") if unicodedata.category(c) != "Cf")


def _runs(text: str) -> Iterator[tuple[str, list[str]]]:
    """(kind, signs) of each run; a sign is a character with the marks that follow it."""
    kind, run = "", list[str]()
    for character in folded(text):
        category = unicodedata.category(character)
        if category[0] == "M" and run:
            run[-1] += character
            continue
        now = _kind(character, category)
        if now != kind or now == _PICTORIAL:
            if kind:
                yield kind, run
            kind, run = now, []
        if now:
            run.append(character)
    if kind:
        yield kind, run


def _kind(character: str, category: str) -> str:
    """What sort of run a character belongs to, "" if to none."""
    if category[0] in "LN":
        number = ord(character)
        return _SIGN if any(low <= number <= high for low, high in _UNBROKEN) else _LETTER
    return _PICTORIAL if category == "So" else ""


def _pairs(run: list[str]) -> list[str]:
    return [(first + second)[:LONGEST_WORD] for first, second in pairwise(run)]
