"""A whole build from tiny packages: what comes in, what is refused and why, and that it always gives the same bytes."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_packages import PUBLIC, catalogue, clip, deb, disc, iconify_set, packages, tgz

from chashka.data import build as build_module
from chashka.data.build import Options, build
from chashka.data.captions import CaptionTable
from chashka.data.manifest import Manifest, attribution
from chashka.data.shards import Shard, held_out
from chashka.data.sources import Catalogue
from chashka.errors import FileError, InputError

pytestmark = pytest.mark.extra

ALL = ["first", "second", "solid", "clips"]
FILES = {
    "ATTRIBUTION.md",
    "captions.safetensors",
    "concepts.json",
    "manifest.jsonl.gz",
    "pictures-000.safetensors",
    "refused.json",
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tiny(cache: Path) -> Catalogue:
    return catalogue(cache)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """A build of everything, which the tests only read."""
    folder = tmp_path_factory.mktemp("built")
    tiny = catalogue(folder / "cache")
    return folder / "out", build(folder / "out", folder / "cache", sources=ALL, size=64, jobs=1, catalogue=tiny)


def test_pictures_of_one_emoji_share_a_concept(built: tuple[Path, Manifest]) -> None:
    of = {entry.id: entry.concept for entry in built[1].entries}
    assert {i for i, concept in of.items() if concept == "emoji:2615"} == {"first:hot-beverage", "second:hotbeverage"}
    assert of["second:cat"] == of["first:cat"] == "emoji:1f408"
    assert of["solid:1f427"] == of["clips:animals/birds/new_penguin_01"] == "emoji:1f427"
    assert of["clips:tools/key_ann_01"] == "emoji:1f511"
    assert of["clips:tools/odd_thing"] == "clipart:odd-thing"


def test_reasons_are_counted(built: tuple[Path, Manifest]) -> None:
    out, manifest = built
    nameless = "no emoji of that name, or one with a skin tone"
    assert manifest.refused["first"] == {
        "another drawing of the same emoji in its set": 1,
        "flag": 1,
        "nearly empty": 1,
        nameless: 1,
    }
    assert manifest.refused["second"] == {nameless: 1}
    assert manifest.refused["solid"] == {"flag": 1, nameless: 1, "raster too small": 1}
    assert manifest.refused["clips"] == {
        "has text inside": 1,
        "icons, flags, cards, patterns, signs": 1,
        "no public-domain licence in the file": 2,
    }
    assert json.loads((out / "refused.json").read_text()) == manifest.refused


def test_shards_hold_what_the_manifest_says(built: tuple[Path, Manifest]) -> None:
    out, manifest = built
    assert Manifest.read(out / "manifest.jsonl.gz").entries == manifest.entries
    entries = manifest.entries
    assert [(e.concept, e.id) for e in entries] == sorted((e.concept, e.id) for e in entries)
    shard = Shard(out / "pictures-000.safetensors")
    assert shard.size == 64
    assert shard.ids == [entry.id for entry in entries]
    assert shard.sources == [entry.source for entry in entries]
    assert [shard.concepts[c] for c in shard.concept] == [entry.concept for entry in entries]
    assert [shard.styles[s] for s in shard.style] == [entry.style for entry in entries]
    assert shard.held_out.tolist() == [int(held_out(i)) for i in shard.ids]
    weight = dict(zip(shard.ids, shard.weight.tolist(), strict=True))
    for picture, expected in (("first:cat", 1), ("first:one-oclock", 0.08), ("first:thumbs-up", 0.3)):
        assert weight[picture] == pytest.approx(expected)
    for i, entry in enumerate(entries):
        pixels = shard.picture(i)
        assert pixels.shape == (64, 64, 4) and (pixels[..., :3] <= pixels[..., 3:]).all()
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == entry.sha256
    first = next(entry for entry in entries if entry.id == "first:cat")
    assert (first.licence, first.package, first.author) == ("MIT", "tiny-first@1.0", "Author of first")


def test_one_emoji_with_two_files_keeps_both_under_one_id(built: tuple[Path, Manifest]) -> None:
    assert [entry.id for entry in built[1].entries].count("solid:26a7") == 2


def test_labels_are_numbered_alike_whatever_is_chosen(
    built: tuple[Path, Manifest], tiny: Catalogue, cache: Path
) -> None:
    build(cache.parent / "one", cache, sources=["second"], size=32, jobs=1, catalogue=tiny)
    everything = Shard(built[0] / "pictures-000.safetensors")
    one = Shard(cache.parent / "one" / "pictures-000.safetensors")
    assert one.styles == ["flat", "gradient", "3d", "blob", "outlined"]
    assert everything.styles == [*one.styles, "clipart"] and everything.groups == [*one.groups, "clipart"]


def test_concepts_and_captions_are_those_of_the_pictures(built: tuple[Path, Manifest]) -> None:
    out, manifest = built
    described = json.loads((out / "concepts.json").read_text(encoding="utf-8"))
    assert list(described) == sorted({entry.concept for entry in manifest.entries})
    assert described["emoji:1f408"] == {"english": "cat", "group": "animals-nature", "emoji": "🐈"}
    assert described["clipart:odd-thing"] == {"english": "Odd thing", "group": "clipart", "emoji": ""}
    captions = CaptionTable.read(out / "captions.safetensors")
    assert captions.concepts == list(described) == Shard(out / "pictures-000.safetensors").concepts
    named = {captions.concepts[c] for c in captions.concept}
    assert {"emoji:1f408", "emoji:2615", "clipart:odd-thing"} <= named


def test_same_bytes_whatever_the_processes_and_whatever_was_there(
    built: tuple[Path, Manifest], tiny: Catalogue, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/pictures-007.safetensors").write_bytes(b"of an earlier build")
    build(tmp_path / "b", cache, sources=ALL, size=64, jobs=2, catalogue=tiny)
    first, second = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        for folder in (built[0], tmp_path / "b")
    )
    assert first == second and set(first) == FILES


def test_the_manifest_has_no_time_in_it(built: tuple[Path, Manifest]) -> None:
    data = (built[0] / "manifest.jsonl.gz").read_bytes()
    assert data[4:8] == bytes(4)  # RFC 1952: MTIME
    assert len(gzip.decompress(data).splitlines()) == len(built[1])


def test_shards_are_cut_by_number(
    tiny: Catalogue, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "SHARD_PICTURES", 4)
    manifest = build(tmp_path / "cut", cache, size=32, jobs=1, catalogue=tiny)
    parts = [Shard(path) for path in sorted((tmp_path / "cut").glob("pictures-*.safetensors"))]
    assert [len(part) for part in parts] == [4, 4, len(manifest) - 8]
    assert [i for part in parts for i in part.ids] == [entry.id for entry in manifest.entries]
    assert all(part.concepts == parts[0].concepts for part in parts)


def test_clip_art_comes_only_when_it_is_asked_for(tiny: Catalogue, cache: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = build(tmp_path / "out", cache, size=32, jobs=1, catalogue=tiny, say=lines.append)
    assert {entry.source for entry in manifest.entries} == {"first", "second", "solid"}
    assert lines[1] == "second: 3 pictures, 1 left out"


def test_a_limit_and_a_least_weight(tiny: Catalogue, cache: Path, tmp_path: Path) -> None:
    assert len(build(tmp_path / "a", cache, sources=["second"], size=32, jobs=1, limit=1, catalogue=tiny)) == 1
    heavy = build(tmp_path / "b", cache, sources=["first"], size=32, jobs=1, min_weight=0.1, catalogue=tiny)
    assert "first:one-oclock" not in {entry.id for entry in heavy.entries}
    assert heavy.refused["first"]["lighter than the least weight"] == 1


def test_near_duplicates_go_over_all_sources_when_asked(
    built: tuple[Path, Manifest], tiny: Catalogue, cache: Path, tmp_path: Path
) -> None:
    left = build(tmp_path / "out", cache, sources=ALL, size=64, jobs=1, near_duplicates=True, catalogue=tiny)
    gone = {entry.id for entry in built[1].entries} - {entry.id for entry in left.entries}
    assert gone == {"second:thumbs-up", "clips:tools/odd_thing_copy"}
    assert left.refused["second"]["nearly the same picture as another"] == 1
    assert [entry.id for entry in left.entries].count("solid:26a7") == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 40}, "multiples of 32"),
        ({"jobs": 0}, "jobs: 0 .* from 1"),
        ({"limit": 0}, "limit: 0 .* from 1"),
        ({"min_weight": 2.0}, "from 0 to 1"),
    ],
)
def test_options_out_of_range(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**wrong)


def test_a_package_with_another_licence_stops_the_build(cache: Path, tmp_path: Path) -> None:
    for name, contents, where in (
        ("second", iconify_set({"cat": {"body": disc(9)}}, {}, "CC-BY-NC-4.0"), "info.json"),
        ("solid", tgz({"package.json": {}}), "package.json"),
        ("clips", deb({"usr/share/doc/openclipart-svg/copyright": b"GPL"}), "copyright"),
        ("names", tgz({"data-by-emoji.json": {}, "package.json": {"license": "GPL-3.0"}}), "package.json"),
    ):
        with pytest.raises(FileError, match=rf"tiny-{name}@1.0: {where} says licence .*, the table says"):
            build(tmp_path / "out", cache, sources=ALL, size=32, jobs=1, catalogue=catalogue(cache, {name: contents}))
    assert not (tmp_path / "out").exists()


def test_pictures_under_a_licence_that_is_not_allowed_are_refused_and_counted(cache: Path, tmp_path: Path) -> None:
    shared = iconify_set({"cat": {"body": disc(50)}}, {}, "CC-BY-SA-4.0")
    tiny = catalogue(cache, {"second": shared})
    share_alike = replace(tiny.pictures["second"], licence="CC-BY-SA-4.0")
    tiny = replace(tiny, pictures={**tiny.pictures, "second": share_alike})
    manifest = build(tmp_path / "out", cache, sources=["first", "second"], size=32, jobs=1, catalogue=tiny)
    assert {entry.source for entry in manifest.entries} == {"first"}
    assert manifest.refused["second"] == {"licence CC-BY-SA-4.0 is not allowed": 1}
    with pytest.raises(FileError, match="no picture to write"):
        build(tmp_path / "none", cache, sources=["second"], size=32, jobs=1, catalogue=tiny)


def test_a_clip_with_two_licences_is_refused(cache: Path, tmp_path: Path) -> None:
    both = clip("Key", "x", disc(40) + '<license resource="x"/>', PUBLIC)
    files = {
        "usr/share/openclipart/svg/tools/key.svg": both,
        "usr/share/openclipart/svg/tools/cat.svg": clip("Cat", "x", disc(40)),
        "usr/share/doc/openclipart-svg/copyright": b"Public Domain Dedication",
    }
    tiny = catalogue(cache, {"clips": deb(files)})
    manifest = build(tmp_path / "out", cache, sources=["clips"], size=32, jobs=1, catalogue=tiny)
    assert [entry.id for entry in manifest.entries] == ["clips:tools/cat"]
    assert manifest.refused["clips"] == {"no public-domain licence in the file": 1}


def test_a_damaged_package_stops_the_build(tiny: Catalogue, cache: Path, tmp_path: Path) -> None:
    (cache / "tiny-solid-1.0.tgz").write_bytes(packages()["solid"] + b"x")
    with pytest.raises(FileError, match=r"tiny-solid-1.0.tgz: sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        build(tmp_path / "out", cache, size=32, jobs=1, catalogue=tiny)


def test_an_unwritable_folder_is_a_file_error(tiny: Catalogue, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileError, match="out: cannot be written"):
        build(tmp_path / "out", cache, sources=["second"], size=32, jobs=1, catalogue=tiny)


def test_attribution_names_projects_authors_licences_and_changes(built: tuple[Path, Manifest], tiny: Catalogue) -> None:
    out, manifest = built
    text = attribution(manifest, [tiny.emoji, *tiny.annotations], 64)
    assert (out / "ATTRIBUTION.md").read_text(encoding="utf-8") == text
    mit = "[MIT License](https://opensource.org/license/mit)"
    assert f"| [Project first](https://example.org/first) | Author of first | {mit} | `tiny-first@1.0` | 4 |\n" in text
    assert "| 2 people, below | " in text and "### Authors: Project clips\n\nDrawn by: Ann Artist (3), Ben (1)." in text
    assert f"{len(manifest)} drawings in all" in text and "rendered at 64×64 pixels" in text
    unicode = "[Unicode License v3](https://www.unicode.org/license.txt)"
    assert (
        f"- [Project derived](https://example.org/derived), Author of derived, {unicode}, `tiny-derived@1.0`\n" in text
    )
    owed = replace(manifest, entries=tuple(replace(e, licence="CC-BY-4.0") for e in manifest.entries))
    assert "- “Key” by Ben, CC-BY-4.0 (`clips:tools/key_ann_01`)" in attribution(owed, [], 64)
