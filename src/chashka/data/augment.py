"""Slips of the pen for training captions: spaces lost, letters in the wrong case, one edit, other cuts into pieces.

Everything draws from the ``random.Random`` that is passed in, so the same seed gives the same captions.
"""

from __future__ import annotations

import math
import random

from chashka.prompts.vocabulary import FIRST_BYTE, Vocabulary, normalise

DROP_ALL_SPACES = 0.10
DROP_ONE_SPACE = 0.05
RANDOM_CASE = 0.10
ONE_EDIT = 0.10
LONG_WORD = 5
"""Words of fewer letters are never edited: one letter would make another word."""


def augment(text: str, rng: random.Random) -> str:
    """``text`` with each kind of slip by its own chance; often unchanged, never empty unless ``text`` is."""
    if rng.random() < ONE_EDIT:
        text = edit(text, rng)
    if rng.random() < RANDOM_CASE:
        text = random_case(text, rng)
    spaces = rng.random()
    if spaces < DROP_ALL_SPACES:
        return without_spaces(text)
    if spaces < DROP_ALL_SPACES + DROP_ONE_SPACE:
        places = [i for i, character in enumerate(text) if character == " "]
        if places:
            place = rng.choice(places)
            return text[:place] + text[place + 1 :]
    return text


def without_spaces(text: str) -> str:
    """``text`` without its white space."""
    return "".join(text.split())


def random_case(text: str, rng: random.Random) -> str:
    """``text`` in capitals, with capital initials, or with letters of either case at random."""
    kind = rng.randrange(3)
    if kind < 2:
        return text.upper() if kind else text.title()
    return "".join(letter.upper() if rng.random() < 0.5 else letter for letter in text)


def edit(text: str, rng: random.Random) -> str:
    """One inner letter of one word of at least five swapped with the next, dropped or doubled; else ``text`` itself."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= LONG_WORD and word.isalpha()]
    if not long:
        return text
    place = rng.choice(long)
    word = words[place]
    at = rng.randrange(1, len(word) - 1)  # the first letter is seldom mistaken
    kind = rng.randrange(3)
    if kind == 0:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif kind == 1:
        word = word[:at] + word[at + 1 :]
    else:
        word = word[:at] + word[at] + word[at:]
    words[place] = word
    return " ".join(words)


def sampled_pieces(vocabulary: Vocabulary, text: str, rng: random.Random, alpha: float = 0.1) -> list[int]:
    """Ids of ``text`` (no bos, no eos), its cut drawn in proportion to p(cut)^alpha.

    Subword sampling, arXiv 1804.10959, section 3.3: forward filtering, backward sampling over each word. ``alpha`` 0
    draws any cut, a large one the best cut.
    """
    ids: list[int] = []
    for word in normalise(text).split(" "):
        ids += _sampled_word(vocabulary, word, rng, alpha)
    return ids


def _sampled_word(vocabulary: Vocabulary, word: str, rng: random.Random, alpha: float) -> list[int]:
    # into[stop]: every (start, ids, alpha · score) that ends there; a character without a piece is its bytes, at 0.
    into: list[list[tuple[int, list[int], float]]] = [[] for _ in range(len(word) + 1)]
    for start in range(len(word)):
        for stop in range(start + 1, min(start + vocabulary.longest, len(word)) + 1):
            score = vocabulary.score(word[start:stop])
            number = vocabulary.id_of(word[start:stop])
            if score is not None and number is not None:
                into[stop].append((start, [number], alpha * score))
            elif stop == start + 1:
                into[stop].append((start, [FIRST_BYTE + byte for byte in word[start].encode()], 0.0))
    total = [0.0] * (len(word) + 1)  # log of the sum over all cuts of the first characters
    for stop in range(1, len(word) + 1):
        values = [total[start] + score for start, _, score in into[stop]]
        highest = max(values)
        total[stop] = highest + math.log(sum(math.exp(v - highest) for v in values))
    ids: list[int] = []
    stop = len(word)
    while stop:
        weights = [math.exp(total[start] + score - total[stop]) for start, _, score in into[stop]]
        start, piece, _ = rng.choices(into[stop], weights)[0]
        ids[:0] = piece
        stop = start
    return ids
