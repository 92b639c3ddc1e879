"""Where a run's weights came from: what is known is stored, what is not is left out."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from chashka.training import bundle, origin
from chashka.training.recipes import (
    AutoencoderRecipe,
    ContrastiveRecipe,
    DistilRecipe,
    JudgeRecipe,
    PictureRecipe,
    Recipe,
    T5Recipe,
    UNetRecipe,
    UpscaleRecipe,
)

pytestmark = pytest.mark.torch


def test_a_run_knows_its_data_its_parents_and_its_machine(tmp_path: Path) -> None:
    shards, run, start = tmp_path / "shards", tmp_path / "run", tmp_path / "average.safetensors"
    shards.mkdir()
    (shards / origin.MANIFEST).write_bytes(b"pictures")
    start.write_bytes(b"weights")
    origin.begin(run, shards, [(start, ("unet",))], "cpu")
    told = origin.origin(run, 5400.0)
    assert told["data"] == hashlib.sha256(b"pictures").hexdigest()
    assert json.loads(told["parents"]) == [hashlib.sha256(b"weights").hexdigest()]
    assert told["hours"] == "1.500" and "cores of" in told["machine"]
    assert told.keys() <= set(origin.KEYS)


def test_parents_of_a_folder_are_the_components_that_were_taken(tmp_path: Path) -> None:
    for name in ("unet", "decoder"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    origin.begin(tmp_path / "run", tmp_path, [(tmp_path, ("unet", "text_head"))], "cpu")
    told = origin.origin(tmp_path / "run", 0)
    assert json.loads(told["parents"]) == [hashlib.sha256(b"unet").hexdigest()]
    assert "data" not in told


def test_tables_and_frozen_weights_are_known_by_name(tmp_path: Path) -> None:
    for name in ("captions.safetensors", "scenes.safetensors", "encoder.safetensors", "clip.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    frozen = {"clip": tmp_path / "clip.safetensors", "autoencoder": tmp_path, "t5": tmp_path / "gone"}
    origin.begin(tmp_path / "run", tmp_path, [], "cpu", ("captions",), frozen)
    told = origin.origin(tmp_path / "run", 0)
    assert told["captions"] == hashlib.sha256(b"captions.safetensors").hexdigest()
    assert "scenes" not in told
    expected = {"autoencoder/encoder": b"encoder.safetensors", "clip": b"clip.safetensors"}
    assert json.loads(told["frozen"]) == {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}


@pytest.mark.parametrize(
    ("recipe", "tables"),
    [
        (AutoencoderRecipe(), ()),
        (UpscaleRecipe(), ()),
        (T5Recipe(), ("captions",)),
        (PictureRecipe(), ("captions",)),
        (ContrastiveRecipe(), ("captions",)),
        (ContrastiveRecipe(sentences=0.5), ("captions", "scenes")),
        (T5Recipe(sentences=0.5), ("captions", "scenes")),
        (ContrastiveRecipe(kept=1.0), ("captions", "scenes")),
        (UNetRecipe(), ("captions",)),
        (UNetRecipe(scenes=0.4), ("captions", "scenes")),
        (DistilRecipe(scenes=0.4), ("captions", "scenes")),
        (JudgeRecipe(), ("scenes",)),
    ],
)
def test_a_recipe_says_which_tables_its_run_reads(recipe: Recipe, tables: tuple[str, ...]) -> None:
    assert origin.tables_of(recipe) == tables


def test_an_older_run_has_its_hours_alone(tmp_path: Path) -> None:
    assert origin.origin(tmp_path, 36.0) == {"hours": "0.010"}


def test_outside_of_a_checkout_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "__file__", str(tmp_path / "origin.py"))
    assert origin.revision() is None


def test_a_bundle_knows_the_commit_that_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it runs on a machine without git: from the zip, by another interpreter."""
    monkeypatch.setattr(bundle, "revision", lambda: "abc123+")
    names = bundle.write_bundle(tmp_path / "bundle.zip")
    assert f"chashka/training/{origin.PACKED_REVISION}" in names
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'bundle.zip')!r})\n"
    code += "from chashka.training import origin\nprint(origin.__file__, origin.revision(), sep='\\n')"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env={"PATH": ""})
    assert result.returncode == 0, result.stderr
    where, found = result.stdout.split("\n")[:2]
    assert where.startswith(str(tmp_path)) and found == "abc123+"


def test_a_bundle_made_outside_of_a_checkout_knows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "revision", lambda: None)
    assert not [name for name in bundle.write_bundle(tmp_path / "bundle.zip") if name.endswith(origin.PACKED_REVISION)]
