"""Synonyms from a tiny WordNet in the real one's format."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from chashka.data.wordnet import WordNet, english_synonyms, further_names
from chashka.data.words import Words
from chashka.errors import FileError

LICENCE = "  1 This software and database is being provided to you\n"
# file, words, pointers, definition; pointers: kind and the number of the synset that they lead to
SYNSETS: list[tuple[str, list[str], list[tuple[str, int]], str]] = [
    ("05", ["animal"], [], "a living organism"),
    ("05", ["badger"], [("@", 0)], "sturdy carnivorous burrowing mammal with strong claws"),
    ("18", ["Wisconsinite", "Badger", "badger"], [], "a native or resident of Wisconsin"),
    ("06", ["car", "auto", "motorcar", "machine"], [], "a motor vehicle with four wheels"),
    ("06", ["car", "railcar", "railway_car"], [], "a wheeled vehicle adapted to the rails of railroad"),
    ("06", ["car", "gondola"], [], "the compartment that is suspended from an airship"),
    ("06", ["car", "elevator_car"], [], "where passengers ride up and down"),
    ("18", ["ass", "arse"], [(";u", 8)], "rude words"),
    ("10", ["obscenity"], [], "an obscene expression"),
    ("05", ["fox", "Vulpes_vulpes", "reynard"], [("@", 0)], "alert carnivorous mammal with pointed muzzle"),
]


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    heads = [
        (kind, f"{len(words):02x} " + " ".join(f"{word} 0" for word in words), pointers, gloss)
        for kind, words, pointers, gloss in SYNSETS
    ]
    places, place = [], len(LICENCE)
    for kind, words, pointers, gloss in heads:
        places.append(place)
        line = (
            f"00000000 {kind} n {words} {len(pointers):03d}" + " @ 00000000 n 0000" * len(pointers) + f" | {gloss}  \n"
        )
        place += len(line) + sum(len(pointer) - 1 for pointer, _ in pointers)
    data, index = LICENCE, LICENCE
    senses: dict[str, list[int]] = {}
    for (kind, words, pointers, gloss), (_, names, _, _), own in zip(heads, SYNSETS, places, strict=True):
        said = "".join(f" {pointer} {places[target]:08d} n 0000" for pointer, target in pointers)
        data += f"{own:08d} {kind} n {words} {len(pointers):03d}{said} | {gloss}  \n"
        for name in sorted({name.lower() for name in names}):
            senses.setdefault(name, []).append(own)
    for lemma, found in sorted(senses.items()):
        index += f"{lemma} n {len(found)} 1 @ {len(found)} 0 " + " ".join(f"{own:08d}" for own in found) + "  \n"
    path = tmp_path / "wordnet.tgz"
    with tarfile.open(path, "w:gz") as package:
        for name, text in (("index", index), ("data", data)):
            info = tarfile.TarInfo(f"package/dict/{name}.noun")
            info.size = len(text)
            package.addfile(info, io.BytesIO(text.encode()))
    return path


def test_the_sense_is_the_one_that_the_keywords_are_about(tarball: Path) -> None:
    net = WordNet(tarball)
    assert net.synonyms("car", ["railroad", "train"]) == ["railcar", "railway car"]
    assert net.synonyms("car", ["wheels", "motor"]) == ["auto", "motorcar", "machine"]
    assert net.synonyms("car", ["nothing"]) == []  # four senses, and none of them is plain
    assert net.synonyms("fox", []) == ["reynard"]  # a species' Latin name is no caption
    assert net.synonyms("unheard of", ["motor"]) == []
    assert "animal" in net.senses("fox")[0].about


def test_groups_rule_senses_out_and_slang_is_no_sense(tarball: Path) -> None:
    net = WordNet(tarball)
    assert len(net.senses("badger")) == 2 and net.senses("ass") == []
    assert net.synonyms("badger", ["resident"], "animals-nature") == []
    assert (
        net.synonyms("badger", ["resident"], "people") == []
    )  # both others begin with a capital or are the word itself


def test_another_concepts_name_is_no_synonym(tarball: Path) -> None:
    names = {"emoji:1f697": ["car", "motor"], "emoji:2699": ["machine"], "emoji:1f98a": ["fox", "muzzle"]}
    found = english_synonyms(WordNet(tarball), names, {"emoji:1f98a": "animals-nature", "emoji:2699": "people"})
    assert found == {"emoji:1f697": ["auto", "motorcar"], "emoji:1f98a": ["reynard"]}


def test_a_foreign_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(b"no package")
    with pytest.raises(FileError, match="WordNet"):
        WordNet(tmp_path / "x.tgz")


def test_names_of_clip_art_and_synonyms_of_emoji_join_the_captions(tarball: Path) -> None:
    words = Words({"en": {"emoji:1f98a": ["fox", "muzzle"]}, "de": {"emoji:1f98a": ["Fuchs"]}})
    described = {
        "emoji:1f98a": {"english": "fox", "group": "animals-nature", "emoji": "🦊"},
        "clipart:old fox": {"english": "old fox", "group": "clipart", "emoji": ""},
    }
    named = further_names(described, words, tarball)
    assert named == {"clipart:old fox": {"en": ["old fox"]}, "emoji:1f98a": {"en": ["reynard"]}}
    assert further_names(described, words, None).keys() == {"clipart:old fox"}
