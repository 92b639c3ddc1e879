"""What a drawing shows: one concept for one emoji, whatever the style, the slug and the skin tone.

Slugs are matched to code points by the sets that say both, then by the emoji's names, then by the Unicode character names.

Weight, the chance of a drawing among the drawings of its group (the first rule that fits):

====================================================================================  ======
a drawing that differs from another by skin tone (one tone of each drawing is kept)   0.05
flags, keycaps                                                                        0.05
letters and words in frames, the trade marks                                          0.05
clock faces                                                                           0.08
people put together of several emoji (families, professions, genders)                 0.08
other people                                                                          0.3
other symbols                                                                         0.3
smileys                                                                               0.6
everything else                                                                       1.0
====================================================================================  ======
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chashka.data.archives import members
from chashka.data.slugs import SYNONYMS
from chashka.data.words import SKIN_TONES, concept_id
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

TONE_WEIGHT = 0.05
_LETTERS = (
    frozenset({0xA9, 0xAE, 0x203C, 0x2049, 0x2122, 0x2139, 0x24C2, 0x3297, 0x3299, 0x1F4AF})
    | frozenset(range(0x1F170, 0x1F252))
    | frozenset(range(0x1F519, 0x1F51E))
    | frozenset(range(0x1F51F, 0x1F525))
)
_CLOCKS = frozenset(range(0x1F550, 0x1F568))
_TONE_IN_SLUG = re.compile(r"(-(medium-light|medium-dark|light|medium|dark)(-skin-tone)?)+$|-tone[1-5]")
_FLAG = re.compile(r"^flag-for-(flag-)?")
_NUMBER = re.compile(r"-\d+$")


@dataclass(frozen=True, slots=True)
class Emoji:
    """A concept: id (``emoji:2615``), the emoji itself, its English name and group."""

    concept: str
    emoji: str
    english: str
    group: str

    @property
    def weight(self) -> float:
        """The weight of an ordinary drawing of it; see the module's table."""
        codes = [ord(character) for character in self.emoji if character != "\ufe0f"]
        if self.group == "flags" or 0x20E3 in codes or codes[0] in _LETTERS:
            return 0.05
        if codes[0] in _CLOCKS or (self.group == "people" and len(codes) > 1):
            return 0.08
        return {"people": 0.3, "symbols": 0.3, "smileys": 0.6}.get(self.group, 1.0)


def slug(text: str) -> str:
    """Lower-case ASCII words joined by ``-``; accents and apostrophes fall away."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "").replace("'", ""))
    return re.sub(r"[^a-z0-9]+", "-", plain.encode("ascii", "ignore").decode().lower()).strip("-")


class EmojiTable:
    """All emoji, found by code points or by what a set of drawings calls them."""

    def __init__(self, emoji: Iterable[Emoji]) -> None:
        self.by_concept = {entry.concept: entry for entry in emoji}
        self._toned: set[str] = set()
        self._slugs: dict[str, tuple[str, bool]] = {}
        for entry in self.by_concept.values():
            self._slugs.setdefault(slug(entry.english), (entry.concept, False))
        self._joined: dict[str, tuple[str, bool]] = {}
        self._unicode_names = {
            unicodedata.name(entry.emoji[0], "").lower().replace(" ", "").replace("-", ""): (entry.concept, False)
            for entry in self.by_concept.values()
            if len(entry.emoji.replace("\ufe0f", "")) == 1
        }

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

    def of_codes(self, codes: str) -> tuple[Emoji, bool] | None:
        """Hexadecimal code points joined by ``-`` → the emoji and whether a skin tone was given; None for no emoji."""
        try:
            numbers = [int(code, 16) for code in codes.split("-")]
        except ValueError:
            return None
        kept = [number for number in numbers if number not in SKIN_TONES]
        if not kept or max(kept) > 0x10FFFF:
            return None
        entry = self.by_concept.get(concept_id("".join(map(chr, kept))))
        return (entry, len(kept) < len(numbers)) if entry else None

    def learn(self, codes_of_slug: Mapping[str, str], aliases: Mapping[str, str]) -> None:
        """Take names from a set that knows code points: slug → codes, and other slugs → those slugs."""
        for name in sorted(codes_of_slug):
            found = self.of_codes(codes_of_slug[name])
            if found:
                self._slugs.setdefault(name, (found[0].concept, found[1]))
        for name in sorted(aliases):
            if aliases[name] in self._slugs:
                self._slugs.setdefault(name, self._slugs[aliases[name]])
        self._joined = {}

    def of_slug(self, name: str) -> tuple[Emoji, bool] | None:
        """What a set calls a drawing (``cat-face``, ``catface``, ``cat-face-2``) → the emoji and whether it has a skin tone."""
        name = SYNONYMS.get(name, _FLAG.sub("flag-", name))
        bare = _TONE_IN_SLUG.sub("", name)
        for candidate in dict.fromkeys((name, bare, _NUMBER.sub("", name))):
            found = self._slugs.get(candidate) or self._spelt_together(candidate)
            if found:
                return self.by_concept[found[0]], found[1] or (candidate == bare and bare != name)
        return None

    def _spelt_together(self, name: str) -> tuple[str, bool] | None:
        if not self._joined:
            self._joined = {key.replace("-", ""): value for key, value in reversed(self._slugs.items())}
        joined = name.replace("-", "")
        return self._joined.get(joined) or self._unicode_names.get(joined)
