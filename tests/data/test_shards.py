"""Shards, the files of tensors, near duplicates, the manifest: parts of the build that need no renderer."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from chashka.data.duplicates import duplicates, signature
from chashka.data.manifest import Entry, Manifest
from chashka.data.shards import Labels, Record, Shard, held_out, pack, unpack, write_shard
from chashka.data.tensors import write_tensors
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
        write_shard(tmp_path / "text" / "shard", bad, LABELS, 32)
    with pytest.raises(FileError, match="not a readable manifest"):
        Manifest.read(tmp_path / "text")


def test_duplicates_are_found_and_different_pictures_are_not() -> None:
    one, other = picture(1, 64), picture(2, 64)
    nearly = one.copy()
    nearly[::2] = np.clip(one[::2].astype(int) + 1, 0, 255)
    moved = np.roll(one, 3, axis=1)
    found = duplicates([signature(p) for p in (one, other, nearly, moved, one, other)])
    assert found == [None, None, 0, None, 0, 1]


def test_shards_of_the_first_format_are_still_read(tmp_path: Path) -> None:
    """Channel planes, each row as the difference from the row above; no list of sources."""
    pixels = picture(4)
    rows = np.diff(pixels.transpose(2, 0, 1), axis=1, prepend=np.uint8(0))
    data = zlib.compress(rows.tobytes())
    one = np.zeros(1, np.int32)
    tensors = {
        "bytes": np.frombuffer(data, np.uint8),
        "offsets": np.array([0, len(data)]),
        "concept": one,
        "style": one,
        "group": one,
        "weight": np.ones(1, np.float32),
        "held_out": np.zeros(1, np.uint8),
    }
    lists = dict.fromkeys(("concepts", "styles", "groups", "ids"), '["x"]')
    save_file(tensors, tmp_path / "old.safetensors", {"size": "32", **lists})
    shard = Shard(tmp_path / "old.safetensors")
    assert np.array_equal(shard.picture(0), pixels) and shard.sources == []


def test_tensors_are_read_by_the_safetensors_package(tmp_path: Path) -> None:
    tensors = {
        "narrow": np.arange(3, dtype=np.int8),
        "wide": np.arange(6, dtype=np.int64).reshape(2, 3),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "big-endian": np.arange(4, dtype=">i4"),
        "empty": np.zeros((0, 2), np.int16),
    }
    write_tensors(tmp_path / "new/folder/t.safetensors", tensors, {"имя": "значение"}, "the tensors")
    read = load_file(tmp_path / "new/folder/t.safetensors")
    assert set(read) == set(tensors)
    for name, values in tensors.items():
        assert read[name].shape == values.shape and np.array_equal(read[name], values), name
    with safe_open(tmp_path / "new/folder/t.safetensors", framework="np") as file:
        assert file.metadata() == {"имя": "значение"}
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write the tensors"):
        write_tensors(tmp_path / "file" / "t", tensors, {}, "the tensors")


def test_a_manifest_comes_back_as_written(tmp_path: Path) -> None:
    entry = Entry("a:b", "0" * 64, "emoji:2615", "чашка", "flat", "a", "A", "Ann", "MIT", "a@1", "https://example.org")
    manifest = Manifest((entry, entry))
    for name in ("a", "b"):
        manifest.write(tmp_path / name)
    assert Manifest.read(tmp_path / "a").entries == manifest.entries and len(manifest) == 2
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write the manifest"):
        manifest.write(tmp_path / "file" / "m")
