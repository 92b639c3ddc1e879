"""200 sentences in sixteen languages: complete, different, and found again by an encoder that knows them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chashka.errors import InputError
from chashka.evaluation.languages import (
    LANGUAGES,
    PAPER,
    SPOKEN,
    WRITTEN,
    languages_report,
    scene_of,
    sentences,
    write_languages,
)  # fmt: skip
from toy_model import PlainText, toy_bundle

pytestmark = pytest.mark.extra  # the grammar inflects Russian with pymorphy3


@pytest.mark.parametrize("locale", LANGUAGES)
def test_every_language_says_200_different_things(locale: str) -> None:
    said = sentences(locale)
    assert len(said) == len(set(said)) == 200
    assert all(text and text == " ".join(text.split()) for text in said)


def test_sentences_say_what_their_columns_say() -> None:
    assert set(LANGUAGES) == set(SPOKEN) | set(WRITTEN) and len(LANGUAGES) == 16 and LANGUAGES[:6] == PAPER
    by_english = {english: i for i, english in enumerate(sentences("en"))}
    assert sentences("it")[by_english["a cat"]] == "un gatto"
    assert sentences("pl")[by_english["a cat"]] == "kot"
    kinds = {len(scene_of(row).things) for row in _rows()}
    assert kinds == {1, 2}
    for row in _rows():
        assert row["it"].startswith(("un ", "una ", "due ", "tre ", "quattro ", "cinque "))
        assert ("の" in row["ja"]) == bool(int(row["count"]) > 1 or row["relation"] or row["colour"] == "green")


def _rows() -> list[dict[str, str]]:
    from chashka.evaluation import languages

    return languages._table()


class Meaning:
    """Texts of one meaning have one vector, in the languages that it knows; others get noise."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = {text: i for locale in known for i, text in enumerate(sentences(locale))}

    def pooled(self, texts: Sequence[str]) -> np.ndarray:
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(len(texts), 200)).astype(np.float32)
        return np.stack(
            [
                np.eye(200, dtype=np.float32)[self.known[t]] if t in self.known else n
                for t, n in zip(texts, noise, strict=True)
            ]
        )


def test_what_an_encoder_knows_is_found(tmp_path: Path) -> None:
    bundle = toy_bundle()
    object.__setattr__(bundle, "text", Meaning(["en", "ru", "it"]))
    report = languages_report(bundle, ["en", "ru", "it", "ja"])
    shares = {row.locale: row.found.share for row in report.rows}
    assert shares["en"] == shares["ru"] == shares["it"] == 1.0
    assert shares["ja"] < 0.05
    assert [row.unspaced is None for row in report.rows] == [False, False, False, True]
    assert report.rows[1].unspaced is not None and report.rows[1].unspaced.share < 0.5
    page = write_languages(report, tmp_path).read_text()
    assert "| ru | 100.0% ± 0.0% |" in page
    svg = ET.parse(tmp_path / "languages.svg").getroot()
    bars = [r for r in svg.iter("{http://www.w3.org/2000/svg}rect") if r.get("width") == "15"]
    assert len(bars) == 7 and max(float(b.get("height", "0")) for b in bars) == 220
    assert json.loads((tmp_path / "languages.json").read_text())["sentences"] == 200


def test_unknown_languages_are_refused() -> None:
    with pytest.raises(InputError, match="no sentences in 'xx'"):
        sentences("xx")
    with pytest.raises(InputError, match="no pooled vector"):
        languages_report(replace(toy_bundle(), text=PlainText()), ["en"])
