"""Weights in prompts as AUTOMATIC1111's web UI reads them: ``(a)``, ``(a:1.3)``, ``[a]``, ``\\(`` and ``BREAK``.

Source of the rules: its wiki, "Features: Attention/emphasis"; ``modules/prompt_parser.py``, ``parse_prompt_attention``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chashka.prompts.numbers import MOST_WEIGHT, within

MORE, LESS = 1.1, 1 / 1.1
"""What a pair of round and of square brackets multiplies by."""
PARTS = re.compile(
    r"\\\(|\\\)|\\\[|\\\]|\\\\|\\|\(|\[|:\s*(?P<weight>[+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:", re.VERBOSE | re.DOTALL
)
BREAK = re.compile(r"\bBREAK\b")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text with one weight; ``text`` None: a new chunk begins here."""

    text: str | None
    weight: float = 1.0


def pieces(prompt: str) -> list[Piece]:
    """A prompt cut where its weight changes. What is never closed counts to the end; what closes nothing is a letter.

    Raises InputError for a weight that is too large (``numbers``).
    """
    found: list[tuple[str | None, float]] = []
    opened: list[tuple[str, int]] = []

    def weigh(start: int, factor: float) -> None:
        found[start:] = [(text, weight * factor) for text, weight in found[start:]]

    for match in PARTS.finditer(prompt):
        text, weight = match.group(0), match.group("weight")
        if text.startswith("\\") and len(text) > 1:
            found.append((text[1:], 1.0))
        elif text in "([":
            opened.append((text, len(found)))
        elif weight is not None and _last(opened, "("):
            weigh(_close(opened, "("), _number(weight))
        elif text == ")" and _last(opened, "("):
            weigh(_close(opened, "("), MORE)
        elif text == "]" and _last(opened, "["):
            weigh(_close(opened, "["), LESS)
        else:
            for i, part in enumerate(_chunked(text)):
                if i:
                    found.append((None, 1.0))
                found.append((part, 1.0))
    for kind, start in opened:
        weigh(start, MORE if kind == "(" else LESS)
    for _, weight in found:
        within(weight, MOST_WEIGHT, "a weight of", "; brackets in brackets multiply")
    return _merged(found)


def plain(prompt: str) -> str:
    """The prompt's words alone."""
    return " ".join(" ".join(piece.text or "" for piece in pieces(prompt)).split())


def _chunked(text: str) -> list[str]:
    """A text at its breaks, without the blanks around them: found by a pattern they would take the square of the time."""
    first, *others = BREAK.split(text)
    if not others:
        return [first]
    return [first.rstrip(), *(part.strip() for part in others[:-1]), others[-1].lstrip()]


def _last(opened: list[tuple[str, int]], kind: str) -> bool:
    return any(bracket == kind for bracket, _ in opened)


def _close(opened: list[tuple[str, int]], kind: str) -> int:
    """Where the last bracket of that kind was opened; the original keeps one list for each kind."""
    for i in range(len(opened) - 1, -1, -1):
        if opened[i][0] == kind:
            return opened.pop(i)[1]
    raise AssertionError(kind)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _merged(found: list[tuple[str | None, float]]) -> list[Piece]:
    """Neighbours of one weight as one piece; the empty prompt is one empty piece."""
    result: list[Piece] = []
    for text, weight in found:
        last = result[-1] if result else None
        if last is not None and last.text is not None and text is not None and last.weight == weight:
            result[-1] = Piece(last.text + text, weight)
        else:
            result.append(Piece(text, weight))
    return result or [Piece("")]
