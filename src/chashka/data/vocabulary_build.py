"""Trains the unigram vocabulary of the teacup text encoders from CLDR's words and the composed captions.

    python -m chashka.data.vocabulary_build OUT.tsv CLDR.tgz CLDR-DERIVED.tgz

Scores are written with four decimals, pieces sorted by score, then by text; the same packages and the same seed give
the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import random
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from chashka.data.composed_words import EMOJI
from chashka.data.grammar import CASES, russian
from chashka.data.scenes import Scenes, say
from chashka.data.styles import ARTICLES, PLAIN_FRAMES, STYLE_WORDS, STYLED_FRAMES, STYLES
from chashka.data.unigram import train_unigram
from chashka.data.words import MAIN_LOCALES, Words
from chashka.prompts.vocabulary import FIRST_BYTE, FIRST_PIECE, Vocabulary, normalise

SIZE = 32_768
MAX_PIECE = 16
ENTRIES = 1_200_000
"""Entries that the trainer sees, repetitions included."""
MAIN_SHARE = {"en": 80.0, "ru": 40.0} | {locale: 20.0 for locale in MAIN_LOCALES if locale not in ("en", "ru")}
"""How much more often a main language is seen than another one with as many entries. Languages in Latin letters cut English
words for each other; sentences are understood in the main languages alone."""
NAMES = 20
"""How much more often the short names of a main language come: what people type."""
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()-+/&%"
"""Characters that are pieces even if no word has them."""


def balanced_entries(words: Words, total: int = ENTRIES) -> dict[str, list[str]]:
    """Entries of every language, repeated so that a language with n entries gets a share ∝ √n, main ones more (``MAIN_SHARE``).

    Every entry comes at least once, so that every language's letters are seen; short names of main languages come again.
    """
    found = {locale: words.entries(locale) for locale in words.locales}
    share = {loc: math.sqrt(len(e)) * MAIN_SHARE.get(loc, 1.0) for loc, e in found.items()}
    scale = total / sum(share.values())
    balanced: dict[str, list[str]] = {}
    for locale, entries in found.items():
        count = round(share[locale] * scale)
        # Evenly spread over the sorted entries.
        wanted = max(count, len(entries))
        balanced[locale] = [entries[i * len(entries) // wanted] for i in range(wanted)]
        if locale in MAIN_LOCALES:
            balanced[locale] += [normalise(texts[0]) for texts in words.of_locale(locale).values()] * NAMES
    return balanced


def composed_corpus(seed: int, n: int) -> list[tuple[str, str]]:
    """``n`` pairs (locale, caption of a composed scene), the same for the same seed; languages in turn."""
    rng = random.Random(seed)
    source = Scenes(EMOJI, STYLES, all_alone=True)
    wheel = [MAIN_LOCALES[i % len(MAIN_LOCALES)] for i in range(n)]
    return [(locale, say(source.draw(rng), locale, STYLES, rng)) for locale in wheel]


def russian_forms(entries: Iterable[str]) -> Iterator[str]:
    """Every case of the Russian nouns among ``entries``, singular and plural, so that all forms are in the corpus."""
    for entry in entries:
        if entry.isalpha() and len(entry) > 2:
            for number in ("sing", "plur"):
                yield from (russian(entry, case, number) for case in CASES)


def corpus(words: Words, seed: int = 0, composed: int = 60_000) -> Iterator[str]:
    """Every text that the trainer sees, normalised."""
    entries = balanced_entries(words)
    for locale in sorted(entries):
        yield from entries[locale]
    yield from (normalise(text) for _, text in composed_corpus(seed, composed))
    if "ru" in entries:
        for form in russian_forms(words.entries("ru")):
            yield from [normalise(form)] * 2
    for locale, styles in sorted(STYLE_WORDS.items()):
        frames = [*STYLED_FRAMES, *PLAIN_FRAMES.get(locale, ()), *ARTICLES.get(locale, ())]
        texts = [word for said in styles.values() for word in said] + [f.format(name="", style="") for f in frames]
        for text in texts:
            yield from [normalise(text)] * (200 if locale in MAIN_LOCALES else 40)


def split_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word comes; digits, punctuation and symbols are words of their own: no piece mixes with them."""
    words: Counter[str] = Counter()
    apart: dict[int, str] = {}
    for text, times in Counter(texts).items():
        for character in set(text):
            if ord(character) not in apart:
                alone = unicodedata.category(character)[0] in "PSN"
                apart[ord(character)] = f" {character} " if alone else character
        for word in text.translate(apart).split():
            words[word] += times
    return words


def train(texts: Iterable[str], size: int = SIZE) -> tuple[list[str], list[float]]:
    """Pieces and log-probabilities of a vocabulary with ``size`` ids (specials and bytes included), best first."""
    words = split_words([*texts, *ALPHABET])
    learnt = train_unigram(words, size - FIRST_PIECE, MAX_PIECE)
    ordered = sorted(((piece, round(score, 4)) for piece, score in learnt.items()), key=lambda p: (-p[1], p[0]))
    return [piece for piece, _ in ordered], [score for _, score in ordered]


def write(path: Path, pieces: Sequence[str], scores: Sequence[float]) -> str:
    """Write ``piece<TAB>score`` lines; returns the file's sha256."""
    data = "".join(f"{piece}\t{score:.4f}\n" for piece, score in zip(pieces, scores, strict=True)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def coverage(words: Words, vocabulary: Vocabulary) -> dict[str, float]:
    """Locale → share of its entries that need no byte pieces."""
    share = {}
    for locale in words.locales:
        entries = words.entries(locale)
        whole = sum(all(i < FIRST_BYTE or i >= FIRST_PIECE for i in vocabulary.encode(e, 10_000).ids) for e in entries)
        share[locale] = whole / len(entries)
    return share


def build(path: Path, tarballs: Sequence[Path], seed: int = 0) -> tuple[str, dict[str, float]]:
    """Read the CLDR packages, train, write ``path``; returns its sha256 and the coverage of every language."""
    words = Words.read(tarballs)
    digest = write(path, *train(corpus(words, seed)))
    return digest, coverage(words, Vocabulary.load(path))


if __name__ == "__main__":
    written, covered = build(Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]])
    worst = sorted(covered.items(), key=lambda pair: pair[1])[:10]
    print(f"sha256 {written}; lowest coverage: " + ", ".join(f"{loc} {share:.3f}" for loc, share in worst))
