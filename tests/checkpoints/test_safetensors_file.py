"""safetensors files: against the library, byte for byte the same again, and whole or not at all."""

from __future__ import annotations

import hashlib
import json
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chashka.checkpoints import GRAPH_TENSOR, layout, read_metadata, read_tensors, sha256, write
from chashka.errors import FileError, WeightsError

RANDOM = np.random.default_rng(0)
TENSORS = {
    "half": RANDOM.standard_normal((4, 8)).astype(np.float16),
    "odd": RANDOM.standard_normal(7).astype(np.float16),
    "wide": RANDOM.standard_normal((3, 2, 2)).astype(np.float32),
    "small": RANDOM.integers(-128, 127, (5, 3)).astype(np.int8),
    "ids": np.arange(6, dtype=np.int64),
    "flags": np.array([True, False, True]),
    "one": np.float32(3.5),
    "none": np.zeros((0, 4), np.float32),
    "имя": np.ones(64, np.uint8),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "w.safetensors"
    write(file, TENSORS, {"class": "nets.unet:UNet", "note": "чашка"})
    return file


def test_the_library_reads_what_we_write(path: Path) -> None:
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert loaded[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(loaded[name], array)


def test_we_read_what_we_and_the_library_write(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "theirs.safetensors"
    save_file({name: np.asarray(array) for name, array in TENSORS.items()}, other, {"a": "b"})
    for file in (path, other):
        loaded = read_tensors(file)
        assert loaded.keys() == TENSORS.keys()
        for name, array in TENSORS.items():
            assert loaded[name].shape == np.shape(array)
            np.testing.assert_array_equal(loaded[name], array)
    assert read_metadata(path) == {"class": "nets.unet:UNet", "note": "чашка"}
    assert read_metadata(other) == {"a": "b"}


def test_same_content_same_bytes_in_any_order(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    write(again, dict(reversed(TENSORS.items())), {"note": "чашка", "class": "nets.unet:UNet"})
    assert again.read_bytes() == path.read_bytes()
    assert sha256(again) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tensors_are_aligned(path: Path) -> None:
    places, _ = layout(path)
    assert min(place.offset for place in places.values()) % 64 == 0
    for place in places.values():
        assert place.offset % {"F16": 2, "F32": 4, "I64": 8}.get(place.dtype, 1) == 0


def test_arrays_may_be_written_to_and_the_file_stays(path: Path) -> None:
    before = path.read_bytes()
    read_tensors(path)["half"][...] = 0
    assert path.read_bytes() == before


def test_the_graphs_constants_are_no_weights(tmp_path: Path) -> None:
    file = tmp_path / "g.safetensors"
    write(file, {"w": np.ones(2, np.float32), GRAPH_TENSOR: np.zeros(16, np.uint8)}, {})
    assert list(read_tensors(file)) == ["w"]
    assert GRAPH_TENSOR in layout(file)[0]
    assert read_metadata(file) == {}


def test_a_file_without_tensors(tmp_path: Path) -> None:
    file = tmp_path / "e.safetensors"
    write(file, {}, {"a": "b"})
    assert read_tensors(file) == {} and read_metadata(file) == {"a": "b"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chashka.checkpoints.safetensors_file.os.fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        write(path, {"w": np.ones(2, np.float32)}, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_dtypes_that_the_format_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="complex64"):
        write(tmp_path / "c.safetensors", {"c": np.zeros(2, np.complex64)}, {})


@pytest.mark.parametrize("function", [layout, read_metadata, read_tensors, sha256])
def test_a_missing_file_is_named(function: object, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.safetensors does not exist"):
        function(tmp_path / "nothing.safetensors")  # type: ignore[operator]


def with_header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, **changes: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]} | changes


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02\x00",
        b"PK\x03\x04 this is a zip archive",
        struct.pack("<Q", 1 << 60) + b"{}",
        with_header(b"{"),
        with_header([1, 2]),
        with_header(b"[" * 100_000),
        with_header({"a": 1}),
        with_header({"a": {"dtype": "U8"}}),
        with_header({"a": entry(0, 4)}, b"123"),
        with_header({"a": entry(0, 4)}, b"12345"),
        with_header({"a": entry(0, 2), "b": entry(1, 3)}, b"123"),
        with_header({"a": entry(0, 1), "b": entry(2, 3)}, b"123"),
        with_header({"a": entry(0, 4, shape=[3])}, b"1234"),
        with_header({"a": entry(0, 4, shape=[-2, -2])}, b"1234"),
        with_header({"a": entry(0, 4, shape=[4.0])}, b"1234"),
        with_header({"a": entry(0, 4, dtype="F7")}, b"1234"),
        with_header({"a": entry(0, 4, dtype=["U8"])}, b"1234"),
        with_header(b'{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": {}}'),
        with_header({"__metadata__": {"a": 1}}),
        with_header({"__metadata__": "a"}),
    ],
)
def test_damaged_files_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        read_tensors(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_damage_to_the_header_escapes_as_another_error(path: Path) -> None:
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(int(random.integers(1, 4))):
            damaged[int(random.integers(0, 900))] = int(random.integers(0, 256))
        path.write_bytes(damaged[: int(random.integers(1, len(damaged) + 1))] if random.random() < 0.3 else damaged)
        with suppress(WeightsError):
            read_tensors(path)
