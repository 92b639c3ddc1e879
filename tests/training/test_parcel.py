"""Weights packed for the time until they are shipped, and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from chashka.checkpoints.safetensors_file import read_metadata, read_tensors
from chashka.errors import TrainingError
from chashka.training.parcel import LEVELS, pack, unpack


def test_weights_come_back_nearly_as_they_were(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    weights = {
        "unet/a.weight": chance.normal(size=(64, 32, 3, 3)).astype(np.float32),
        "unet/b.weight": chance.normal(size=(8, 16)).astype(np.float32),
        "text_head/ln.bias": chance.normal(size=200).astype(np.float32),
    }
    save_file(weights, tmp_path / "average.safetensors", {"recipe": "{}"})
    pack(tmp_path / "average.safetensors", tmp_path / "parcel.xz")
    assert (tmp_path / "parcel.xz").stat().st_size < 64 * 32 * 9, "less than a byte for each, scales and names with it"
    for attempt in ("one", "two"):  # the command, too
        words = ["unpack", tmp_path / "parcel.xz", tmp_path / attempt / "average.safetensors"]
        if attempt == "one":
            unpack(*words[1:])
        else:
            subprocess.run([sys.executable, "-m", "chashka.training.parcel", *words], check=True)
        back = read_tensors(tmp_path / attempt / "average.safetensors")
        assert read_metadata(tmp_path / attempt / "average.safetensors") == {"recipe": "{}"}
        assert back.keys() == weights.keys() and all(value.dtype == np.float32 for value in back.values())
        a = weights["unet/a.weight"].reshape(64, -1)
        off = np.abs(back["unet/a.weight"].reshape(64, -1) - a)
        assert 0 < off.mean() < 0.26 * (np.abs(a).max() / LEVELS)
        for name in ("unet/b.weight", "text_head/ln.bias"):
            assert np.array_equal(back[name], weights[name].astype(np.float16).astype(np.float32))
    assert not list(tmp_path.rglob("*.part"))


def test_what_is_no_parcel_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "parcel.xz").write_bytes(b"weights")
    with pytest.raises(TrainingError, match="is no parcel"):
        unpack(tmp_path / "parcel.xz", tmp_path / "average.safetensors")
    with pytest.raises(TrainingError, match="is no parcel"):
        unpack(tmp_path / "gone.xz", tmp_path / "average.safetensors")
