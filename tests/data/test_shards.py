"""Shards, duplicates, licences and concepts: the parts of the build that need no renderer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chashka.data import sources
from chashka.data.archives import members
from chashka.data.concepts import Emoji, EmojiTable, slug
from chashka.data.duplicates import duplicates, signature
from chashka.data.licences import ALLOWED, spdx_of_address
from chashka.data.manifest import Manifest
from chashka.data.openclipart import Things
from chashka.data.shards import Labels, Record, Shard, held_out, pack, unpack, write_shard
from chashka.data.sources import SOURCES, Package, fetch
from chashka.errors import FileError, TrainingError

LABELS = Labels(("emoji:2615", "emoji:1f408"), ("flat", "3d"), ("food-drink", "animals-nature"))


def picture(seed: int, size: int = 32) -> np.ndarray:
    """Smooth premultiplied noise, uint8 (size, size, 4)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 4)).repeat(size // 4, 0).repeat(size // 4, 1)
    coarse[..., :3] = coarse[..., :3] * coarse[..., 3:] // 255
    return coarse.astype(np.uint8)


def records(count: int) -> list[Record]:
    return [Record(f"a:{i}", "a", i % 2, i % 2, i % 2, 0.5 + i, pack(picture(i))) for i in range(count)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.safetensors", records(5), LABELS, 32)
    shard = Shard(tmp_path / "s.safetensors")
    assert len(shard) == 5 and shard.size == 32 and shard.ids == [f"a:{i}" for i in range(5)]
    assert (tuple(shard.concepts), tuple(shard.styles), tuple(shard.groups)) == (
        LABELS.concepts,
        LABELS.styles,
        LABELS.groups,
    )
    assert shard.concept.dtype == np.int32 and shard.concept.tolist() == [0, 1, 0, 1, 0]
    assert shard.weight.dtype == np.float32 and shard.weight.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    for i in range(5):
        assert np.array_equal(shard.picture(i), picture(i))
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_same_records_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shard(tmp_path / name, records(3), LABELS, 32)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_shard_is_read_with_nothing_but_numpy_and_safetensors(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.safetensors", records(2), LABELS, 32)
    program = (
        "import sys; [sys.modules.__setitem__(m, None) for m in ('PIL', 'torch', 'resvg_py', 'click', 'tqdm')];"
        f"from chashka.data.shards import Shard; from pathlib import Path; s = Shard(Path({str(tmp_path)!r}) / 's.safetensors');"
        "print(s.picture(1).sum())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) == int(picture(1).sum())


def test_packing_is_lossless() -> None:
    pixels = picture(3)
    assert np.array_equal(unpack(pack(pixels), 32), pixels)
    assert np.array_equal(unpack(pack(pixels[:, ::-1]), 32), pixels[:, ::-1])


def test_held_out_pictures_are_three_in_a_hundred_and_never_change() -> None:
    chosen = [i for i in range(10_000) if held_out(f"noto:{i}")]
    assert 250 < len(chosen) < 350
    assert chosen[:3] == [i for i in range(chosen[2] + 1) if held_out(f"noto:{i}")]


def test_wrong_files_are_errors_for_people(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere"):
        Shard(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no safetensors at all")
    with pytest.raises(FileError, match="cannot be read as a shard"):
        Shard(tmp_path / "text")
    save_file({"x": np.zeros(3)}, tmp_path / "other")
    with pytest.raises(TrainingError, match="not a shard of pictures"):
        Shard(tmp_path / "other")
    bad = [Record("a", "a", 0, 0, 0, 1.0, b"no zlib")]
    write_shard(tmp_path / "bad", bad, LABELS, 32)
    with pytest.raises(FileError, match="picture 0 is damaged"):
        Shard(tmp_path / "bad").picture(0)
    with pytest.raises(FileError, match="cannot write the shard"):
        write_shard(tmp_path / "no" / "folder", bad, LABELS, 32)
    with pytest.raises(FileError, match="not a readable manifest"):
        Manifest.read(tmp_path / "text")


def test_duplicates_are_found_and_different_pictures_are_not() -> None:
    one, other = picture(1, 64), picture(2, 64)
    nearly = one.copy()
    nearly[::2] = np.clip(one[::2].astype(int) + 1, 0, 255)
    moved = np.roll(one, 3, axis=1)
    found = duplicates([signature(p) for p in (one, other, nearly, moved, one, other)])
    assert found == [None, None, 0, None, 0, 1]


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


def test_code_points_and_slugs_lead_to_the_same_concept() -> None:
    emoji = table()
    for codes, concept, toned in (
        ("1f408", "emoji:1f408", False),
        ("2764-fe0f", "emoji:2764", False),
        ("1f44d-1f3fd", "emoji:1f44d", True),
        ("1f469-1f3ff-200d-1f680", "emoji:1f469-200d-1f680", True),
    ):
        found = emoji.of_codes(codes)
        assert found is not None and (found[0].concept, found[1]) == (concept, toned)
    for name, concept, toned in (
        ("cat", "emoji:1f408", False),
        ("catside", "emoji:1f408", False),
        ("cat-2", "emoji:1f408", False),
        ("thumbsup", "emoji:1f44d", False),
        ("thumbs-up-medium-dark-skin-tone", "emoji:1f44d", True),
        ("thumbs-up-dark", "emoji:1f44d", True),
        ("womanastronaut", "emoji:1f469-200d-1f680", False),
        ("heavyblackheart", "emoji:2764", False),
    ):
        found = emoji.of_slug(name)
        assert found is not None and (found[0].concept, found[1]) == (concept, toned), name
    for nothing in ("1f3fb", "zz", "ffffffffff", "1f600"):
        assert emoji.of_codes(nothing) is None
    assert emoji.of_slug("no-such-thing") is None


def test_a_set_that_knows_code_points_teaches_its_slugs() -> None:
    emoji = table()
    emoji.learn({"kitty": "1f408", "ok-hand-tone": "1f44d-1f3fb"}, {"puss": "kitty", "lost": "nothing"})
    assert emoji.of_slug("kitty") == emoji.of_slug("puss") == emoji.of_codes("1f408")
    assert emoji.of_slug("ok-hand-tone") == emoji.of_codes("1f44d-1f3fb")
    assert emoji.of_slug("lost") is None


@pytest.mark.parametrize(
    ("char", "group", "weight"),
    [
        ("🐈", "animals-nature", 1.0),
        ("🇫🇷", "flags", 0.05),
        ("7️⃣", "symbols", 0.05),
        ("🆗", "symbols", 0.05),
        ("🕐", "travel-places", 0.08),
        ("🕰️", "travel-places", 1.0),
        ("👩‍🚀", "people", 0.08),
        ("👍", "people", 0.3),
        ("➕", "symbols", 0.3),
        ("😀", "smileys", 0.6),
    ],
)
def test_weights(char: str, group: str, weight: float) -> None:
    assert Emoji("x", char, "x", group).weight == weight


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


def test_the_table_of_sources_is_sound() -> None:
    for source in SOURCES.values():
        assert source.licence in ALLOWED and len(source.package.sha256) == 64 and source.link.startswith("https://")
    assert len({source.package.file_name for source in SOURCES.values()}) == len(SOURCES)
    assert SOURCES["openclipart"].package.file_name == "openclipart-svg_1%3a0.18+dfsg-19_all.deb"
    assert SOURCES["noto"].package.file_name == "iconify-json-noto-1.2.9.tgz"


def test_a_missing_client_and_a_failing_one_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("npm", "nothing", "1.0", "0" * 64)
    monkeypatch.setattr(sources.shutil, "which", lambda name: None)
    with pytest.raises(FileError, match=r"npm is not installed, so nothing@1.0 cannot be fetched"):
        fetch(package, tmp_path)
    monkeypatch.setattr(sources.shutil, "which", lambda name: "/bin/false")
    with pytest.raises(FileError, match=r"'npm pack nothing@1.0 --silent' failed: no file came"):
        fetch(package, tmp_path / "made")
    assert list((tmp_path / "made").iterdir()) == []


def test_a_client_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "client"
    client.write_text("#!/bin/sh\nprintf x > thing.tgz\n")
    client.chmod(0o755)
    monkeypatch.setattr(sources.shutil, "which", lambda name: str(client))
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    path = fetch(Package("npm", "@scope/thing", "2", digest), tmp_path / "cache")
    assert path == tmp_path / "cache/scope-thing-2.tgz" and path.read_bytes() == b"x"


@pytest.mark.parametrize("name", ["x.tgz", "x.deb"])
def test_what_is_no_package_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(FileError, match=name):
        list(members(tmp_path / name))
    (tmp_path / "x.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(FileError, match=r"without data\.tar"):
        list(members(tmp_path / "x.deb"))
