"""Scenes are drawn by a seed, keep to their rules, and are said in every main language."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from safetensors import safe_open

from chashka.data.composed_words import EMOJI
from chashka.data.scenes import (
    HOLDERS,
    INSIDE,
    WEARERS,
    WEARING,
    WORN,
    Scene,
    Scenes,
    held_out,
    only_composed,
    say,
    write_held_out,
    write_scenes,
)
from chashka.data.words import MAIN_LOCALES
from chashka.training.recipes import COMPOSED_ONLY

pytestmark = pytest.mark.extra
STYLES = ("flat", "3d", "unnamed")


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    source, rng = Scenes(EMOJI, STYLES), random.Random(0)
    return [source.draw(rng) for _ in range(4000)]


def test_scenes_keep_to_their_rules(drawn: list[Scene]) -> None:
    assert Counter(scene.kind for scene in drawn).keys() == {"single", "count", "pair", "many"}
    for scene in drawn:
        nouns = [thing.noun for thing in scene.things]
        assert len(set(nouns)) == len(nouns) and sum(thing.count for thing in scene.things) <= 5
        assert (scene.ground == 0) == (scene.ground_colour >= 0)
        assert scene.style in (-1, 0, 1)  # styles without words are not asked for
        if scene.relation >= 0:
            a, b = (EMOJI[noun] for noun in nouns)
            assert not held_out(scene.relation, a, b)
            assert scene.relation != INSIDE or b in HOLDERS
            assert scene.relation != WEARING or (a in WEARERS and b in WORN)
        elif len(nouns) == 1:
            assert not only_composed(EMOJI[nouns[0]])
    composed = {EMOJI[thing.noun] for scene in drawn for thing in scene.things}
    assert {emoji for emoji in EMOJI if only_composed(emoji)} < composed


def test_what_is_held_out_is_decided_by_names_alone() -> None:
    triples = [(relation, a, b) for relation in range(8) for a in EMOJI for b in EMOJI if a != b]
    assert sum(held_out(*triple) for triple in triples) / len(triples) == pytest.approx(0.10, abs=0.005)
    assert held_out(3, "1f408", "1f415") == held_out(3, "1f408", "1f415")
    assert 1 <= sum(map(only_composed, EMOJI)) <= 10


def test_what_is_held_out_is_listed(tmp_path: Path) -> None:
    count = write_held_out(tmp_path / "held-out.tsv")
    rows = [line.split("\t") for line in (tmp_path / "held-out.tsv").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count and ["1f333", "", "tree alone"] in rows
    alone = [a for a, b, _ in rows if not b]
    assert alone == [emoji for emoji in EMOJI if only_composed(emoji)]
    assert sorted(COMPOSED_ONLY) == sorted(f"emoji:{e}" for e in alone)  # what the recipes leave out
    inside = [(a, b) for a, b, text in rows if " inside " in text]
    assert inside and all(b in HOLDERS and held_out(INSIDE, a, b) for a, b in inside)
    assert len(inside) == sum(held_out(INSIDE, a, b) for a in EMOJI for b in HOLDERS if a != b)


def test_the_stored_list_of_what_is_held_out_is_that_of_the_grammar(project: Path, tmp_path: Path) -> None:
    """Whoever compares a model by it compares by what no training was shown: the list may not move unseen."""
    write_held_out(tmp_path / "held-out.tsv")
    stored = gzip.decompress((project / "docs" / "models" / "held-out.tsv.gz").read_bytes())
    assert stored == (tmp_path / "held-out.tsv").read_bytes()


def test_things_without_drawings_are_not_composed() -> None:
    source, rng = Scenes(["1f408", "1f415", "1f34e", "1f375", "1f3a9"], STYLES), random.Random(1)
    seen = {EMOJI[thing.noun] for _ in range(300) for thing in source.draw(rng).things}
    assert seen == {"1f408", "1f415", "1f34e", "1f375", "1f3a9"}


@pytest.mark.parametrize("locale", MAIN_LOCALES)
def test_every_scene_can_be_said(locale: str, drawn: list[Scene]) -> None:
    rng = random.Random(2)
    for scene in drawn[:400]:
        text = say(scene, locale, STYLES, rng)
        assert text and not set("{}|") & set(text)


def test_a_share_is_said_in_other_words(drawn: list[Scene]) -> None:
    pairs = [scene for scene in drawn if scene.pair]
    own, others, some = (
        [say(scene, "de", STYLES, random.Random(i), share) for i, scene in enumerate(pairs)] for share in (0, 1, 0.5)
    )
    assert all(a != b for a, b in zip(own, others, strict=True)), "German has other words for everything"
    changed = [a != b for a, b in zip(own, some, strict=True)]
    assert 0.3 < sum(changed) / len(changed) < 0.7
    english = [say(scene, "en", STYLES, random.Random(i), 1) for i, scene in enumerate(drawn)]
    assert any(text.startswith("the ") for text in english)
    assert 0.2 < sum(not {"a", "an", "the"} & set(text.split()) for text in english) / len(english) < 0.5


def test_the_table_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def encode(text: str) -> list[int]:
        return [1, *(260 + ord(letter) % 100 for letter in text[:20]), 2]

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_scenes(tmp_path / name, 50, seed, EMOJI, STYLES, encode, languages=2)
    one, same, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert one == same != other
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert json.loads(file.metadata()["emoji"]) == list(EMOJI)
        table = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert table["noun"].shape == (50, 5) and table["offsets"].shape == (101,)
    assert table["offsets"][-1] == len(table["ids"]) and (table["ids"][table["offsets"][:-1]] == 1).all()
    assert set(table["scene"].tolist()) == set(range(50))
    counted = (table["noun"] >= 0).sum(1)
    assert counted.min() == 1 and counted.max() > 3
