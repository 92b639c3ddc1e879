"""``<lora:name:0.8>`` in prompts (AUTOMATIC1111's wiki, "Features: Extra networks").

Source of the rules: ``modules/extra_networks.py``, ``extensions-builtin/Lora/extra_networks_lora.py``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from chashka.errors import InputError

TAG = re.compile(r"<(\w+):([^<>]+)>")
LORA = ("lora", "lyco")
"""Kinds of tags that name a LoRA: the second is an older name of the same."""
NAMED = ("te", "unet")


class Weight(NamedTuple):
    """How much of a LoRA is added to the U-Net and to the text encoder."""

    unet: float = 1.0
    text: float = 1.0

    @classmethod
    def of(cls, value: float | Weight) -> Weight:
        """A plain number is for both."""
        return value if isinstance(value, Weight) else cls(value, value)


@dataclass(frozen=True, slots=True)
class Tag:
    """``<kind:name:…>``. said: what stands behind the name, between colons."""

    kind: str
    name: str
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"<{self.kind}:{self.name}>"

    @property
    def lora(self) -> bool:
        """Whether it names a LoRA; of other kinds nothing is known."""
        return self.kind in LORA

    @property
    def weight(self) -> Weight:
        """The first number is the text encoder's, and the U-Net's too unless a second one or ``unet=`` says another.

        ``te=`` stands for the first. Raises InputError for what is no number.
        """
        numbers, named = self._numbers(), self._named()
        said = [self._number(text) for text in numbers[:2]]
        text = self._number(named["te"]) if "te" in named else (said[0] if said else 1.0)
        unet = self._number(named["unet"]) if "unet" in named else (said[1] if said[1:] else text)
        return Weight(unet, text)

    @property
    def unread(self) -> list[str]:
        """What it says beyond a weight, and is not done here: ``dyn=``, which cuts the rank, or an extension's own."""
        others = [f"{name}={value}" for name, value in self._named().items() if name not in NAMED]
        return [*self._numbers()[2:], *others]

    def _numbers(self) -> list[str]:
        return [text for text in self.said if text.count("=") != 1]

    def _named(self) -> dict[str, str]:
        pairs = (text.split("=") for text in self.said if text.count("=") == 1)
        return {name.strip(): value.strip() for name, value in pairs}

    def _number(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"prompt: {self}: {text[:20]!r} is no weight; allowed: a number, such as 0.8")
        return value


def taken_out(prompt: str) -> tuple[str, list[Tag]]:
    """The prompt without its tags, and the tags; of those of the same the last counts."""
    found: dict[tuple[bool | str, str], Tag] = {}
    for match in TAG.finditer(prompt):
        name, *said = (part.strip() for part in match.group(2).split(":"))
        tag = Tag(match.group(1), name, tuple(said))
        found[tag.lora or tag.kind, name] = tag
    return " ".join(TAG.sub(" ", prompt).split()) if found else prompt, list(found.values())


def check(prompt: str) -> None:
    """Raises InputError for a LoRA's weight that is no number."""
    for tag in taken_out(prompt)[1]:
        if tag.lora:
            _ = tag.weight
