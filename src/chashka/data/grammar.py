"""The grammar of composed captions: things, counts, relations, grounds, said correctly in the ten main languages.

A ``Thing`` is a row of ``nouns.tsv`` with a colour and a size. Every language has what it needs to stay correct: articles and
gender for German, French and Spanish, cases as tables for Ukrainian, Kazakh and Mongolian, and pymorphy3 for Russian.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from chashka.data.composed_words import AND, COLOURS, GROUNDS, NOUNS, NUMBERS, RELATIONS, SIZES, SPACE
from chashka.errors import InputError, MissingExtraError

FORMS = ("b", "on", "under")
"""Forms that phrases ask for; most languages have one alone."""
CASES = ("nomn", "gent", "datv", "accs", "ablt", "loct")


@dataclass(frozen=True, slots=True)
class Thing:
    """A row of ``NOUNS``, indices into ``COLOURS`` and ``SIZES`` (-1: not said), and how many of it: 1 to 5."""

    noun: int
    colour: int = -1
    size: int = -1
    count: int = 1


class Language:
    """How one language says things. Adjectives do not agree and stand before the noun unless a subclass says otherwise."""

    space = " "

    def __init__(self, locale: str) -> None:
        self.locale = locale
        self.nouns, self.colours, self.sizes = NOUNS[locale], COLOURS[locale], SIZES[locale]
        self.numbers, self.relations, self.grounds = NUMBERS[locale], RELATIONS[locale], GROUNDS[locale]

    def thing(self, thing: Thing) -> str:
        """In the nominative: "a red apple", "three cats"."""
        return self._one(thing) if thing.count == 1 else self._many(thing)

    def relation(self, index: int, a: Thing, b: Thing) -> str:
        """``a`` stands in a relation to ``b``, of which there is one."""
        return self._filled(self.relations[index], a, b)

    def phrased(self, phrase: str, a: Thing, b: Thing) -> str:
        """Other words for it: a phrase of ``wordings.WORDINGS``, of which there is one each."""
        return self._filled(phrase, a, b)

    def _filled(self, phrase: str, a: Thing, b: Thing) -> str:
        forms = {"a": self.thing(a), "B": self.thing(b), "n": self._bare(b)}
        for form in FORMS:
            forms |= {
                name: self._related(thing, form)
                for name, thing in ((form, b), (f"A{form}", a))
                if f"{{{name}}}" in phrase
            }
        return phrase.format(**forms)

    def together(self, things: Sequence[Thing]) -> str:
        """ "a cat, a dog and two apples"."""
        *first, last = [self.thing(thing) for thing in things]
        comma = "、" if self.locale == "zh" else "، " if self.locale == "fa" else ", "
        return comma.join(first) + AND[self.locale] + last if first else last

    def on_ground(self, text: str, ground: int, colour: int = -1) -> str:
        """``text`` with a row of ``GROUNDS`` said; row 0 needs a colour."""
        return self.grounds[ground].format(x=text, c=self._ground_colour(colour) if ground == 0 else "")

    def counted_by_number(self, thing: Thing) -> str:
        """One with its number: "one cat"."""
        return f"{self.numbers[0]}{self.space}{self._bare(thing)}"

    def _bare(self, thing: Thing) -> str:
        """The noun with its adjectives, without article."""
        words = [self.sizes[thing.size]] * (thing.size >= 0) + [self.colours[thing.colour]] * (thing.colour >= 0)
        return self.space.join([*words, self.nouns[thing.noun][0]])

    def _one(self, thing: Thing) -> str:
        return self._bare(thing)

    def _many(self, thing: Thing) -> str:
        return f"{self.numbers[thing.count - 1]}{self.space}{self._bare(thing)}"

    def _related(self, thing: Thing, form: str) -> str:
        return self._one(thing)

    def _ground_colour(self, colour: int) -> str:
        return self.colours[colour]


class English(Language):
    def _one(self, thing: Thing) -> str:
        bare = self._bare(thing)
        return bare if thing.noun == SPACE else ("an " if bare[0] in "aeiou" else "a ") + bare

    def _many(self, thing: Thing) -> str:
        one, many = self.nouns[thing.noun]
        return f"{self.numbers[thing.count - 1]} {self._bare(thing).removesuffix(one)}{many}"


class Chinese(Language):
    space = ""

    def _many(self, thing: Thing) -> str:
        return f"{self.numbers[thing.count - 1]}{self.nouns[thing.noun][1]}{self._bare(thing)}"


class Persian(Language):
    """Adjectives stand after the noun."""

    def _bare(self, thing: Thing) -> str:
        words = [self.colours[thing.colour]] * (thing.colour >= 0) + [self.sizes[thing.size]] * (thing.size >= 0)
        return " ".join([self.nouns[thing.noun][0], *words])


class Suffixing(Language):
    """Kazakh and Mongolian: relations ask for a second form of the noun."""

    def _related(self, thing: Thing, form: str) -> str:
        one, asked = self.nouns[thing.noun]
        return self._bare(thing).removesuffix(one) + asked


class German(Language):
    def _phrase(self, thing: Thing, ending: str, noun: str) -> str:
        words = [self.sizes[thing.size]] * (thing.size >= 0) + [self.colours[thing.colour]] * (thing.colour >= 0)
        # rosa, lila and the like are not inflected
        return " ".join([*(word if word.endswith("a") else word + ending for word in words), noun])

    def _bare(self, thing: Thing) -> str:
        noun, gender, *_ = self.nouns[thing.noun]
        return self._phrase(thing, {"m": "er", "f": "e", "n": "es"}[gender], noun)

    def _one(self, thing: Thing) -> str:
        return f"{self._article(thing)} {self._bare(thing)}"

    def _article(self, thing: Thing) -> str:
        return "eine" if self.nouns[thing.noun][1] == "f" else "ein"

    def counted_by_number(self, thing: Thing) -> str:
        return self._one(thing)

    def _many(self, thing: Thing) -> str:
        return f"{self.numbers[thing.count - 1]} {self._phrase(thing, 'e', self.nouns[thing.noun][2])}"

    def _related(self, thing: Thing, form: str) -> str:
        noun, gender, _, *dative = self.nouns[thing.noun]
        return f"{'einer' if gender == 'f' else 'einem'} {self._phrase(thing, 'en', dative[0] if dative else noun)}"

    def _ground_colour(self, colour: int) -> str:
        word = self.colours[colour]
        return word if word.endswith("a") else word + "em"


class Romance(Language):
    """French and Spanish: article by gender, the colour after its noun; French sizes stand before it."""

    def _words(self, thing: Thing, plural: bool) -> tuple[list[str], list[str]]:
        female = self.nouns[thing.noun][1] == "f"
        size = [self._agree(self.sizes[thing.size], female, plural)] * (thing.size >= 0)
        colour = [self._agree(self.colours[thing.colour], female, plural)] * (thing.colour >= 0)
        return (size, colour) if self.locale == "fr" else ([], colour + size)

    def _agree(self, word: str, female: bool, plural: bool) -> str:
        chosen = word.split("|")[-1 if female else 0]
        if not plural or chosen in ("orange", "naranja") or (self.locale == "fr" and chosen[-1] in "sx"):
            return chosen
        if chosen == "marron":
            return chosen
        if self.locale == "es" and chosen[-1] not in "aeiou":
            return chosen.replace("marrón", "marron") + "es"
        return chosen + "s"

    def _bare(self, thing: Thing) -> str:
        before, after = self._words(thing, False)
        return " ".join([*before, self.nouns[thing.noun][0], *after])

    def _one(self, thing: Thing) -> str:
        articles = {"fr": ("un", "une"), "es": ("un", "una")}[self.locale]
        return f"{articles[self.nouns[thing.noun][1] == 'f']} {self._bare(thing)}"

    def counted_by_number(self, thing: Thing) -> str:
        return self._one(thing)

    def _many(self, thing: Thing) -> str:
        before, after = self._words(thing, True)
        return " ".join([self.numbers[thing.count - 1], *before, self.nouns[thing.noun][2], *after])

    def _ground_colour(self, colour: int) -> str:
        return self._agree(self.colours[colour], False, False)


class Ukrainian(Language):
    """Nouns carry their gender, then nominative, genitive, locative, instrumental, and the forms after two and five."""

    _FORMS: ClassVar = {"b": 2, "on": 3, "under": 4}
    # endings of hard adjectives by case: masculine and neuter, feminine; soft ones begin with і, є, ю
    _ENDINGS: ClassVar = {2: ("ого", "ої"), 3: ("ому", "ій"), 4: ("им", "ою")}
    _SOFT: ClassVar = dict(
        zip(
            ("ого", "ої", "ому", "ій", "им", "ою", "і", "их"),
            ("ього", "ьої", "ьому", "ій", "ім", "ьою", "і", "іх"),
            strict=True,
        )
    )

    def phrased(self, phrase: str, a: Thing, b: Thing) -> str:
        """«зі столом»."""
        return re.sub(r"\b(?:з|із) (?=[зсшж][^аеєиіїоуюя ]|щ)", "зі ", super().phrased(phrase, a, b))

    def _adjectives(self, thing: Thing) -> list[str]:
        return [self.sizes[thing.size]] * (thing.size >= 0) + [self.colours[thing.colour]] * (thing.colour >= 0)

    def _nominative(self, word: str, gender: str) -> str:
        if "|" in word:
            return word.split("|")["mfn".index(gender)]
        return word if gender == "m" else word[:-2] + {"f": "а", "n": "е"}[gender]

    def _inflected(self, word: str, ending: str) -> str:
        first = word.split("|")[0]
        return first[:-2] + (self._SOFT[ending] if first.endswith("ій") else ending)

    def _bare(self, thing: Thing) -> str:
        gender, one, *_ = self.nouns[thing.noun]
        return " ".join([*(self._nominative(word, gender) for word in self._adjectives(thing)), one])

    def counted_by_number(self, thing: Thing) -> str:
        return f"{self.numbers[0].split('|')['mfn'.index(self.nouns[thing.noun][0])]} {self._bare(thing)}"

    def _many(self, thing: Thing) -> str:
        gender, *_, few, many = self.nouns[thing.noun]
        number = self.numbers[thing.count - 1].split("|")
        ending, noun = ("і", few) if thing.count < 5 else ("их", many)
        words = [self._inflected(word, ending) for word in self._adjectives(thing)]
        return " ".join([number[min("mfn".index(gender), len(number) - 1)], *words, noun])

    def _related(self, thing: Thing, form: str) -> str:
        place = self._FORMS[form]
        row = self.nouns[thing.noun]
        ending = self._ENDINGS[place][row[0] == "f"]
        return " ".join([*(self._inflected(word, ending) for word in self._adjectives(thing)), row[place]])

    def _ground_colour(self, colour: int) -> str:
        return self._inflected(self.colours[colour], "ому")


class Russian(Language):
    _FORMS: ClassVar = {"b": "gent", "on": "loct", "under": "ablt"}

    def phrased(self, phrase: str, a: Thing, b: Thing) -> str:
        """«со слоном»; the grammar's own words say «с слоном», as they did to the vocabulary."""
        return re.sub(r"\bс (?=[зсшж][^аеёиоуыэюя ]|щ)", "со ", super().phrased(phrase, a, b))

    def _words(self, thing: Thing) -> str:
        words = [self.sizes[thing.size]] * (thing.size >= 0) + [self.colours[thing.colour]] * (thing.colour >= 0)
        return " ".join([*words, self.nouns[thing.noun][0]])

    def _bare(self, thing: Thing) -> str:
        return russian_phrase(self._words(thing), "nomn")

    def counted_by_number(self, thing: Thing) -> str:
        return f"{russian('один', 'nomn', 'sing', russian_gender(self._noun(thing)))} {self._bare(thing)}"

    def _many(self, thing: Thing) -> str:
        number = self.numbers[thing.count - 1]
        if thing.count == 5:
            return f"{number} {russian_phrase(self._words(thing), 'gent', 'plur')}"
        *adjectives, noun = self._words(thing).split()
        female = russian_gender(noun) == "femn"  # две чайные чашки, но два чайных стола
        words = [russian(word, "nomn" if female else "gent", "plur") for word in adjectives]
        return " ".join(["две" if thing.count == 2 and female else number, *words, russian(noun, "gent")])

    def _related(self, thing: Thing, form: str) -> str:
        return russian_phrase(self._words(thing), self._FORMS[form])

    def _ground_colour(self, colour: int) -> str:
        return russian(self.colours[colour], "loct", "sing", "masc")

    def _noun(self, thing: Thing) -> str:
        return self.nouns[thing.noun][0].split()[-1]


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
def russian_gender(noun: str) -> str:
    """pymorphy3's name of the gender: masc, femn, neut."""
    tag = next((p.tag for p in _morphology().parse(noun) if p.tag.POS == "NOUN" and "nomn" in p.tag), None)
    return str(tag.gender) if tag and tag.gender else "masc"


def russian_phrase(words: str, case: str, number: str = "sing") -> str:
    """«чайная чашка» in a case: the last word is the noun, those before it agree with it."""
    *adjectives, noun = words.split()
    gender = russian_gender(noun)
    return " ".join([*(russian(a, case, number, gender) for a in adjectives), russian(noun, case, number)])


_KINDS: dict[str, type[Language]] = {
    "ru": Russian,
    "en": English,
    "de": German,
    "fr": Romance,
    "mn": Suffixing,
    "fa": Persian,
    "es": Romance,
    "zh": Chinese,
    "uk": Ukrainian,
    "kk": Suffixing,
}


@cache
def language(locale: str) -> Language:
    """How a main language says things. Raises InputError for a language without a grammar."""
    if locale not in _KINDS:
        raise InputError(f"composed captions: there is no grammar of {locale!r}; there is one of {', '.join(_KINDS)}")
    return _KINDS[locale](locale)
