"""The fixed prompts: how many, in which languages, of what, and that nobody changes them by accident."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter

from chashka.evaluation.prompts import PROMPTS, SINGLE
from chashka.prompts.vocabulary import normalise


def test_there_are_48_and_half_are_not_in_english() -> None:
    assert len(PROMPTS) == 48
    assert [prompt.seed for prompt in PROMPTS] == list(range(48))
    languages = Counter(prompt.language for prompt in PROMPTS)
    assert languages["en"] == 24
    asked = {"ru", "de", "fr", "es", "uk", "kk", "mn", "fa", "zh", "ja", "tr", "pl", "ar", "hi", "ko", "it", "pt"}
    assert asked <= languages.keys()


def test_they_cover_what_people_draw() -> None:
    topics = Counter(prompt.topic for prompt in PROMPTS)
    assert topics.keys() == {"animal", "food", "vehicle", "plant", "object", "building", "sky", "scene"}
    assert min(topics.values()) >= 2


def test_the_one_sentence_with_and_without_spaces() -> None:
    texts = [prompt.text for prompt in PROMPTS]
    assert texts[:2] == ["космос внутри чайной чашки", "космосвнутричайнойчашки"]
    assert texts[0].replace(" ", "") == texts[1]
    assert any(prompt.text == "3d: a red apple" and prompt.style == "3d" for prompt in PROMPTS)


def test_what_asks_for_one_thing_names_its_concept_and_scenes_do_not() -> None:
    assert set(SINGLE) == {prompt for prompt in PROMPTS if prompt.topic != "scene"}
    for prompt in SINGLE:
        codes = (prompt.concept or "").removeprefix("emoji:").split("-")
        emoji = "".join(chr(int(code, 16)) for code in codes)
        assert unicodedata.category(emoji[0]) == "So", prompt


def test_texts_are_clean() -> None:
    for prompt in PROMPTS:
        assert prompt.text == prompt.text.strip()
        assert unicodedata.is_normalized("NFC", prompt.text), prompt
        assert normalise(prompt.text)
        assert prompt.english.isascii()
    assert len({prompt.text for prompt in PROMPTS}) == 48


def test_the_list_is_frozen() -> None:
    """Figures of two models can be compared only over the same prompts: a change here starts every table anew."""
    said = "\n".join(f"{p.seed} {p.language} {p.text} {p.concept} {p.style}" for p in PROMPTS)
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == "17cb46d5cf701eba"
