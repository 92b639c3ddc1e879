"""200 sentences in sixteen languages: complete, different, and found again by an encoder that knows them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chashka.checkpoints import sha256, write
from chashka.data.augment import without_spaces
from chashka.data.composed_words import EMOJI
from chashka.data.grammar import Thing
from chashka.data.scenes import ON, UNDER, Scene, columns_of
from chashka.errors import InputError
from chashka.evaluation.languages import (
    LANGUAGES,
    PAPER,
    SPOKEN,
    WRITTEN,
    languages_report,
    scene_of,
    sentences,
    unseen_prompts,
    write_languages,
)  # fmt: skip
from chashka.evaluation.scene_prompts import scene_prompts
from chashka.evaluation.seen import SeenScenes
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


def table(path: Path, scenes: Sequence[Scene], emoji: Sequence[str] = EMOJI) -> Path:
    write(path, dict(columns_of(scenes)), {"emoji": json.dumps(list(emoji))})
    return path


def test_a_scene_is_seen_when_a_table_has_it_exactly(tmp_path: Path) -> None:
    cat, box = Thing(0), Thing(1)
    shown = [Scene("single", (cat,)), Scene("pair", (cat, box), UNDER), Scene("single", (cat,), ground=2)]
    others = [
        Scene("single", (box,)),
        Scene("single", (replace(cat, count=2),)),
        Scene("single", (replace(cat, colour=3),)),
        Scene("pair", (box, cat), UNDER),
        Scene("pair", (cat, box), ON),
        Scene("pair", (cat, box)),
        Scene("single", (cat,), ground=1),
    ]
    seen = SeenScenes([table(tmp_path / "scenes.safetensors", [*shown, shown[0]])])
    assert len(seen) == 3 and seen.tables == {"scenes.safetensors": sha256(tmp_path / "scenes.safetensors")}
    assert seen.unseen([*shown, *others]) == list(range(3, 10))
    (tmp_path / "more").mkdir()
    both = SeenScenes(
        [tmp_path / "scenes.safetensors", table(tmp_path / "more" / "scenes.safetensors", [*others[:2], shown[0]])]
    )
    assert len(both) == 5 and len(both.tables) == 2 and both.unseen([*shown, *others]) == list(range(5, 10))


def test_a_table_of_other_things_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this grammar's things"):
        SeenScenes([table(tmp_path / "scenes.safetensors", [Scene("single", (Thing(0),))], EMOJI[:-1])])


class Joined(Meaning):
    """Knows a text, with and without spaces, unless ``strange`` has it."""

    def __init__(self, known: Sequence[str], strange: Sequence[str]) -> None:
        super().__init__(known)
        self.known |= {without_spaces(text): i for text, i in self.known.items()}
        for text in strange:
            del self.known[text]


def test_sentences_that_no_training_said_have_their_own_figures(tmp_path: Path) -> None:
    """Of 200 sentences all but ten were shown; four of these ten the encoder does not know, and one that was shown."""
    scenes = [scene_of(row) for row in _rows()]
    seen = SeenScenes([table(tmp_path / "scenes.safetensors", scenes[:150] + scenes[160:])])
    strange = [*sentences("ru")[150:154], sentences("ru")[50]]
    bundle = toy_bundle()
    object.__setattr__(bundle, "text", Joined(["en", "ru", "it"], strange))
    report = languages_report(bundle, ["ru", "it", "zh"], seen)
    russian, italian, chinese = report.rows
    assert (report.unseen, report.tables) == (10, seen.tables)
    assert russian.found.share == pytest.approx(0.975) and russian.found_unseen is not None
    assert (russian.found_unseen.trials, russian.found_unseen.share) == (10, 0.6)
    assert russian.unspaced_unseen is not None and russian.unspaced_unseen.share == 1.0
    assert italian.found_unseen is not None and italian.found_unseen.share == 1.0 and italian.prompts_unseen is None
    assert chinese.unspaced_unseen is None and chinese.prompts_unseen is None
    page = write_languages(report, tmp_path).read_text()
    assert "10 of the 200 sentences" in page and seen.tables["scenes.safetensors"][:16] in page
    assert f"| ru | {russian.found_unseen} | {russian.unspaced_unseen} | {russian.prompts_unseen} |" in page
    stored = json.loads((tmp_path / "languages.json").read_text())
    assert stored["unseen"] == 10 and stored["rows"][0]["found_unseen"]["share"] == 0.6
    without = write_languages(languages_report(bundle, ["ru"]), tmp_path).read_text()
    assert "no training scene" not in without


def test_unseen_prompts_of_the_composition_test_are_asked_without_spaces(tmp_path: Path) -> None:
    prompts = scene_prompts("report")
    seen = SeenScenes([table(tmp_path / "scenes.safetensors", [prompt.scene for prompt in prompts[6:]])])
    new = [prompt.text("en") for prompt in prompts[:6]]

    class Half:
        """Numbers texts; of the new ones without spaces it knows three, the others are noise."""

        def pooled(self, texts: Sequence[str]) -> np.ndarray:
            known = {prompt.text("en"): i for i, prompt in enumerate(prompts)}
            known |= {without_spaces(text): i for i, text in enumerate(new[:3])}
            return np.stack([np.eye(601, dtype=np.float32)[known.get(text, 600)] for text in texts])

    bundle = toy_bundle()
    object.__setattr__(bundle, "text", Half())
    found = unseen_prompts(bundle, "en", seen)
    # noise is equally far from all, so that the first of all texts is the nearest: prompt 0, which is known anyway
    assert found is not None and (found.trials, found.share) == (6, 0.5)
    all_shown = SeenScenes([table(tmp_path / "all.safetensors", [prompt.scene for prompt in prompts])])
    assert unseen_prompts(bundle, "en", all_shown) is None


def test_unknown_languages_are_refused() -> None:
    with pytest.raises(InputError, match="no sentences in 'xx'"):
        sentences("xx")
    with pytest.raises(InputError, match="no pooled vector"):
        languages_report(replace(toy_bundle(), text=PlainText()), ["en"])
