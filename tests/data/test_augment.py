"""Slips of the pen and sampled cuts."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from chashka.data.augment import augment, edit, sampled_pieces, without_spaces
from chashka.prompts import Vocabulary
from chashka.prompts.vocabulary import FIRST_BYTE, FIRST_PIECE


def test_the_same_seed_gives_the_same_text() -> None:
    def many(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [augment("космос внутри чайной чашки", rng) for _ in range(200)]

    assert many(1) == many(1) != many(2)


def test_how_often_each_slip_comes() -> None:
    rng = random.Random(0)
    text = "a hot cup of tea on it"  # no word is long enough for an edit
    seen = [augment(text, rng) for _ in range(20_000)]
    no_space = sum(" " not in t for t in seen) / len(seen)
    one_lost = sum(t.count(" ") == text.count(" ") - 1 for t in seen) / len(seen)
    other_case = sum(t.replace(" ", "") != text.replace(" ", "") for t in seen) / len(seen)
    assert no_space == pytest.approx(0.10, abs=0.01)
    assert one_lost == pytest.approx(0.05, abs=0.01)
    assert other_case == pytest.approx(0.10, abs=0.01)
    edited = [augment("elephants", rng) for _ in range(20_000)]
    assert sum(t.lower() != "elephants" for t in edited) / len(edited) == pytest.approx(0.10, abs=0.02)


def test_an_edit_touches_one_long_word() -> None:
    rng = random.Random(0)
    assert edit("a cat is red", rng) == "a cat is red"
    for _ in range(300):
        before, after = "the elephant", edit("the elephant", rng)
        assert after.startswith("the e") and abs(len(after) - len(before)) <= 1
    assert edit("", rng) == ""


def test_without_spaces() -> None:
    assert without_spaces(" a b\tc ") == "abc"


def test_sampled_cuts_follow_their_probabilities() -> None:
    vocabulary = Vocabulary(["a", "b", "ab"], [-1.0, -1.0, -3.0])
    rng = random.Random(0)
    counts = Counter(tuple(sampled_pieces(vocabulary, "ab", rng, alpha=0.5)) for _ in range(20_000))
    whole, split = counts[(FIRST_PIECE + 2,)], counts[(FIRST_PIECE, FIRST_PIECE + 1)]
    assert whole + split == 20_000
    assert whole / split == pytest.approx(math.exp(0.5 * (-3.0 + 2.0)), rel=0.05)


def test_sampled_cuts_spell_the_text() -> None:
    vocabulary = Vocabulary(["a", "b", "ab", "ba", "bab"], [-1.0, -1.0, -2.0, -2.0, -3.0])
    rng = random.Random(0)
    for _ in range(100):
        ids = sampled_pieces(vocabulary, "abab ж baba", rng)
        assert vocabulary.decode(ids) == "ababжbaba"
        assert FIRST_BYTE + 0xD0 in ids
