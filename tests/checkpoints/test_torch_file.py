"""Files that torch wrote, in both layouts, read without it: the same numbers; damaged ones are refused in one line."""

from __future__ import annotations

import random
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from chashka.checkpoints.bfloat16 import BFLOAT16, computable
from chashka.checkpoints.safetensors_file import write
from chashka.checkpoints.torch_file import read_checkpoint, read_torch
from chashka.errors import WeightsError

pytestmark = pytest.mark.torch
BOTH = pytest.mark.parametrize("new", [True, False], ids=["zip", "row"])


def weights() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=g)
    short = base.bfloat16()
    kinds = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
    )
    return {
        "plain": base,
        "row": base[2],
        "turned": base.T,
        "every other": base[::2, 1::3],
        "number": torch.tensor(3.5),
        "nothing": torch.zeros(0, 4),
        "parameter": nn.Parameter(base.clone()),
        "yes": torch.tensor([True, False]),
        "short": short,
        "short, turned": short[1:].T,
        "short number": torch.tensor(-2.5).bfloat16(),
        **{str(kind): (base * 20).to(kind) for kind in kinds},
    }


@BOTH
@pytest.mark.parametrize("inside", [None, "state_dict"])
def test_what_torch_saves_comes_back(tmp_path: Path, new: bool, inside: str | None) -> None:
    saved: dict[str, Any] = OrderedDict(weights())
    path = tmp_path / "model.safetensors"  # the name says nothing
    whole = saved if inside is None else {inside: saved, "epoch": 3, "callbacks": {}, "lr": [1e-4, {"a": (1, 2)}]}
    torch.save(whole, path, _use_new_zipfile_serialization=new)
    found = read_checkpoint(path)
    assert found.keys() == saved.keys()
    for name, value in saved.items():
        short = value.dtype == torch.bfloat16
        expected = (value.detach().float() if short else value.detach()).numpy()
        ours = computable(found[name])
        assert (found[name].dtype == BFLOAT16) == short
        assert ours.shape == tuple(value.shape), name
        assert np.array_equal(ours, expected) and ours.dtype == expected.dtype, name
    assert np.shares_memory(found["plain"], found["turned"])  # one block, mapped once
    assert np.shares_memory(found["short"], found["short, turned"])
    if inside is not None:
        assert read_torch(path)["lr"] == [1e-4, {"a": (1, 2)}]


@BOTH
def test_a_modules_state_dict_with_its_metadata(tmp_path: Path, new: bool) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "m.bin", _use_new_zipfile_serialization=new)
    found = read_checkpoint(tmp_path / "m.bin")
    assert found.keys() == module.state_dict().keys()
    assert np.array_equal(found["1.running_var"], np.ones(4, np.float32))


def test_torchscript_gives_its_parameters_and_buffers(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), str(tmp_path / "clip.pt"))
    found = read_checkpoint(tmp_path / "clip.pt")
    expected = module.state_dict()
    assert set(expected) <= set(found)
    assert all(np.array_equal(found[name], value.numpy()) for name, value in expected.items())


def test_safetensors_are_told_by_their_content(tmp_path: Path) -> None:
    write(tmp_path / "a.ckpt", {"w": np.arange(3, dtype=np.float32)}, {})
    assert read_checkpoint(tmp_path / "a.ckpt")["w"].tolist() == [0, 1, 2]


def test_safetensors_of_bfloat16_are_the_librarys(tmp_path: Path) -> None:
    """What it reads of ours and we of its."""
    short = torch.tensor([0.0, -2.5, 3.140625, 1e30, 1e-40, float("inf"), float("nan")]).bfloat16()
    save_file({"a": short, "one": short[1].clone()}, tmp_path / "theirs.safetensors")
    found = read_checkpoint(tmp_path / "theirs.safetensors")
    assert found["a"].tobytes() == short.view(torch.int16).numpy().tobytes() and found["a"].dtype == BFLOAT16
    assert computable(found["one"]) == -2.5
    write(tmp_path / "ours.safetensors", found, {})
    again = load_file(tmp_path / "ours.safetensors")
    assert again["one"].shape == () and again["a"].dtype == torch.bfloat16
    assert torch.equal(again["a"].view(torch.int16), short.view(torch.int16))


def test_an_entry_that_says_it_is_huge_is_refused(tmp_path: Path) -> None:
    """Before it is read: zipfile asks for as much memory as the table of contents says."""
    path = tmp_path / "m.pt"
    torch.save({"a": torch.zeros(3)}, path)
    whole = path.read_bytes()
    name = whole.rindex(b"/data.pkl")  # in the table at the end
    begin = whole.rindex(b"PK\x01\x02", 0, name)
    path.write_bytes(whole[: begin + 20] + b"\xf0\xff\xff\xff" + whole[begin + 24 :])
    with pytest.raises(WeightsError, match="its pickle has more than 64 MB"):
        read_checkpoint(path)


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(WeightsError, match=r"it names torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "m.pt")


def test_no_weights_in_it(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "name": "x"}, tmp_path / "m.pt")
    with pytest.raises(WeightsError, match="no weights by name in it; it holds epoch, name"):
        read_checkpoint(tmp_path / "m.pt")
    torch.save(torch.zeros(2), tmp_path / "t.pt")
    with pytest.raises(WeightsError, match="where weights should be"):
        read_checkpoint(tmp_path / "t.pt")


@BOTH
def test_damaged_files_are_refused_or_read_and_never_crash(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "m.pt"
    torch.save(
        {"state_dict": {"a": torch.randn(20, 3), "b": torch.arange(5)}}, path, _use_new_zipfile_serialization=new
    )
    whole, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for turn in range(400):
        content = bytearray(whole)
        if turn % 4 == 0:
            content = content[: rng.randrange(len(whole))]
        else:
            for _ in range(turn % 4):
                content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        try:
            found = read_checkpoint(path)
        except WeightsError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            assert all(isinstance(value, np.ndarray) for value in found.values())
    assert refused > 100
