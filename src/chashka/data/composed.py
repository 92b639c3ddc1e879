"""A seeded grammar of composed captions ("two cups", "a cat inside a box") in the ten main languages.

Twenty-four things, eleven colours, numbers from one to five and six relations. Every language has what it needs to
stay correct: articles and gender for German, French and Spanish, cases for Ukrainian, Kazakh and Mongolian as tables,
for Russian from pymorphy3. The captions feed the vocabulary; pictures of them are another matter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from chashka.data.composed_words import COLOURS, NOUNS, NUMBERS, PLACES, RELATIONS
from chashka.data.words import MAIN_LOCALES
from chashka.errors import MissingExtraError

SPACE = 11
"""The row of the nouns that cannot be counted."""
CASES = ("nomn", "gent", "datv", "accs", "ablt", "loct")


def composed_corpus(seed: int, n: int) -> list[tuple[str, str]]:
    """``n`` pairs (locale, caption), the same for the same seed; languages in turn, so each has its share."""
    rng = random.Random(seed)
    return [(locale := MAIN_LOCALES[i % len(MAIN_LOCALES)], caption(locale, rng)) for i in range(n)]


def caption(locale: str, rng: random.Random) -> str:
    """One caption of a main language: a counted thing, a coloured thing, or two things in a relation."""
    say = _LANGUAGES[locale]
    first, second = rng.sample(PLACES, 2) if rng.random() < 0.5 else rng.sample(range(len(NOUNS[locale])), 2)
    kind = rng.random()
    if kind < 0.15:
        return say(("count", rng.randrange(5)), first if first != SPACE else first - 1, 0, 0)
    if kind < 0.35:
        return say(("colour", 0), first, 0, rng.randrange(11))
    relation = rng.randrange(len(RELATIONS[locale]))
    colour = rng.randrange(11) if rng.random() < 0.25 else -1
    return say(("relation", relation), first, second, colour)


Say = Callable[[tuple[str, int], int, int, int], str]


def _plain(locale: str, colour_first: bool) -> Say:
    """English, Persian, Chinese, Kazakh and Mongolian: adjectives do not agree; a second noun form serves relations."""

    def say(what: tuple[str, int], first: int, second: int, colour: int) -> str:
        nouns, (kind, index) = NOUNS[locale], what
        one, many = nouns[first][0], nouns[first][2]
        space = "" if locale == "zh" else " "
        if kind == "count":
            return NUMBERS[locale][index] + space + (one if index == 0 else many)
        if colour >= 0:
            parts = (COLOURS[locale][colour], one) if colour_first else (one, COLOURS[locale][colour])
            one = space.join(parts)
        if locale == "en":
            one = _article(one)
        if kind == "colour":
            return one
        other = nouns[second][1]
        return RELATIONS[locale][index].format(a=one, b=_article(other) if locale == "en" else other)

    return say


def _article(phrase: str) -> str:
    return (
        phrase if phrase == "space" or phrase.endswith(" space") else ("an " if phrase[0] in "aeiou" else "a ") + phrase
    )


def _german(what: tuple[str, int], first: int, second: int, colour: int) -> str:
    (kind, index), nouns = what, NOUNS["de"]
    noun, gender, plural = nouns[first]
    if kind == "count":
        return f"{'eine' if gender == 'f' else 'ein'} {noun}" if index == 0 else f"{NUMBERS['de'][index]} {plural}"
    ending = {"m": "er", "f": "e", "n": "es"}[gender]
    word = COLOURS["de"][colour] if colour >= 0 else ""
    # rosa, lila and the like are not inflected
    middle = "" if not word else f"{word} " if word.endswith("a") else f"{word}{ending} "
    phrase = f"{'eine' if gender == 'f' else 'ein'} {middle}{noun}"
    if kind == "colour":
        return phrase
    other, other_gender, _ = nouns[second]
    return RELATIONS["de"][index].format(a=phrase, b=f"{'einer' if other_gender == 'f' else 'einem'} {other}")


def _romance(locale: str) -> Say:
    """French and Spanish: article by gender, the colour after its noun in the noun's gender."""
    articles = {"fr": ("un", "une"), "es": ("un", "una")}[locale]

    def say(what: tuple[str, int], first: int, second: int, colour: int) -> str:
        (kind, index), nouns = what, NOUNS[locale]
        noun, gender, plural = nouns[first]
        female = gender == "f"
        if kind == "count" and index:
            return f"{NUMBERS[locale][index]} {plural}"
        phrase = f"{articles[female]} {noun}"
        if kind != "count" and colour >= 0:
            phrase += " " + COLOURS[locale][colour].split("|")[-1 if female else 0]
        if kind != "relation":
            return phrase
        other, other_gender, _ = nouns[second]
        return RELATIONS[locale][index].format(a=phrase, b=f"{articles[other_gender == 'f']} {other}")

    return say


