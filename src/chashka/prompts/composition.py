"""``a AND b :0.7``: several prompts at once, each with its weight.

AUTOMATIC1111's wiki, "Composable Diffusion"; arXiv 2206.01714.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chashka.prompts.numbers import MOST_WEIGHT, within

AND = re.compile(r"\bAND\b")
WEIGHT = re.compile(r"^(.*?)(?:\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+)))?\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """One prompt of several and its weight."""

    text: str
    weight: float = 1.0


def parts(prompt: str) -> list[Part]:
    """The prompts that ``AND`` joins; one that it does not, alone and as it is. Raises InputError for a weight too large."""
    texts = AND.split(prompt)
    if len(texts) == 1:
        return [Part(prompt)]
    found = []
    for text in texts:
        match = WEIGHT.match(text)
        assert match is not None
        weight = within(float(match.group(2)), MOST_WEIGHT, "AND with a weight of") if match.group(2) else 1.0
        found.append(Part(match.group(1).strip(), weight))
    return found
