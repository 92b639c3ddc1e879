"""Where a run's weights came from: what is known is stored, what is not is left out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from chashka.training import origin

pytestmark = pytest.mark.torch


def test_a_run_knows_its_data_its_parents_and_its_machine(tmp_path: Path) -> None:
    shards, run, start = tmp_path / "shards", tmp_path / "run", tmp_path / "average.safetensors"
    shards.mkdir()
    (shards / origin.MANIFEST).write_bytes(b"pictures")
    start.write_bytes(b"weights")
    origin.begin(run, shards, start, ("unet",), "cpu")
    told = origin.origin(run, 5400.0)
    assert told["data"] == hashlib.sha256(b"pictures").hexdigest()
    assert json.loads(told["parents"]) == [hashlib.sha256(b"weights").hexdigest()]
    assert told["hours"] == "1.500" and "cores of" in told["machine"]
    assert told.keys() <= set(origin.KEYS)


def test_parents_of_a_folder_are_the_components_that_were_taken(tmp_path: Path) -> None:
    for name in ("unet", "decoder"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    origin.begin(tmp_path / "run", tmp_path, tmp_path, ("unet", "text_head"), "cpu")
    told = origin.origin(tmp_path / "run", 0)
    assert json.loads(told["parents"]) == [hashlib.sha256(b"unet").hexdigest()]
    assert "data" not in told


def test_an_older_run_has_its_hours_alone(tmp_path: Path) -> None:
    assert origin.origin(tmp_path, 36.0) == {"hours": "0.010"}


def test_outside_of_a_checkout_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "__file__", str(tmp_path / "origin.py"))
    assert origin.revision() is None
