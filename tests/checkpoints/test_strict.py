"""Strict loading into modules on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bfloat16_files import as_bfloat16
from chashka.checkpoints import GRAPH_TENSOR, load_strict, read_tensors, write
from chashka.checkpoints.safetensors_file import forget
from chashka.errors import WeightsError

pytestmark = pytest.mark.torch


def small() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def arrays(dtype: type = np.float16) -> dict[str, Any]:
    torch.manual_seed(0)
    state = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).state_dict()
    return {k: v.numpy().astype(dtype) if v.is_floating_point() else v.numpy() for k, v in state.items()}


def test_half_files_load_into_float32_modules(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write(path, arrays() | {GRAPH_TENSOR: np.zeros(8, np.uint8)}, {})
    module = small()
    load_strict(module, read_tensors(path), path)
    for name, value in module.state_dict().items():
        assert not value.is_meta
        np.testing.assert_array_equal(value.numpy(), arrays()[name].astype(value.numpy().dtype))
    assert module[0].weight.dtype == torch.float32  # type: ignore[union-attr]
    assert module.eval()(torch.ones(1, 3)).shape == (1, 2)


def mapped(kind: str = "RssFile:") -> int:
    """MiB of mapped files that are in this process's memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) >> 10


def held() -> int:
    """MiB of its own."""
    return mapped("RssAnon:")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what of a file is in memory")
def test_what_was_cast_does_not_stay_in_memory_twice(tmp_path: Path) -> None:
    path, size = tmp_path / "w.safetensors", 4096
    random = np.random.default_rng(0)
    stored = {n: random.integers(-99, 99, (size, size)).astype(np.float16) for n in ("0.weight", "1.weight")}
    write(path, stored, {})
    tensors, before = read_tensors(path), mapped()
    assert float(tensors["0.weight"].sum(dtype=np.float32)) and mapped() >= before + 30, "32 MiB were read"
    with torch.device("meta"):
        module = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(2)))
    load_strict(module, tensors, path)
    assert mapped() < before + 4
    for name, value in stored.items():
        np.testing.assert_array_equal(tensors[name], value, err_msg="what is touched again is read again")


def test_arrays_of_no_mapping_are_left_alone() -> None:
    array = np.ones((2048, 2048), np.float16)
    forget(array)
    forget(array[:, ::2])
    assert bool((array == 1).all())


def test_nothing_is_copied_where_dtypes_agree() -> None:
    given = arrays(np.float32)
    module = small()
    load_strict(module, given, "w")
    assert module.state_dict()["0.weight"].data_ptr() == given["0.weight"].ctypes.data


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_bfloat16_becomes_what_the_module_has(dtype: torch.dtype, tmp_path: Path) -> None:
    """The numbers that torch itself makes of it, and the mapped file where the module has that type too."""
    path = tmp_path / "w.safetensors"
    write(path, {n: as_bfloat16(v) if v.dtype.kind == "f" else v for n, v in arrays(np.float32).items()}, {})
    given, module = read_tensors(path), small().to(dtype)
    load_strict(module, given, path)
    for name, value in module.state_dict().items():
        theirs = load_file(path)[name]
        assert value.dtype == (dtype if theirs.is_floating_point() else theirs.dtype)
        assert torch.equal(value, theirs.to(value.dtype))
        assert (value.data_ptr() == given[name].ctypes.data) == (value.dtype == theirs.dtype), name


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what of a file is in memory")
def test_bfloat16_is_widened_one_tensor_at_a_time(tmp_path: Path) -> None:
    """A file of 64 MiB takes at most its 128 MiB as float32, and nothing where the module has bfloat16."""
    path, size, count = tmp_path / "w.safetensors", 1024, 32
    one = as_bfloat16(np.random.default_rng(0).standard_normal((size, size)))
    write(path, {f"{i}.weight": one for i in range(count)}, {})
    before = held()
    tensors = read_tensors(path)
    assert held() < before + 4, "reading it takes nothing"
    with torch.device("meta"):
        short, wide = (nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(count))) for _ in range(2))
    load_strict(short.bfloat16(), tensors, path)
    assert held() < before + 4, "nor does a module of bfloat16"
    load_strict(wide, tensors, path)
    assert held() < before + 140


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("0.bias"), r"1 missing: 0\.bias.*incomplete"),
        (lambda a: a.update(extra=np.zeros(1)), r"1 unexpected: extra.*another network"),
        (lambda a: a.update({"2.bias": np.zeros(3)}), r"1 of another shape: 2\.bias \(3,\) instead of \(2,\).*config"),
        (lambda a: [a.update({f"model.{k}": a.pop(k)}) for k in list(a)], r"prefix 'model\.'"),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    given = arrays()
    change(given)
    with pytest.raises(WeightsError, match=message) as caught:
        load_strict(small(), given, "some.safetensors")
    assert str(caught.value).startswith("some.safetensors does not fit Sequential")
    assert "\n" not in str(caught.value)


def test_values_that_no_file_stores_are_refused() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 2)
        module.register_buffer("table", torch.zeros(3), persistent=False)
    with pytest.raises(WeightsError, match="table"):
        load_strict(module, {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}, "w")
