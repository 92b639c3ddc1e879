"""The caption table: every name of every concept as token ids, so that training needs no tokenizer and no word lists.

One row is one text of one concept in one language. Kinds of rows:

0 the short name; 1 a keyword; 2 a variant of the short name (inside a frame such as "a picture of …", with an article, without
spaces, with a slip of the pen, cut into other pieces); 3 the short name with a drawing style.

``language_weight`` is the chance of a row among the rows of its concept and kind: languages count (largest / n)^0.5, at
most 2, for n concepts that they name, so that a language's share goes with √n; main languages count 4; the rows of one
language share its chance, keywords in inverse proportion to how many concepts they are said of.
"""

from __future__ import annotations

import json
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.data.augment import edit, sampled_pieces, without_spaces
from chashka.data.styles import ARTICLES, PLAIN_FRAMES, STYLE_WORDS, STYLED_FRAMES
from chashka.data.tensors import write_tensors
from chashka.data.words import MAIN_LOCALES, Words, emoji_of
from chashka.errors import FileError, InputError
from chashka.prompts.vocabulary import BOS, EOS, MAX_LENGTH, Vocabulary, normalise

NAME, KEYWORD, VARIANT, STYLED = 0, 1, 2, 3
MAIN_WEIGHT = 4.0
SHARED = 40
"""A keyword of more concepts than this in its language ("face", "animal") says too little."""
KEYWORDS, MAIN_KEYWORDS = 3, 8
"""Keywords kept of one concept in a language, in a main language; the least shared ones."""
SYMBOLS = "und"
"""The locale of the emoji itself, which is a caption too."""

Array: TypeAlias = npt.NDArray[Any]
Names: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]
COLUMNS = {
    "ids": np.int32,
    "offsets": np.int64,
    "concept": np.int32,
    "locale": np.int16,
    "kind": np.int8,
    "style": np.int16,
    "language_weight": np.float32,
}


@dataclass(frozen=True, slots=True)
class CaptionTable:
    """R rows; row r has the ids ``ids[offsets[r]:offsets[r + 1]]`` (bos … eos).

    ``ids`` int32; ``offsets`` int64 (R + 1,); of shape (R,): ``concept`` int32, ``locale`` int16 and ``style`` int16
    (−1: none), which are indices into the lists, ``kind`` int8 and ``language_weight`` float32.
    """

    ids: Array
    offsets: Array
    concept: Array
    locale: Array
    kind: Array
    style: Array
    language_weight: Array
    concepts: list[str]
    locales: list[str]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.concept)

    def row(self, index: int) -> list[int]:
        """The ids of one row."""
        return [int(i) for i in self.ids[self.offsets[index] : self.offsets[index + 1]]]

    def write(self, path: Path) -> None:
        """A safetensors file; the lists are JSON in its metadata. The same table gives the same bytes."""
        lists = {"concepts": self.concepts, "locales": self.locales, "styles": self.styles, "main": list(MAIN_LOCALES)}
        columns = {name: np.asarray(getattr(self, name), dtype) for name, dtype in COLUMNS.items()}
        metadata = {key: json.dumps(value, ensure_ascii=False) for key, value in lists.items()}
        write_tensors(path, columns, metadata, "the caption table")

    @classmethod
    def read(cls, path: Path) -> CaptionTable:
        """Read what ``write`` wrote. Raises FileError for a missing or foreign file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                columns = {name: file.get_tensor(name) for name in COLUMNS}
            lists = {name: json.loads(metadata[name]) for name in ("concepts", "locales", "styles")}
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise FileError(f"{path}: not a readable caption table ({error})") from error
        return cls(**columns, **lists)


@dataclass(slots=True)
class _Rows:
    ids: array[int] = field(default_factory=lambda: array("i"))
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    labels: dict[str, array[int]] = field(
        default_factory=lambda: {name: array("i") for name in ("concept", "locale", "kind", "style")}
    )
    weight: array[float] = field(default_factory=lambda: array("f"))

    def add(self, ids: Sequence[int], labels: tuple[int, int, int, int], weight: float) -> None:
        self.ids.extend(ids)
        self.offsets.append(len(self.ids))
        for column, value in zip(self.labels.values(), labels, strict=True):
            column.append(value)
        self.weight.append(weight)


def build_captions(
    words: Words, vocabulary: Vocabulary, concepts: list[str], styles: list[str], seed: int, extra: Names | None = None
) -> CaptionTable:
    """The table of ``concepts`` (ids; row labels are indices into this list) and drawing ``styles``.

    ``extra``: concept → locale → names, for concepts that are no emoji, and as further keywords of those that are.
    Concepts without a name anywhere simply have no rows. The same arguments give the same table. Raises InputError for
    repeated concepts.
    """
    if len(set(concepts)) != len(concepts):
        raise InputError("captions: concepts are repeated; every concept id may come once")
    named = _by_locale(words, concepts, extra or {})
    locales = [*named, SYMBOLS]
    rows = _Rows()
    encode = _encoder(vocabulary)
    largest = max(map(len, named.values()), default=1)
    for number, (locale, entries) in enumerate(named.items()):
        rng = random.Random(f"{seed} {locale}")
        weight = MAIN_WEIGHT if locale in MAIN_LOCALES else min(2.0, (largest / len(entries)) ** 0.5)
        keywords = _keywords(entries, MAIN_KEYWORDS if locale in MAIN_LOCALES else KEYWORDS)
        for concept in sorted(entries):
            name = entries[concept][0]
            seen = {tuple(encode(name))}
            rows.add(encode(name), (concept, number, NAME, -1), weight)
            cells: list[tuple[int, list[tuple[list[int], int, float]]]] = [
                (KEYWORD, [(encode(word), -1, share) for word, share in keywords.get(concept, ())]),
                (VARIANT, [(ids, -1, 1.0) for ids in _variants(vocabulary, encode, locale, name, rng)]),
                (STYLED, [(encode(text), style, 1.0) for text, style in _styled(locale, name, styles, rng)]),
            ]
            for kind, cell in cells:
                fresh = [(ids, style, share) for ids, style, share in cell if tuple(ids) not in seen]
                total = sum(share for _, _, share in fresh)
                for ids, style, share in fresh:
                    seen.add(tuple(ids))
                    rows.add(ids, (concept, number, kind, style), weight * share / total)
    for index, concept_name in enumerate(concepts):
        if concept_name.startswith("emoji:"):
            rows.add(encode(emoji_of(concept_name)), (index, len(locales) - 1, KEYWORD, -1), 1.0)
    columns = {"ids": rows.ids, "offsets": rows.offsets, **rows.labels, "language_weight": rows.weight}
    arrays = {name: np.asarray(values, COLUMNS[name]) for name, values in columns.items()}
    return CaptionTable(**arrays, concepts=list(concepts), locales=locales, styles=list(styles))


def _by_locale(words: Words, concepts: Sequence[str], extra: Names) -> dict[str, dict[int, list[str]]]:
    """Locale → index of a concept → names, CLDR's first; only languages and concepts with names."""
    found: dict[str, dict[int, list[str]]] = {}
    for index, concept in enumerate(concepts):
        for source in (words.names(concept), extra.get(concept, {})):
            for locale, names in source.items():
                kept = [name for name in names if normalise(name)]
                if kept:
                    found.setdefault(locale, {}).setdefault(index, []).extend(kept)
    return dict(sorted(found.items()))