def _ukrainian(what: tuple[str, int], first: int, second: int, colour: int) -> str:
    """Nouns carry their gender, then nominative, genitive, locative, instrumental, and the forms after two and five."""
    (kind, index), nouns = what, NOUNS["uk"]
    gender, one, *_, few, many = nouns[first]
    place = "mfn".index(gender)
    if kind == "count":
        number = NUMBERS["uk"][index].split("|")
        return f"{number[min(place, len(number) - 1)]} {one if index == 0 else few if index < 4 else many}"
    if colour >= 0:
        one = f"{COLOURS['uk'][colour].split('|')[place]} {one}"
    if kind == "colour":
        return one
    _, _, genitive, locative, instrumental, *_ = nouns[second]
    return RELATIONS["uk"][index].format(a=one, b=genitive, on=locative, under=instrumental)


@cache
def _morphology() -> Any:
    try:
        import pymorphy3
    except ImportError as error:
        raise MissingExtraError("train", "inflecting Russian captions") from error
    return pymorphy3.MorphAnalyzer()


@cache
def russian(word: str, case: str, number: str = "sing", gender: str = "") -> str:
    """A Russian word in a case (pymorphy3's names: nomn, gent, …); words that have no such form stay as they are."""
    wanted = {case, number} | ({gender} if gender and number == "sing" else set())
    parses = [p for p in _morphology().parse(word) if p.tag.POS in ("NOUN", "ADJF", "PRTF") and "nomn" in p.tag]
    form = parses[0].inflect(wanted) if parses else None
    return str(form.word) if form else word


@cache
def _gender(noun: str) -> str:
    tag = next((p.tag for p in _morphology().parse(noun) if p.tag.POS == "NOUN" and "nomn" in p.tag), None)
    return str(tag.gender) if tag and tag.gender else "masc"


def _phrase(words: str, case: str, number: str = "sing") -> str:
    """«чайная чашка» in a case: the last word is the noun, those before it agree with it."""
    *adjectives, noun = words.split()
    gender = _gender(noun)
    return " ".join([*(russian(a, case, number, gender) for a in adjectives), russian(noun, case, number)])


def _russian(what: tuple[str, int], first: int, second: int, colour: int) -> str:
    (kind, index), nouns = what, NOUNS["ru"]
    words = nouns[first][0]
    if kind == "count":
        number = _morphology().parse(NUMBERS["ru"][index])[0]
        if index == 0:
            return f"{russian('один', 'nomn', 'sing', _gender(words.split()[-1]))} {words}"
        if index == 4:
            return f"{number.word} {_phrase(words, 'gent', 'plur')}"
        *adjectives, noun = words.split()
        female = _gender(noun) == "femn"  # две чайные чашки, but два чайных стола
        plural = [russian(a, "nomn" if female else "gent", "plur") for a in adjectives]
        counter = "две" if index == 1 and female else str(number.word)
        return " ".join([counter, *plural, russian(noun, "gent")])
    if colour >= 0:
        words = f"{COLOURS['ru'][colour]} {words}"
    one = _phrase(words, "nomn")
    if kind == "colour":
        return one
    other = nouns[second][0]
    cases = {"b": "gent", "on": "loct", "under": "ablt"}
    return RELATIONS["ru"][index].format(a=one, **{key: _phrase(other, case) for key, case in cases.items()})


_LANGUAGES: dict[str, Say] = {
    "ru": _russian,
    "uk": _ukrainian,
    "de": _german,
    "fr": _romance("fr"),
    "es": _romance("es"),
    "en": _plain("en", True),
    "zh": _plain("zh", True),
    "fa": _plain("fa", False),
    "kk": _plain("kk", True),
    "mn": _plain("mn", True),
}


def russian_forms(entries: Iterable[str]) -> Iterator[str]:
    """Every case of the Russian nouns among ``entries``, singular and plural, so that all forms are in the corpus."""
    for entry in entries:
        if entry.isalpha() and len(entry) > 2:
            for number in ("sing", "plur"):
                yield from (russian(entry, case, number) for case in CASES)
