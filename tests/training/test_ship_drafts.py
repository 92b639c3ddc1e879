"""A change for few steps goes into the package beside the U-Net that it changes, and drafts are drawn with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from little import RUN, UNET, frozen
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from chashka import families
from chashka.checkpoints import read_metadata
from chashka.errors import TrainingError
from chashka.generate import draw
from chashka.training import stages
from chashka.training.recipes import DistilRecipe
from chashka.training.ship import Finished, ship

pytestmark = pytest.mark.torch

FEW = DistilRecipe(run=RUN, network=UNET.network, head=UNET.head, paths=2, teacher_steps=4, rank=4, fast_steps=3)


@pytest.fixture(scope="module")
def change(runs: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the stage, its change made a thousand times as large: four steps move next to nothing."""
    run = tmp_path_factory.mktemp("few")
    stages.train(FEW, shards, run, frozen=frozen(runs) | {"unet": runs / "unet" / stages.AVERAGE})
    file = run / stages.AVERAGE
    with safe_open(file, framework="pt") as opened:
        told = dict(opened.metadata())
    save_file({k: 1e3 * v if k.endswith(".up") else v for k, v in load_file(file).items()}, file, told)
    return file


@pytest.fixture(scope="module")
def finished(runs: Path, change: Path) -> Finished:
    known = frozen(runs)
    latents = change.parent / "features" / "latents.safetensors"
    unet = runs / "unet" / stages.AVERAGE
    return Finished(known["autoencoder"], known["clip"], known["t5"], unet, latents, fast=change)


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacups") / "small"
    assert ship(finished, out, {"fast": "int8"})[-1] == out / "fast.safetensors"
    words = "\n".join(f"{piece}\t-3.0" for piece in "abcdefghijklmnop,")
    (out / "vocabulary.tsv").write_text(words + "\n", encoding="utf-8")  # the rest are bytes: 300 ids are enough
    return out


def test_how_is_usually_drawn_may_be_said_otherwise_than_by_the_recipe(finished: Finished, tmp_path: Path) -> None:
    said = []
    for name, given in {"recipe": {}, "other": {"sampler": "euler_a", "guidance": 2.5}}.items():
        ship(replace(finished, **given), tmp_path / name)  # type: ignore[arg-type]
        said.append(json.loads(read_metadata(tmp_path / name / "unet.safetensors")["defaults"]))
    steps = {"steps": UNET.draw_steps}
    assert said[0] == steps | {"sampler": UNET.draw_sampler, "guidance_scale": UNET.draw_guidance}
    assert said[1] == steps | {"sampler": "euler_a", "guidance_scale": 2.5} and UNET.draw_guidance != 2.5


def test_an_exported_unet_keeps_how_it_draws_but_for_what_is_said(
    finished: Finished, exported: Path, tmp_path: Path
) -> None:
    whole = Finished(exported, exported, exported, exported)
    usual = json.loads(read_metadata(exported / "unet.safetensors")["defaults"])
    for name, given in {"same": {}, "other": {"guidance": 0.0}}.items():
        ship(replace(whole, **given), tmp_path / name)  # type: ignore[arg-type]
        drawn = json.loads(read_metadata(tmp_path / name / "unet.safetensors")["defaults"])
        assert drawn == (usual | {"guidance_scale": 0.0} if given else usual)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_drafts_are_drawn_with_the_change_and_other_pictures_are_not(exported: Path, engine: str) -> None:
    bundle = families.load(str(exported), engine=engine, device="cpu", precision="f32")
    assert dict(bundle.fast) == {"steps": 3, "guidance_scale": 1.0, "sampler": "euler"}
    settings = {"prompt": "abc", "seed": 1, "width": 64, "height": 64}
    (draft,) = draw(bundle, bundle.request(**settings, fast=True))
    assert (draft.request.steps, draft.request.guidance_scale, draft.request.sampler) == (3, 1.0, "euler")
    (usual,) = draw(bundle, bundle.request(**settings, **bundle.fast))
    assert not np.array_equal(draft.pixels, usual.pixels)
    (exported / "fast.safetensors").rename(exported / "away")
    try:
        without = families.load(str(exported), engine=engine, device="cpu", precision="f32")
        (plain,) = draw(without, without.request(**settings, **bundle.fast))
        np.testing.assert_array_equal(plain.pixels, usual.pixels)
        assert without.fast["steps"] == 8, "the U-Net's own quick settings"
    finally:
        (exported / "away").rename(exported / "fast.safetensors")


def test_an_export_of_the_exported_is_the_same(exported: Path, tmp_path: Path) -> None:
    ship(Finished(*[exported] * 4, fast=exported), tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (exported / file.name).read_bytes(), file.name
    metadata = read_metadata(tmp_path / "fast.safetensors")
    assert metadata["precision"] == "int8" and metadata["base"] == "unet" and "distil" in metadata["recipe"]


def test_a_change_of_another_network_is_refused(runs: Path, finished: Finished, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    unet = runs / "unet" / stages.AVERAGE
    with safe_open(unet, framework="pt") as opened:
        save_file({k: v + 0.01 for k, v in load_file(unet).items()}, other, dict(opened.metadata()))
    with pytest.raises(TrainingError, match="learnt beside another U-Net"):
        ship(replace(finished, unet=other), tmp_path / "out")
    with pytest.raises(TrainingError, match="not of the stage distil"):
        ship(replace(finished, fast=runs / "unet" / stages.AVERAGE), tmp_path / "out")
