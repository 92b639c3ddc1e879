"""Composed captions for the vocabulary ("two cups", "a cat inside a box"), drawn from the grammar by a seed.

They use the first 24 things and six relations alone: the vocabulary of the package was trained on exactly these.
Pictures of composed captions are the business of ``scenes``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from chashka.data.composed_words import PLACES, SPACE
from chashka.data.grammar import CASES, Thing, language, russian
from chashka.data.words import MAIN_LOCALES

THINGS, RELATIONS, COLOURS = 24, 6, 11


def composed_corpus(seed: int, n: int) -> list[tuple[str, str]]:
    """``n`` pairs (locale, caption), the same for the same seed; languages in turn, so each has its share."""
    rng = random.Random(seed)
    return [(locale := MAIN_LOCALES[i % len(MAIN_LOCALES)], caption(locale, rng)) for i in range(n)]


def caption(locale: str, rng: random.Random) -> str:
    """One caption of a main language: a counted thing, a coloured thing, or two things in a relation."""
    say = language(locale)
    first, second = rng.sample(PLACES, 2) if rng.random() < 0.5 else rng.sample(range(THINGS), 2)
    kind = rng.random()
    if kind < 0.15:
        count, countable = rng.randrange(5) + 1, first if first != SPACE else first - 1
        return say.counted_by_number(Thing(countable)) if count == 1 else say.thing(Thing(countable, count=count))
    if kind < 0.35:
        return say.thing(Thing(first, rng.randrange(COLOURS)))
    relation = rng.randrange(RELATIONS)
    colour = rng.randrange(COLOURS) if rng.random() < 0.25 else -1
    return say.relation(relation, Thing(first, colour), Thing(second))


def russian_forms(entries: Iterable[str]) -> Iterator[str]:
    """Every case of the Russian nouns among ``entries``, singular and plural, so that all forms are in the corpus."""
    for entry in entries:
        if entry.isalpha() and len(entry) > 2:
            for number in ("sing", "plur"):
                yield from (russian(entry, case, number) for case in CASES)
