"""Weights packed for the time until they are shipped, and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chashka.checkpoints.int8 import from_int8, to_int8
from chashka.checkpoints.safetensors_file import read_metadata, read_tensors
from chashka.errors import TrainingError
from chashka.training.parcel import pack, unpack

CHANCE = np.random.default_rng(0)
BEFORE = CHANCE.normal(size=(64, 32, 3, 3)).astype(np.float32)
WEIGHTS = {
    "unet/a.weight": BEFORE + 0.1 * CHANCE.normal(size=BEFORE.shape).astype(np.float32),
    "unet/b.weight": CHANCE.normal(size=(8, 16)).astype(np.float32),
    "unet/new.weight": CHANCE.normal(size=(64, 64)).astype(np.float32),
    "unet/time_embed.0.weight": CHANCE.normal(size=(64, 64)).astype(np.float32),
    "text_head/ln.bias": CHANCE.normal(size=200).astype(np.float32),
}
MATRICES = ("unet/a.weight", "unet/b.weight", "unet/new.weight")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that has the first matrix as it was before, and another."""
    (tmp_path / "base").mkdir()
    save_file({"a.weight": BEFORE, "gone.weight": BEFORE}, tmp_path / "base" / "unet.safetensors")
    return tmp_path / "base"


@pytest.fixture
def average(tmp_path: Path) -> Path:
    save_file(WEIGHTS, tmp_path / "average.safetensors", {"recipe": "{}"})
    return tmp_path / "average.safetensors"


def test_weights_come_back_as_int8_has_them(average: Path, base: Path, tmp_path: Path) -> None:
    parcel, back = tmp_path / "parcel.xz", tmp_path / "back" / "average.safetensors"
    pack(average, parcel, base)
    unpack(parcel, back, base)
    assert read_metadata(back) == {"recipe": "{}"}
    found = read_tensors(back)
    assert found.keys() == WEIGHTS.keys() and all(value.dtype == np.float32 for value in found.values())
    for name, value in WEIGHTS.items():
        wanted = from_int8(*to_int8(value)) if name in MATRICES else value.astype(np.float16)
        assert np.array_equal(found[name], wanted), name
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_near_its_base_is_small(average: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, folder in (("near", base), ("alone", tmp_path / "empty")):
        pack(average, tmp_path / name, folder)
    near, alone = ((tmp_path / name).stat().st_size for name in ("near", "alone"))
    assert near < 0.9 * alone


def test_the_command(average: Path, base: Path, tmp_path: Path) -> None:
    for words in (["pack", average, tmp_path / "p.xz", base], ["unpack", tmp_path / "p.xz", tmp_path / "back", base]):
        subprocess.run([sys.executable, "-m", "chashka.training.parcel", *words], check=True)
    assert read_tensors(tmp_path / "back").keys() == WEIGHTS.keys()


def test_other_weights_beside_it_are_an_error(average: Path, base: Path, tmp_path: Path) -> None:
    pack(average, tmp_path / "parcel.xz", base)
    save_file({"a.weight": BEFORE + 1}, base / "unet.safetensors")
    with pytest.raises(TrainingError, match="packed beside other weights"):
        unpack(tmp_path / "parcel.xz", tmp_path / "back", base)


def test_what_is_no_parcel_is_an_error(base: Path, tmp_path: Path) -> None:
    (tmp_path / "parcel.xz").write_bytes(b"weights")
    for name in ("parcel.xz", "gone.xz"):
        with pytest.raises(TrainingError, match="is no parcel"):
            unpack(tmp_path / name, tmp_path / "back", base)
