"""The rule's words (``policy_words.txt``) as patterns over a text that is written as words with one blank around each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("policy_words.txt")
_NEVER = r"(?!)"
_SIGNS = re.compile(r"[\u3040-\u9fff]")
"""Chinese and Japanese, which have no blanks between words."""


@dataclass(frozen=True, slots=True)
class Careful:
    """Words of one language that count only where ``sign`` is found too."""

    sign: re.Pattern[str]
    minors: re.Pattern[str]
    bare: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """Every list as a pattern, over all languages. joined: a minor and something sexual in one word."""

    minors: re.Pattern[str]
    sexual: re.Pattern[str]
    bare: re.Pattern[str]
    innocent: re.Pattern[str]
    sacred: re.Pattern[str]
    careful: tuple[Careful, ...]
    young: re.Pattern[str]
    stops: re.Pattern[str]
    joined: re.Pattern[str]


@cache
def rules() -> Rules:
    """The rules of the file that came with the package."""
    parser = ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(FILE.read_text(encoding="utf-8"))
    rows = [
        {name: _entries(text) for name, text in parser[name].items()} for name in parser.sections() if name != "young"
    ]
    other = {name: _entries(text) for name, text in parser["young"].items()}
    ambiguous = {entry for row in rows for name in ("careful_minors", "careful_bare") for entry in row.get(name, [])}

    def every(name: str) -> list[str]:
        return _spellings((entry for row in rows for entry in row.get(name, [])), ambiguous)

    careful = tuple(
        Careful(*(_pattern(row.get(name, [])) for name in ("sign", "careful_minors", "careful_bare")))
        for row in rows
        if "sign" in row
    )
    young, grown = (_alternatives(other[name]) for name in ("first", "second"))
    return Rules(
        minors=_pattern(every("minors")),
        sexual=_pattern(every("sexual")),
        bare=_pattern(every("bare")),
        innocent=_pattern(every("innocent")),
        sacred=_pattern(every("sacred")),
        careful=careful,
        young=re.compile(rf"(?<= )(?:{young})(?P<between>(?: \w+){{0,3}}?) (?:{grown})(?= )"),
        stops=_pattern(other["stops"]),
        joined=_joined(every("minors"), [*every("sexual"), *every("bare")]),
    )


def bare_latin(text: str) -> str:
    """Latin letters without their marks; й and ї are letters of their own."""
    signs = (unicodedata.normalize("NFD", character) for character in text)
    return "".join(sign[0] if sign[0].isascii() else unicodedata.normalize("NFC", sign) for sign in signs)


def _entries(text: str) -> list[str]:
    return [entry for part in text.casefold().split(",") if (entry := " ".join(part.split()))]


def _spellings(entries: Iterable[str], ambiguous: set[str]) -> list[str]:
    """Each entry, and as it is written without marks, unless that is another word."""
    found: dict[str, None] = {}
    for entry in entries:
        found[entry] = None
        plain = bare_latin(entry)
        if plain.rstrip("*") not in ambiguous:
            found[plain] = None
    return list(found)


def _alternatives(entries: Iterable[str]) -> str:
    """One regular expression, the longest first."""
    ordered = sorted(set(entries), key=lambda entry: (-len(entry), entry))
    return "|".join(entry.replace("*", r"\w*").replace("(", "(?:") for entry in ordered) or _NEVER


def _pattern(entries: Iterable[str]) -> re.Pattern[str]:
    """Finds an entry as whole words; Chinese and Japanese ones anywhere."""
    entries = list(entries)
    signs = "|".join(re.escape(entry) for entry in entries if _SIGNS.match(entry)) or _NEVER
    return re.compile(rf"(?<= )(?:{_alternatives(entries)})(?= )|(?:{signs})")


def _joined(minors: Iterable[str], others: Iterable[str]) -> re.Pattern[str]:
    """childporn, nakedkids. Of plain words with four letters and more: shorter ones are found inside of others."""

    def plain(entries: Iterable[str]) -> str:
        stems = (entry.removesuffix("*") for entry in entries)
        return _alternatives(stem for stem in stems if stem.isalpha() and len(stem) >= 4 and not _SIGNS.match(stem))

    first, second = plain(minors), plain(others)
    return re.compile(rf"(?<= )(?:(?:{first}|kid)\w{{0,3}}(?:{second}|sex)|(?:{second})(?:{first}|kid))\w*")
