"""Packages and what they say: fetching, licences, names of emoji, weights, clip art."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chashka.data import sources
from chashka.data.archives import members
from chashka.data.concepts import Emoji, EmojiTable, slug
from chashka.data.licences import ALLOWED, spdx_of_address
from chashka.data.manifest import _NAMES, Manifest
from chashka.data.openclipart import Things
from chashka.data.sources import ANNOTATIONS, CATALOGUE, Package, Source, fetch
from chashka.data.words import concept_id
from chashka.errors import FileError, InputError

X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
"""The sha256 of the letter x."""


def source(name: str, sha256: str, registry: str = "npm") -> Source:
    package = Package("debian" if registry == "debian" else "npm", name, "2", sha256)
    return Source(package, "iconify", "flat", "MIT", "Project", "Author", "https://example.org")


def table() -> EmojiTable:
    rows = [
        ("1f408", "🐈", "cat", "animals-nature"),
        ("1f427", "🐧", "penguin", "animals-nature"),
        ("1f44d", "👍", "thumbs up", "people"),
        ("1f469-200d-1f680", "👩‍🚀", "woman astronaut", "people"),
        ("2764", "❤️", "red heart", "smileys"),
        ("1f95e", "🥞", "pancakes", "food-drink"),
        ("1f9f1", "🧱", "brick", "travel-places"),
    ]
    return EmojiTable(Emoji(f"emoji:{code}", char, name, group) for code, char, name, group in rows)


def test_code_points_lead_to_concepts() -> None:
    emoji = table()
    for codes, concept in (
        ("1f408", "emoji:1f408"),
        ("2764-fe0f", "emoji:2764"),
        ("2764", "emoji:2764"),
        ("1f469-200d-1f680", "emoji:1f469-200d-1f680"),
    ):
        found = emoji.of_codes(codes)
        assert found is not None and found.concept == concept
    for nothing in ("1f44d-1f3fd", "zz", "ffffffffff", "1f600", ""):
        assert emoji.of_codes(nothing) is None


def test_names_lead_to_concepts() -> None:
    emoji = table()
    emoji.learn({"1f408": "kitty", "1f427": "kitty", "2764-fe0f": "big-heart", "1f600": "lost", "1f44d": "penguin"})
    for name, english in (
        ("cat", "cat"),
        ("thumbsup", "thumbs up"),
        ("woman-astronaut", "woman astronaut"),
        ("womanastronaut", "woman astronaut"),
        ("kitty", "cat"),
        ("bigheart", "red heart"),
        ("penguin", "penguin"),
    ):
        found = emoji.of_name(name)
        assert found is not None and found.english == english
    assert emoji.of_name("lost") is emoji.of_name("no-such-thing") is None


@pytest.mark.parametrize(
    ("char", "group", "weight"),
    [
        ("🐈", "animals-nature", 1.0),
        ("7️⃣", "symbols", 0.3),
        ("🕐", "travel-places", 0.08),
        ("🕰️", "travel-places", 1.0),
        ("👩‍🚀", "people", 0.08),
        ("👍", "people", 0.3),
        ("➕", "symbols", 0.3),
        ("😀", "smileys", 0.6),
    ],
)
def test_weights(char: str, group: str, weight: float) -> None:
    english = {"🕐": "one o’clock", "🕰️": "mantelpiece clock"}.get(char, "x")
    assert Emoji(concept_id(char), char, english, group).weight == weight


def test_slugs() -> None:
    assert slug("St. Barthélemy’s “cup”") == "st-barthelemys-cup"


def test_what_a_clip_shows() -> None:
    things = Things(
        table(), {"emoji:1f95e": ["food", "crêpe"], "emoji:1f408": ["pet", "food"], "emoji:1f9f1": ["mortar"]}
    )

    def find(name: str, subjects: list[str], place: str) -> tuple[str, float] | None:
        found = things.find(name, subjects, place)
        return (found[0].english, found[1]) if found else None

    assert find("cat", [], "unsorted/x.svg") == ("cat", 0.5)
    assert find("crepe", [], "food/x.svg") == ("pancakes", 0.5)
    assert find("food", [], "food/x.svg") is None
    assert find("mortar", [], "tools/weapons/x.svg") is None
    assert find("new-penguin", ["bird"], "animals/birds/x.svg") == ("penguin", 0.25)
    assert find("bobi", ["mammal", "Cat"], "animals/x.svg") == ("cat", 0.25)
    assert find("bobi", ["penguin", "cat"], "animals/x.svg") is None
    assert find("bobi", ["cat"], "signs_and_symbols/x.svg") is None
    assert find("thumbs-up", [], "people/x.svg") is None


def test_licences_by_address() -> None:
    assert spdx_of_address("http://web.resource.org/cc/PublicDomain") == "CC-PDDC"
    assert spdx_of_address("https://creativecommons.org/publicdomain/zero/1.0/") == "CC0-1.0"
    for refused in (
        "",
        "http://creativecommons.org/licenses/GPL/2.0/",
        "https://creativecommons.org/licenses/by-sa/4.0/",
    ):
        assert spdx_of_address(refused) is None


def test_the_catalogue_is_sound() -> None:
    assert CATALOGUE.dictionary is not None
    everything = [*CATALOGUE.pictures.values(), CATALOGUE.emoji, *CATALOGUE.annotations, CATALOGUE.dictionary]
    for entry in everything:
        assert entry.licence in ALLOWED and len(entry.package.sha256) == 64 and entry.link.startswith("https://")
        assert entry.author and entry.project
    assert len({entry.package.file_name for entry in everything}) == len(everything)
    assert CATALOGUE.pictures["openclipart"].package.file_name == "openclipart-svg_1%3a0.18+dfsg-19_all.deb"
    assert CATALOGUE.pictures["noto"].package.file_name == "iconify-json-noto-1.2.9.tgz"
    assert ANNOTATIONS[0].package.spec == "cldr-annotations-full@48.2.0"
    assert set(CATALOGUE.named_by) < set(CATALOGUE.pictures)
    assert set(_NAMES) == set(ALLOWED)


def test_the_shipped_manifest_knows_the_packages_of_the_catalogue_alone(project: Path) -> None:
    """What the attribution says of it is compared in tests/packaging/test_accounted.py."""
    manifest = Manifest.read(project / "docs/models/pictures.jsonl.gz")
    usual = CATALOGUE.choose(None).values()
    assert {(e.package, e.licence) for e in manifest.entries} == {(s.package.spec, s.licence) for s in usual}


def test_sources_are_chosen_by_name_and_the_usual_ones_without() -> None:
    usual = CATALOGUE.choose(None)
    assert "openclipart" not in usual and len(usual) == len(CATALOGUE.pictures) - 1
    assert list(CATALOGUE.choose(["openclipart", "noto"])) == ["noto", "openclipart"]
    for wrong, message in ((["nosuch", "noto"], "nosuch; known sources: noto, "), ([], "none given; known sources")):
        with pytest.raises(InputError, match=message):
            CATALOGUE.choose(wrong)


def test_a_cached_package_needs_no_client_and_is_checked_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    (tmp_path / "thing-2.tgz").write_text("x")
    assert fetch(source("thing", X), tmp_path) == tmp_path / "thing-2.tgz"
    (tmp_path / "thing-2.tgz").write_text("y")
    with pytest.raises(FileError, match=rf"thing-2.tgz: sha256 is a1fce436.*, expected {X} for thing@2"):
        fetch(source("thing", X), tmp_path)
    (tmp_path / "folder-2.tgz").mkdir()
    with pytest.raises(FileError, match=r"folder-2\.tgz: cannot be read"):
        fetch(source("folder", X), tmp_path)


@pytest.mark.parametrize(
    ("registry", "message"),
    [("npm", "npm is missing to fetch it: install Node.js"), ("debian", "apt-get is missing to fetch it: only Debian")],
)
def test_a_missing_client_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: str, message: str
) -> None:
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    with pytest.raises(FileError, match=message) as caught:
        fetch(source("thing", X, registry), tmp_path)
    assert "\n" not in str(caught.value)


def client(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let every registry's client be this shell script."""
    path = folder / "client"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sources.shutil, "which", lambda name: str(path))


