"""What a drawing shows: one concept for one emoji, whatever the style and the name that a set gives it.

A set may say the code points of its drawings. Other drawings are found by name: the emoji's own English name, then what the
sets that say both call it, then either of them spelt without separators. Skin tones, flags and whatever is no emoji have no
concept here.

Weight, the chance of a drawing among the drawings of its group (the first rule that fits):

=================================================================================  ======
people put together of several code points (families, professions, genders, ♀, ♂)  0.08
other people                                                                       0.3
symbols                                                                            0.3
clock faces                                                                        0.08
smileys                                                                            0.6
everything else                                                                    1.0
=================================================================================  ======
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chashka.data.archives import members
from chashka.data.words import concept_id
from chashka.errors import FileError

GROUPS = {
    "Activities": "activities",
    "Animals & Nature": "animals-nature",
    "Flags": "flags",
    "Food & Drink": "food-drink",
    "Objects": "objects",
    "People & Body": "people",
    "Smileys & Emotion": "smileys",
    "Symbols": "symbols",
    "Travel & Places": "travel-places",
}
CLIPART = "clipart"
"""The group of drawings that are no emoji."""
NOUN_GROUPS = frozenset({"activities", "animals-nature", "food-drink", "objects", "travel-places"})

_CLOCKS = re.compile("o’clock|thirty")


@dataclass(frozen=True, slots=True)
class Emoji:
    """A concept: id (``emoji:2615``), the emoji itself, its English name and group."""

    concept: str
    emoji: str
    english: str
    group: str

    @property
    def weight(self) -> float:
        """The weight of a drawing of it; see the module's table."""
        if self.group == "people":
            return 0.3 if "-" not in self.concept else 0.08
        if self.group == "symbols":
            return 0.3
        if _CLOCKS.search(self.english):
            return 0.08
        return 0.6 if self.group == "smileys" else 1.0


def slug(text: str) -> str:
    """Lower-case ASCII words joined by ``-``; accents and apostrophes fall away."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "").replace("'", ""))
    return re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode().lower()).strip("-")


class EmojiTable:
    """All emoji, found by code points or by what a set of drawings calls them."""

    def __init__(self, emoji: Iterable[Emoji]) -> None:
        self.by_concept = {entry.concept: entry for entry in emoji}
        self._names = {slug(entry.english): entry.concept for entry in self.by_concept.values()}
        self._learnt: dict[str, str] = {}
        self._joined: dict[str, str] = {}

    @classmethod
    def read(cls, package: Path) -> EmojiTable:
        """From the npm package ``unicode-emoji-json``. Raises FileError when it is not that."""
        for name, contents in members(package, ("data-by-emoji.json",)):
            try:
                entries = json.loads(contents)
                return cls(
                    Emoji(concept_id(emoji), emoji, entry["name"], GROUPS[entry["group"]])
                    for emoji, entry in entries.items()
                )
            except (KeyError, TypeError, ValueError) as error:
                raise FileError(f"{package}: {name} is not a table of emoji ({error})") from error
        raise FileError(f"{package}: no data-by-emoji.json inside; expected the npm package unicode-emoji-json")

    def learn(self, named: Mapping[str, str]) -> None:
        """Take names from a set that says code points: code points → name. What was learnt first stays."""
        for codes, name in named.items():
            entry = self.of_codes(codes)
            if entry:
                self._learnt.setdefault(name, entry.concept)
        self._joined = {}

    def of_codes(self, codes: str) -> Emoji | None:
        """Hexadecimal code points joined by ``-`` → the emoji; variation selectors may be there or not."""
        return self.by_concept.get("emoji:" + "-".join(code for code in codes.split("-") if code != "fe0f"))

    def of_name(self, name: str) -> Emoji | None:
        """What a set calls a drawing (``cat-face``, ``catface``) → the emoji."""
        found = self._names.get(name) or self._learnt.get(name) or self._spelt_together(name.replace("-", ""))
        return self.by_concept[found] if found else None

    def _spelt_together(self, name: str) -> str | None:
        if not self._joined:
            self._joined = {key.replace("-", ""): concept for key, concept in {**self._learnt, **self._names}.items()}
        return self._joined.get(name)
