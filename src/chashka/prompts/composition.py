"""``a AND b :0.7``: several prompts at once, each with its weight.

AUTOMATIC1111's wiki, "Composable Diffusion"; arXiv 2206.01714.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chashka.errors import InputError
from chashka.prompts.numbers import MOST_WEIGHT, within

AND = re.compile(r"\bAND\b")
WEIGHT = re.compile(r"\s*([-+]?(?:\d+\.?|\d*\.\d+))\s*")
"""What may stand behind the last colon of a part."""
MOST_PARTS = 32
"""Prompts that are joined: each of them is a row through the network in every step."""


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt of several and its weight."""

    text: str
    weight: float = 1.0


def parts(prompt: str) -> list[Part]:
    """The prompts that ``AND`` joins; one that it does not, alone and as it is.

    Raises InputError for a weight too large, and for more than ``MOST_PARTS``.
    """
    texts = AND.split(prompt)
    if len(texts) == 1:
        return [Part(prompt)]
    if len(texts) > MOST_PARTS:
        raise InputError(
            f"prompt: AND joins {len(texts)} prompts; allowed: at most {MOST_PARTS}, each of which is a row through the network; "
            "join fewer"
        )
    found = []
    for text in texts:
        before, colon, behind = text.rpartition(":")
        number = WEIGHT.fullmatch(behind) if colon else None
        if number is None:
            found.append(Part(text.strip()))
        else:
            found.append(Part(before.strip(), within(float(number[1]), MOST_WEIGHT, "AND with a weight of")))
    return found
