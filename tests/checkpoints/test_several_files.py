"""Weights in several files: what an index may say, and what is told where files and index do not agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chashka.checkpoints import several_files, write
from chashka.checkpoints.several_files import check, files_of, is_index, parts, read_weights, there
from chashka.errors import WeightsError
from parts_files import say, write_parts

TENSORS = {name: np.full((2, 3), i, np.float32) for i, name in enumerate("abcde")}
FIRST, SECOND, THIRD = (f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """a, d; b, e; c."""
    return write_parts(tmp_path / "unet", "model", TENSORS, 3)


def test_all_of_them_are_read(index: Path) -> None:
    check(index, torch=True)
    found = read_weights(index)
    assert found.keys() == TENSORS.keys() and there(index)
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(found[name], value)
    assert [file.name for file in files_of(index)] == [FIRST, SECOND, THIRD]
    assert parts(index)[index.with_name(SECOND)] == ["b", "e"]


def test_a_single_file_is_itself(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    assert not there(file)
    write(file, TENSORS, {})
    assert there(file) and files_of(file) == (file,) and read_weights(file).keys() == TENSORS.keys()


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("model.safetensors.index.json", True),
        ("pytorch_model.bin.index.json", True),
        ("diffusion_pytorch_model.safetensors.index.fp16.json", True),
        ("diffusion_pytorch_model.safetensors.fp16.index.json", True),
        ("model_index.json", False),
        ("index.json", False),
        ("model.safetensors", False),
        ("model.ckpt.index.json", False),
    ],
)
def test_an_index_is_told_by_its_name(name: str, yes: bool) -> None:
    assert is_index(Path(name)) == yes


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("model-00001-of-00002.safetensors", ("model", None, "00001", "00002")),
        ("diffusion_pytorch_model.fp16-00002-of-00010.bin", ("diffusion_pytorch_model", "fp16", "00002", "00010")),
        ("model.safetensors", None),
        ("model.fp16.safetensors", None),
    ],
)
def test_names_of_parts(name: str, found: tuple[str | None, ...] | None) -> None:
    told = several_files.PART.fullmatch(name)
    assert (told and told.group("stem", "variant", "number", "of")) == found


@pytest.mark.parametrize(
    "name",
    [
        "../other/model.safetensors",
        "..",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        ".hidden.safetensors",
        "model.safetensors\0",
        "model.bin",
        "model.ckpt",
        "m" * 300 + ".safetensors",
        "\ud800.safetensors",
        "",
    ],
)
def test_an_index_that_names_anything_but_files_beside_it_is_refused(name: str, index: Path) -> None:
    write(index.parent.parent / "model.safetensors", TENSORS, {})
    say(index, c=name)
    message = (
        r"index\.json: refused: it says that 'c' is in .*; allowed: names of \.safetensors files in its own folder"
    )
    for read in (parts, check, read_weights, there, files_of):
        with pytest.raises(WeightsError, match=message) as problem:
            read(index)
        assert "\n" not in str(problem.value) and len(str(problem.value)) < 600


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"index\.json: cannot be read"),
        ("{", r"index\.json: cannot be read"),
        ("[]", r"index\.json: is not a table"),
        ("{}", r"its weight_map is None; allowed: a table from names of weights to names of files; fetch it again"),
        ('{"weight_map": {}}', r"its weight_map is \{\}; allowed"),
        ('{"weight_map": "a\\nb"}', r"its weight_map is 'a\\nb'; allowed"),
        ('{"weight_map": {"a": 1}}', r"its weight_map is \{'a': 1\}; allowed"),
        ('{"weight_map": ["a"]}', r"its weight_map is \['a'\]; allowed"),
    ],
)
def test_what_is_no_index_is_told(text: str, message: str, index: Path) -> None:
    index.write_text(text)
    with pytest.raises(WeightsError, match=message) as problem:
        read_weights(index)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ([SECOND], rf"are in 3 files; missing is {SECOND}; found are {FIRST}, {THIRD}\. Put what is missing there"),
        ([FIRST, THIRD], rf"are in 3 files; missing are {FIRST}, {THIRD}; found is {SECOND}\. Put what is missing"),
        ([FIRST, SECOND, THIRD], rf"missing are {FIRST}, {SECOND}, {THIRD}; found is none of them\. Put"),
    ],
)
def test_missing_parts_are_named_with_those_that_are_there(gone: list[str], message: str, index: Path) -> None:
    for name in gone:
        index.with_name(name).unlink()
    for read in (check, read_weights):
        with pytest.raises(WeightsError, match=rf"unet: .*index\.json says that its weights .*{message}"):
            read(index)
    assert there(index) == (len(gone) < 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": SECOND}, rf"says that a is in {SECOND}, which does not hold it; a is in {FIRST}\. Take index and files of one"),
        ({"x": SECOND}, rf"says that x is in {SECOND}, which does not hold it; no other file of its does\. Take"),
        ({"x": SECOND, "y__z": SECOND}, rf"says that x, y\.z are in {SECOND}, which does not hold them; no other file"),
        ({"x\ny" * 99: SECOND}, rf"says that 'x\\ny.* is in {SECOND}, which does not hold it; no other file of its does"),
        ({"e": None}, rf"{SECOND} holds e, which the index does not know\. Take index and files of one"),
    ],
)  # fmt: skip
def test_a_weight_that_is_not_where_the_index_says_is_named(
    changes: dict[str, str | None], message: str, index: Path
) -> None:
    say(index, **changes)
    for read in (check, read_weights):
        with pytest.raises(WeightsError, match=rf"index\.json: .*{message}") as problem:
            read(index)
        assert "\n" not in str(problem.value) and len(str(problem.value)) < 600


def test_a_weight_that_two_files_hold_is_told(index: Path) -> None:
    write(index.with_name(THIRD), {name: TENSORS[name] for name in "ac"}, {})
    for read in (check, read_weights):
        with pytest.raises(WeightsError, match=rf"{THIRD} holds a, which by the index is in {FIRST}\. Take"):
            read(index)


def test_what_is_harmless_needs_no_word_of_the_index(index: Path) -> None:
    more = {"c": TENSORS["c"], "text_model.embeddings.position_ids": np.arange(7)[None]}
    write(index.with_name(THIRD), more, {})
    check(index)
    assert read_weights(index).keys() == TENSORS.keys() | more.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[:-7], rf"{SECOND} is damaged .*bytes long, its header says"),
        (lambda whole: whole[:5], rf"{SECOND}( is damaged .*5 bytes long, no header|: not a usable checkpoint)"),
        (lambda _: b"", rf"{SECOND} is empty; fetch it again"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\nsize 12\n", rf"{SECOND} is a pointer of Git LFS"),
        (lambda _: b"<html>", rf"{SECOND} is a web page"),
    ],
)
def test_a_damaged_part_is_named(content: object, message: str, index: Path) -> None:
    assert callable(content)
    part = index.with_name(SECOND)
    part.write_bytes(content(part.read_bytes()))
    for read in (check, read_weights):
        with pytest.raises(WeightsError, match=message):
            read(index)


def test_links_to_elsewhere_are_files_of_the_folder(index: Path, tmp_path: Path) -> None:
    """As in the cache of the hub's own library, where every file is a link to a content."""
    part = index.with_name(SECOND)
    part.rename(tmp_path / "content")
    part.symlink_to(tmp_path / "content")
    assert read_weights(index).keys() == TENSORS.keys()


def test_whoever_gives_the_index_alone_is_told_of_the_folder(index: Path) -> None:
    from chashka.checkpoints import lora

    with pytest.raises(WeightsError, match=r"index\.json is the index of weights in several files; give the folder"):
        lora.read(index)