def _keywords(entries: Mapping[int, Sequence[str]], most: int) -> dict[int, list[tuple[str, float]]]:
    """Concept → keywords that tell something, with 1 / (how many concepts they are said of).

    Left out: those of many concepts, fragments, and those that are another concept's name in this language.
    """
    owner: dict[str, int] = {}
    for concept, names in entries.items():
        owner.setdefault(normalise(names[0]), concept)
    said = {concept: list(dict.fromkeys(map(normalise, names[1:]))) for concept, names in entries.items()}
    shared = Counter(word for words in said.values() for word in words)
    chosen = {}
    for concept, words in said.items():
        own = normalise(entries[concept][0])
        good = [
            w
            for w in words
            if w != own and shared[w] <= SHARED and not _fragment(w) and owner.get(w, concept) == concept
        ]
        good.sort(key=lambda word: shared[word])  # stable: CLDR's order among equals
        chosen[concept] = [(word, 1 / shared[word]) for word in good[:most]]
    return chosen


def _fragment(word: str) -> bool:
    """Too short for a noun, as the prepositions among CLDR's keywords are; one Chinese character is a word."""
    highest = max(map(ord, word), default=0)
    return len(word) < (3 if highest < 0x0780 else 2 if highest < 0x2E80 else 1)


Encode: TypeAlias = Callable[[str], list[int]]


def _encoder(vocabulary: Vocabulary) -> Encode:
    """``vocabulary.encode(text).ids``, remembering words: captions repeat them."""
    word_ids = cache(vocabulary.word)

    def encode(text: str) -> list[int]:
        ids = [i for word in normalise(text).split(" ") for i in word_ids(word)]
        return [BOS, *ids[: MAX_LENGTH - 2], EOS]

    return encode


def _variants(
    vocabulary: Vocabulary, encode: Encode, locale: str, name: str, rng: random.Random
) -> Iterator[list[int]]:
    """Texts that mean the short name: framed, with an article; for main languages also without spaces, misspelt, cut otherwise."""
    if locale in PLAIN_FRAMES:
        framed = rng.choice(PLAIN_FRAMES[locale]).format(name=name)
        yield encode(framed)
    if locale in ARTICLES:
        for article in rng.sample(ARTICLES[locale], min(2, len(ARTICLES[locale]))):
            fitting = _indefinite(name) if locale == "en" and article != "the" else article
            yield encode(f"{fitting} {name}")
    if locale in MAIN_LOCALES:
        yield encode(without_spaces(framed if rng.random() < 0.3 else name))
        for _ in range(2):
            yield encode(edit(name, rng))
        yield [BOS, *sampled_pieces(vocabulary, name, rng, alpha=0.3)[: MAX_LENGTH - 2], EOS]


def _indefinite(name: str) -> str:
    return "an" if name[:1].lower() in "aeiou" else "a"


def _styled(locale: str, name: str, styles: Sequence[str], rng: random.Random) -> Iterator[tuple[str, int]]:
    """(caption, index of the style): one for every style that the language has words for."""
    table = STYLE_WORDS.get(locale, {})
    for index, style in enumerate(styles):
        if style in table:
            # The usual word and the usual frame half of the time.
            said = table[style][0] if rng.random() < 0.5 else rng.choice(table[style])
            yield rng.choice(STYLED_FRAMES).format(name=name, style=said), index
