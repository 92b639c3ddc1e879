"""What a file holds decides, never what it is called; and what holds no weights is told by name."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from chashka.checkpoints import content, layout, lora, write
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import WeightsError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4265380512\n"
NAMES = pytest.mark.parametrize("name", ["x.safetensors", "x.ckpt", "x.bin"])


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("model/data.pkl", pickle.dumps({"a": 1}, 2))
    return stream.getvalue()


ROW = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []))


@NAMES
@pytest.mark.parametrize(
    ("written", "message"),
    [
        (POINTER, r"a pointer of Git LFS, which stands for a file of 4265380512 bytes; fetch that one: git lfs pull"),
        (POINTER.replace(b"size", b"sort"), r"a pointer of Git LFS, which stands for a file; fetch that one"),
        (
            b"<!DOCTYPE html>\n<html><head>",
            "a web page, which a server sent in place of the file; .* download it again",
        ),
        (b"\xef\xbb\xbf \r\n<?xml version='1.0'?><Error><Code>AccessDenied", "a web page"),
        (b"", r"is empty; fetch it again"),
        (b"Invalid username or password.", r"begins with the text 'Invalid username or password\.'; fetch it again"),
        (b'{"error": "Repository\nnot found"}', r"begins with the text '\{\"error\": \"Repository not found\"\}'"),
    ],
)
def test_what_holds_no_weights_is_told(written: bytes, message: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(written)
    for read in (read_checkpoint, layout):
        with pytest.raises(WeightsError, match=message) as problem:
            read(tmp_path / name)
        assert name in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize("written", [archive(), ROW], ids=["zip", "row"])
def test_where_only_safetensors_can_be_read_a_file_of_torch_is_told(written: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(written)
    assert content.is_torch(path) and not content.is_safetensors(path)
    with pytest.raises(
        WeightsError, match=r"x\.safetensors is a file of torch, not safetensors; .* rename it .*\.ckpt"
    ):
        layout(path)


def test_a_header_that_begins_like_a_pickle_is_a_header(tmp_path: Path) -> None:
    """640 bytes: its length is written as the two bytes that every old file of torch begins with."""
    path = tmp_path / "x.ckpt"
    header = b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'.ljust(640)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
    assert path.read_bytes()[:2] == b"\x80\x02" and content.is_safetensors(path) and not content.is_torch(path)
    assert read_checkpoint(path)["a"].tolist() == [97, 98, 99]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="is damaged or is not a safetensors file"):
        read_checkpoint(path)


@NAMES
def test_alpha_in_the_metadata_is_read_whatever_the_files_name(name: str, tmp_path: Path) -> None:
    halves = {"unet.m.lora_A.weight": np.ones((2, 4), np.float32), "unet.m.lora_B.weight": np.ones((4, 2), np.float32)}
    write(tmp_path / name, halves, {lora.METADATA: '{"unet.lora_alpha": 8}'})
    assert [change.scale for change in lora.read(tmp_path / name)] == [4.0]
