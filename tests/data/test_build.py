"""A whole build from tiny packages: what comes in, what is refused and why, and that it always gives the same bytes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from tiny_packages import clip, disc, iconify_set, install, packages

from chashka.data import build as build_module
from chashka.data.build import build
from chashka.data.drawings import Drawing
from chashka.data.manifest import Manifest, attribution
from chashka.data.render import NotDrawn, render
from chashka.data.shards import Shard, held_out
from chashka.errors import FileError, InputError

pytestmark = pytest.mark.extra

PAGE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">{}</svg>'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(tmp_path / "cache", monkeypatch)
    return tmp_path / "cache"


def shards(folder: Path) -> list[Shard]:
    return [Shard(path) for path in sorted(folder.glob("pictures-*.safetensors"))]


def test_pictures_of_one_emoji_share_a_concept_and_reasons_are_counted(cache: Path, tmp_path: Path) -> None:
    manifest = build(tmp_path / "out", cache, size=64, jobs=1)
    by_id = {entry.id: entry for entry in manifest.entries}
    assert {i for i, entry in by_id.items() if entry.concept == "emoji:2615"} == {
        "first:hot-beverage",
        "second:hotbeverage",
    }
    assert by_id["second:catside"].concept == by_id["first:cat"].concept == "emoji:1f408"
    assert by_id["solid:1f427"].concept == by_id["clips:animals/birds/new_penguin_01"].concept == "emoji:1f427"
    assert by_id["clips:tools/key_ann_01"].concept == "emoji:1f511"
    assert by_id["clips:tools/odd_thing"].concept == "clipart:odd-thing"
    assert sum(i.startswith("first:thumbs-up-") for i in by_id) == 1
    assert manifest.refused["first"] == {
        "another skin tone of a drawing that is there": 1,
        "nearly empty": 1,
        "no emoji of that name": 1,
    }
    assert manifest.refused["second"] == {"no emoji of that name": 1}
    assert manifest.refused["solid"] == {"no emoji of that name": 1, "raster too small": 1}
    assert manifest.refused["clips"] == {
        "has text inside": 1,
        "icons, flags, cards, patterns, signs": 1,
        "no public-domain licence in the file": 2,
        "the same picture as another of its set": 1,
    }
    assert json.loads((tmp_path / "out/refused.json").read_text()) == manifest.refused
    assert json.loads((tmp_path / "out/concepts.json").read_text(encoding="utf-8"))["emoji:1f408"] == {
        "group": "animals-nature",
        "english": "cat",
        "emoji": "🐈",
    }


def test_shards_hold_what_the_manifest_says(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = build(out, cache, size=64, jobs=1)
    assert Manifest.read(out / "manifest.jsonl.gz").entries == manifest.entries
    (shard,) = shards(out)
    assert shard.size == 64
    assert shard.ids == [entry.id for entry in manifest.entries]
    assert shard.sources == [entry.source for entry in manifest.entries]
    assert [shard.concepts[c] for c in shard.concept] == [entry.concept for entry in manifest.entries]
    assert [shard.styles[s] for s in shard.style] == [entry.style for entry in manifest.entries]
    assert shard.held_out.tolist() == [int(held_out(i)) for i in shard.ids]
    weight = dict(zip(shard.ids, shard.weight.tolist(), strict=True))
    assert weight["first:cat"] == 1 and weight["first:one-oclock"] == pytest.approx(0.08)
    assert weight["first:flag-france"] == pytest.approx(0.05)
    assert weight["first:thumbs-up"] == pytest.approx(0.3)
    for i in range(len(shard)):
        picture = shard.picture(i)
        assert picture.shape == (64, 64, 4) and (picture[..., :3] <= picture[..., 3:]).all()


def test_same_bytes_whatever_the_processes_and_whatever_was_there(cache: Path, tmp_path: Path) -> None:
    build(tmp_path / "a", cache, size=64, jobs=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/pictures-007.safetensors").write_bytes(b"of an earlier build")
    (tmp_path / "b/captions.safetensors").write_bytes(b"not ours")
    build(tmp_path / "b", cache, size=64, jobs=2)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert again.pop("captions.safetensors") == b"not ours"
    assert files == again
    assert set(files) == {"pictures-000.safetensors", "manifest.jsonl.gz", "concepts.json", "refused.json"}


def test_shards_are_cut_by_size(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(tmp_path / "whole", cache, size=64, jobs=1)
    monkeypatch.setattr(build_module, "SHARD_BYTES", 600)
    build(tmp_path / "cut", cache, size=64, jobs=1)
    parts = shards(tmp_path / "cut")
    assert len(parts) > 2
    assert [i for part in parts for i in part.ids] == [entry.id for entry in whole.entries]
    assert all(part.concepts == parts[0].concepts for part in parts)


def test_options(cache: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    some = build(tmp_path / "some", cache, sources=["second"], size=32, jobs=1, say=lines.append)
    assert {entry.source for entry in some.entries} == {"second"} and lines == ["second: 2 pictures, 1 left out"]
    assert len(build(tmp_path / "one", cache, sources=["second"], size=32, jobs=1, limit=1)) == 1
    heavy = build(tmp_path / "heavy", cache, sources=["first"], size=32, jobs=1, min_weight=0.06)
    assert "first:flag-france" not in {entry.id for entry in heavy.entries}
    assert heavy.refused["first"]["lighter than min_weight"] == 2
    for wrong, message in (
        ({"size": 40}, "multiple of 32"),
        ({"jobs": 0}, "at least 1"),
        ({"limit": 0}, "at least 1"),
        ({"sources": ["nosuch"]}, "nosuch; known sources: first, second"),
        ({"sources": []}, "none given"),
    ):
        with pytest.raises(InputError, match=message):
            build(tmp_path / "x", cache, **({"jobs": 1, "size": 32} | wrong))


def test_a_package_with_another_licence_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = iconify_set({"cat": {"body": disc(9)}}, {}, "CC-BY-NC-4.0")
    install(tmp_path / "cache", monkeypatch, {"second": changed})
    with pytest.raises(FileError, match=r"tiny-second@1.0: info.json says licence 'CC-BY-NC-4.0'"):
        build(tmp_path / "out", tmp_path / "cache", size=32, jobs=1)
    assert not (tmp_path / "out").exists()


def test_a_damaged_package_stops_the_build(cache: Path, tmp_path: Path) -> None:
    damaged = packages()["solid"] + b"x"
    (cache / "tiny-solid-1.0.tgz").write_bytes(damaged)
    with pytest.raises(FileError, match=r"tiny-solid-1.0.tgz: sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        build(tmp_path / "out", cache, size=32, jobs=1)


def test_an_unwritable_folder_is_a_file_error(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileError, match="out: cannot be written"):
        build(tmp_path / "out", cache, sources=["second"], size=32, jobs=1)


def test_attribution_names_projects_authors_and_licences(cache: Path, tmp_path: Path) -> None:
    manifest = build(tmp_path / "out", cache, size=32, jobs=1)
    text = attribution(manifest)
    assert "## Project first\n\n- Author: Author of first\n- Licence: [MIT](https://opensource.org/license/mit)" in text
    assert "Drawn by: Ann Artist (2), Ben (1)." in text
    assert "package `tiny-clips@1.0`\n- Pictures: 3" in text
    owed = replace(manifest, entries=tuple(replace(e, licence="CC-BY-4.0") for e in manifest.entries))
    assert "- “Key” by Ben, CC-BY-4.0 (`clips:tools/key_ann_01`)" in attribution(owed)


def test_a_drawing_fills_nine_tenths_of_the_square_and_stands_in_its_middle() -> None:
    pixels = render(PAGE.format('<path d="M8 40h100v20H8z" fill="#08f"/>'), 256)
    rows, columns = np.nonzero(pixels[..., 3] > 127)
    assert columns.max() - columns.min() + 1 == pytest.approx(230, abs=4)
    assert rows.min() + rows.max() == pytest.approx(255, abs=4)
    assert columns.min() + columns.max() == pytest.approx(255, abs=4)


def test_small_drawings_stay_small_unless_they_are_free() -> None:
    dot = PAGE.format(disc(16))
    assert _width(render(dot, 256)) == pytest.approx(256 * 0.9 * 1.3 * 32 / 128, abs=2)
    assert _width(render(dot, 256, free=True)) == pytest.approx(230, abs=4)


def test_what_lies_outside_the_page_stays_outside() -> None:
    pixels = render(PAGE.format('<path d="M64 -500h64v999h-64z" fill="#080"/>'), 256)
    rows, _ = np.nonzero(pixels[..., 3] > 127)
    assert rows.max() - rows.min() + 1 == pytest.approx(230, abs=3)


def test_alpha_is_premultiplied() -> None:
    pixels = render(PAGE.format('<path d="M9 9h100v100H9z" fill="#ff8000" opacity="0.5"/>'), 64)
    assert pixels[32, 32].tolist() == [pytest.approx(v, abs=1) for v in (128, 64, 0, 128)]
    assert pixels[0, 0].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (PAGE.format(""), "nearly empty"),
        (PAGE.format('<text y="9">a</text>'), "has text inside"),
        (PAGE.format('<image href="x.png"/>'), "has a raster inside"),
        (PAGE.format(disc(9)).replace('viewBox="0 0 128 128"', 'width="3furlong" height="2"'), "no page size"),
        (PAGE.format(disc(9)).replace("128 128", "0 128"), "no page size"),
        ("<svg", "not well-formed"),
        ("<html/>", "no SVG"),
    ],
)
def test_reasons_for_no_picture(payload: str, reason: str) -> None:
    with pytest.raises(NotDrawn, match=reason):
        render(payload, 64)


def test_rasters_shrink_and_never_grow(tmp_path: Path) -> None:
    def raster(side: int) -> bytes:
        image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        image.paste((200, 10, 10, 255), (10, 10, side - 10, side - 10))
        image.save(tmp_path / "x.png")
        return (tmp_path / "x.png").read_bytes()

    assert _width(render(raster(220), 256)) == 200
    assert _width(render(raster(600), 256)) == pytest.approx(230, abs=2)
    with pytest.raises(NotDrawn, match="raster too small"):
        render(raster(150), 256)


def test_a_clip_with_two_licences_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_packages import PUBLIC, deb

    both = clip("Key", "x", disc(40) + '<license resource="x"/>', PUBLIC)
    files = {
        "usr/share/openclipart/svg/tools/key.svg": both,
        "usr/share/doc/openclipart-svg/copyright": b"Public Domain Dedication",
    }
    install(tmp_path / "cache", monkeypatch, {"clips": deb(files)})
    manifest = build(tmp_path / "out", tmp_path / "cache", sources=["clips"], size=32, jobs=1)
    assert len(manifest) == 0 and manifest.refused["clips"] == {"no public-domain licence in the file": 1}


def test_drawings_can_travel_to_other_processes() -> None:
    import pickle

    drawing = Drawing("a", "b", "c", "d", "e", 1.0, "MIT", "f", "g", b"h")
    assert pickle.loads(pickle.dumps(drawing)) == drawing


def _width(pixels: np.ndarray) -> int:
    columns = np.nonzero((pixels[..., 3] > 127).any(axis=0))[0]
    return int(columns.max() - columns.min() + 1)