def test_clients_are_asked_for_the_exact_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(
        tmp_path,
        monkeypatch,
        f'echo "$@" >> {tmp_path}/asked; case "$1" in pack) printf x > x.tgz;; *) printf x > x.deb; esac',
    )
    path = fetch(source("@scope/thing", X), tmp_path / "cache")
    assert path == tmp_path / "cache/scope-thing-2.tgz" and path.read_bytes() == b"x"
    fetch(replace(source("thing", X), package=Package("debian", "thing", "1:2", X)), tmp_path / "cache")
    assert (tmp_path / "asked").read_text().splitlines() == [
        "pack @scope/thing@2 --loglevel=error",
        "download thing=1:2",
    ]
    assert {file.name for file in (tmp_path / "cache").iterdir()} == {"scope-thing-2.tgz", "thing_1%3a2_all.deb"}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'npm error code E404' >&2; echo 'npm error 404 Not Found' >&2; exit 1", "E404; npm error 404 Not Found"),
        ("exit 0", "failed: no file came"),
        ("printf y > x.tgz", f"sha256 a1fce436.*, expected {X}; it was not kept"),
    ],
)
def test_a_client_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    client(tmp_path, monkeypatch, script)
    with pytest.raises(FileError, match=message):
        fetch(source("thing", X), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["x.tgz", "x.deb"])
def test_what_is_no_package_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(FileError, match=name):
        list(members(tmp_path / name))
    (tmp_path / "x.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(FileError, match=r"without data\.tar"):
        list(members(tmp_path / "x.deb"))
