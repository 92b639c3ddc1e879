"""The one rule that holds everywhere: no sexual content about minors.

It looks at words alone (``policy_words.txt``): a prompt that names minors and something sexual is refused before anything is
drawn, with a reason that names both words and no black picture. It is a rule about words and not a guarantee about pictures.
The library's ``draw``, the commands and the server ask it; what else a shared server refuses is its own matter.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby

from chashka.errors import RefusedError
from chashka.prompts.policy_words import bare_latin, rules

MINORS = "minors"
LONGEST = 20_000
"""Characters that are looked at; prompts are shorter."""
ADULT = 18
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def check(texts: Iterable[str]) -> None:
    """Raises RefusedError if texts that are drawn together break the rule (``generate.modes.wanted`` says which those are)."""
    each = list(dict.fromkeys(texts))
    whole = "\n".join(each)
    apart = each if len(whole) > LONGEST else []  # what does not fit is looked at text by text
    found = next((both for text in [whole, *apart] if (both := about_minors(text[:LONGEST]))), None)
    if found is not None:
        minor, other = found
        raise RefusedError(
            MINORS,
            "prompt: refused by the rule 'minors': no sexual content about children and teenagers, in every mode; the prompt names "
            f"{minor!r} together with {other!r}; take one of them out",
            hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest(),
        )


def about_minors(text: str) -> tuple[str, str] | None:
    """The word for a minor and the sexual word of a text that has both; None if the rule does not mind."""
    readings = _readings(text)
    joined = next((found[0] for one in readings if (found := rules().joined.search(one))), None)
    if joined is not None:
        return joined, joined
    minors, sexual = _first(readings, _minor), _first(readings, _sexual)
    if minors and sexual:
        return minors, sexual
    plain = [_taken_out(one, rules().sacred) for one in readings]
    minors, bare = _first(plain, _minor), _first(plain, _bare)
    return (minors, bare) if minors and bare else None


# What a text can be read as.


def _table(here: str, there: str) -> dict[int, str]:
    return {ord(one): other for one, other in zip(here, there, strict=True)}


_LATIN, _CYRILLIC, _GREEK = "abcehikmoptxy", "авсенікмортху", ("αβεικνορτυχ", "abeiknoptux")
_SCRIPTS: tuple[dict[int, str] | None, ...] = (
    None,
    _table(_CYRILLIC, _LATIN) | _table(*_GREEK),
    _table(_LATIN, _CYRILLIC),
)
_LEET = (_table("013457@$!|€", "oieastasile"), _table("01", "ol"), _table("0346@", "озчба"))
_SPELLED = 200
_WORD = re.compile(r"[^\W_]+")


def _readings(text: str) -> list[str]:
    """The text as it is, and as it would be without tricks; each as words with one blank around them."""
    plain = _folded(text)
    versions = {plain, bare_latin(plain)}
    for digits in _LEET:
        versions.add(" ".join(_unleet(word, digits) for word in plain.split()))
    for version in list(versions):
        versions.add(re.sub(r"(?<=[^\W\d_])[^\w\s,;]+(?=[^\W\d_])|_", "", version))  # nu-de, n.u.d.e
        versions.update(re.sub(r"([^\W\d_])\1\1+", times, version) for times in (r"\1", r"\1\1"))  # nuuude
    readings: dict[str, None] = {}
    for version in versions:
        words = _WORD.findall(version)
        spelled = _spelled_out(words)
        for table in _SCRIPTS:
            mapped = words if table is None else [_one_script(word, table) for word in words]
            readings[_taken_out(f" {' '.join([*mapped, *spelled])} ", rules().innocent)] = None
    return list(readings)


def _folded(text: str) -> str:
    """Case, compatible forms, ё, invisible signs and marks that belong to no letter do not matter."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("ё", "е")
    return "".join(c for c in folded if unicodedata.category(c) not in ("Cf", "Mn", "Me"))


def _unleet(word: str, table: Mapping[int, str]) -> str:
    """Digits and signs in a word with letters as the letters that they look like."""
    return word.translate(table) if any(c.isalpha() for c in word) and not word.isalpha() else word


def _one_script(word: str, table: Mapping[int, str]) -> str:
    """A word whose letters come from two alphabets in one of them."""
    mixed = any(c.isascii() and c.isalpha() for c in word) and any("\u0370" <= c <= "\u04ff" for c in word)
    return word.translate(table) if mixed else word


def _spelled_out(words: list[str]) -> list[str]:
    """a n u d e c → anu, nud, nude, …: where words begin and end is not known."""
    found = []
    for single, run in groupby(words, lambda word: len(word) == 1):
        letters = "".join(run)[:_SPELLED] if single else ""
        found += [letters[i:j] for i in range(len(letters)) for j in range(i + 3, min(i + 16, len(letters) + 1))]
    return found


# What is found in a reading.


def _taken_out(reading: str, pattern: re.Pattern[str]) -> str:
    return pattern.sub("#", reading)


def _first(readings: Iterable[str], find: Callable[[str], str | None]) -> str:
    return next((found for one in readings if (found := find(one))), "")


def _minor(reading: str) -> str | None:
    found = rules().minors.search(reading)
    if found is not None:
        return found[0]
    for careful in rules().careful:
        if (found := careful.minors.search(reading)) and careful.sign.search(reading):
            return found[0]
    for near in rules().young.finditer(reading):
        if not rules().stops.search(near["between"] + " "):
            return near[0]
    return _age(reading)


def _sexual(reading: str) -> str | None:
    found = rules().sexual.search(reading)
    return found[0] if found else None


def _bare(reading: str) -> str | None:
    found = rules().bare.search(reading)
    if found is not None:
        return found[0]
    for careful in rules().careful:
        if (found := careful.bare.search(reading)) and careful.sign.search(reading):
            return found[0]
    return None


_YEARS = (
    "years? old|yrs? old|yr old|y o|yo",
    r"летн\w*|годик\w*|лет(?! назад| спустя| вместе| брака)",
    r"річн\w*|років(?! тому)",
    r"jährig\w*|jahre alt",
    "años|anos de edad",
    "ans(?! après| plus tard)",
)
_ONES = "|".join((*NUMBERS, *(f"{name}teen" for name in ("thir", "four", "fif", "six", "seven"))))
_RUSSIAN_AGE = (
    "(?:двух|трех|четырех|пяти|шести|семи|восьми|девяти|десяти|(?:один|две|три|четыр|пят|шест|сем)надцати)летн"
)
_AGES = re.compile(
    rf"(?<! il y a) (?P<age>\d{{1,2}}) ?(?:{'|'.join(_YEARS)})(?= )| (?:{_ONES}) years? old(?= )| {_RUSSIAN_AGE}\w*(?= )"
)


def _age(reading: str) -> str | None:
    """An age below 18."""
    for found in _AGES.finditer(reading):
        if int(found["age"] or 0) < ADULT:
            return found[0].strip()
    return None
