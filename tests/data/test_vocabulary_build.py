"""The composed captions and the training of a vocabulary."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from chashka.data.unigram import _digamma, _expected, _seeds, _Words, train_unigram
from chashka.data.vocabulary_build import (
    NAMES,
    balanced_entries,
    composed_corpus,
    russian_forms,
    split_words,
    train,
    write,
)
from chashka.data.words import MAIN_LOCALES, Words
from chashka.errors import InputError
from chashka.prompts import Vocabulary

pytestmark = pytest.mark.extra
SIZE = 260 + 120


def test_composed_captions() -> None:
    captions = composed_corpus(0, 500)
    assert captions == composed_corpus(0, 500) != composed_corpus(1, 500)
    assert {locale for locale, _ in captions} == set(MAIN_LOCALES)
    assert not any("|" in text or "{" in text for _, text in captions)
    # the package's vocabulary was trained on these: a change of theirs is a change of the vocabulary
    digest = hashlib.sha256(json.dumps(composed_corpus(0, 3000), ensure_ascii=False).encode()).hexdigest()
    assert digest.startswith("e6c96debfee02a50")


def test_russian_forms_of_nouns() -> None:
    forms = set(russian_forms(["чашка", "горячий напиток", "да"]))
    assert {"чашка", "чашки", "чашке", "чашку", "чашкой", "чашек", "чашками"} <= forms
    assert "да" not in forms


def test_languages_are_balanced() -> None:
    few = {f"emoji:{i:x}": [f"слово {i}"] for i in range(100)}
    many = {f"emoji:{i:x}": [f"word {i}"] for i in range(400)}
    entries = balanced_entries(Words({"be": few, "cs": many, "ru": few, "en": few}), total=123_000)
    assert len(entries["cs"]) == pytest.approx(2 * len(entries["be"]), abs=2)
    names = NAMES * len(few)
    assert len(entries["ru"]) - names == pytest.approx(40 * len(entries["be"]), abs=20)
    assert len(entries["en"]) - names == pytest.approx(80 * len(entries["be"]), abs=40)
    assert all(len(set(texts)) == len(few if locale != "cs" else many) for locale, texts in entries.items())
    assert len(balanced_entries(Words({"be": few}), total=10)["be"]) == 100


def corpus() -> list[str]:
    rng = random.Random(0)
    words = ["".join(rng.choice("abcdefgh") for _ in range(rng.randrange(3, 9))) for _ in range(400)]
    return [" ".join(rng.sample(words, 3)) for _ in range(3000)] + ["coffee"] * 200


def test_training_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    digests = [write(tmp_path / f"{i}.tsv", *train(corpus(), size=SIZE)) for i in range(2)]
    assert digests[0] == digests[1]
    vocabulary = Vocabulary.load(tmp_path / "0.tsv")
    assert len(vocabulary) == SIZE
    assert vocabulary.decode(vocabulary.encode("abc def").ids) == "abcdef"


def test_a_word_that_nothing_continues_becomes_a_piece() -> None:
    assert "coffee" in train(corpus(), size=SIZE)[0]


def test_too_few_words_are_refused() -> None:
    with pytest.raises(InputError, match="give more words"):
        train(["a cat"], size=260 + 5000)
    with pytest.raises(InputError, match="their characters"):
        train(corpus(), size=260 + 5)


def test_words_are_split_at_punctuation_and_digits() -> None:
    assert split_words(["t-shirt 42", "t-shirt 42", "м'яч"]) == {
        "t": 2,
        "-": 2,
        "shirt": 2,
        "4": 2,
        "2": 2,
        "м": 1,
        "'": 1,
        "яч": 1,
    }


def test_probabilities_are_those_of_the_data() -> None:
    # Nothing competes for "xy" and "z": their shares are their counts.
    learnt = train_unigram({"xy": 3000, "z": 1000}, 4)
    assert set(learnt) == {"x", "y", "z", "xy"}
    assert math.exp(learnt["xy"]) == pytest.approx(0.75, rel=0.03)
    assert math.exp(learnt["z"]) == pytest.approx(0.25, rel=0.03)


def test_expected_counts_against_all_cuts() -> None:
    rng = random.Random(1)
    counts = {"".join(rng.choice("ab") for _ in range(rng.randrange(1, 7))): rng.randrange(1, 9) for _ in range(20)}
    words = _Words.of(counts)
    pieces = _seeds(words, 4, 1000)
    names = ["".join(map(chr, words.letters[p : p + n])) for p, n in zip(pieces.place, pieces.size, strict=True)]
    chance = {name: math.exp(score) for name, score in zip(names, pieces.score, strict=True)}

    def cuts(word: str) -> Iterator[list[str]]:
        if not word:
            yield []
        for stop in range(1, len(word) + 1):
            if word[:stop] in chance:
                yield from ([word[:stop], *rest] for rest in cuts(word[stop:]))

    expected: dict[str, float] = defaultdict(float)
    for word, count in counts.items():
        weights = {tuple(cut): math.prod(chance[piece] for piece in cut) for cut in cuts(word)}
        for cut, weight in weights.items():
            for piece in cut:
                expected[piece] += count * weight / sum(weights.values())
    for name, value in zip(names, _expected(words, pieces), strict=True):
        assert value == pytest.approx(expected[name])


def test_digamma() -> None:
    euler = 0.5772156649015329
    assert _digamma([0.5, 1.0, 2.0, 100.0]) == pytest.approx(
        [-euler - 2 * math.log(2), -euler, 1 - euler, 4.600161852738087], rel=1e-7
    )
