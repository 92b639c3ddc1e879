"""The upscaler's stage on a handful of made pictures: it trains, resumes, measures, and its weights enlarge as a command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from chashka import enlarge, families, images
from chashka.cli import main
from chashka.data.shards import Labels, Record, pack, write_shard
from chashka.engines.export import export_component
from chashka.errors import TrainingError
from chashka.families.kandinsky import TEACUP
from chashka.families.kandinsky.opening import COMPONENTS
from chashka.nets.configs import AutoencoderConfig, UpscalerConfig
from chashka.training import stages
from chashka.training.components import metadata_of, recipe_of
from chashka.training.loop import generator
from chashka.training.pictures import load_pictures, to_network
from chashka.training.recipes import AutoencoderRecipe, Optimiser, Run, UpscaleRecipe
from chashka.training.ship import Finished, _parts, provenance, upscaler_part
from chashka.training.upscale import BLUR, UpscaleTask, bicubic, blurred, lanczos, looked_at

pytestmark = pytest.mark.torch

RUN = Run(batch=6, steps=4, log_every=2, save_minutes=9.0, look_minutes=9.0, optimiser=Optimiser(warmup_steps=1))
RECIPE = UpscaleRecipe(run=RUN, network=UpscalerConfig(width=8, blocks=1), crop=16)
AUTOENCODER = AutoencoderRecipe(
    run=RUN,
    network=AutoencoderConfig(
        4, 4, 16, (1, 1, 1), 1, 16, 16, (1, 1, 1), 0, stem=4, shortcuts=True, mid_attention=False, norm_groups=4
    ),
    crop=32,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 discs with soft edges, of 64×64 pixels."""
    folder = tmp_path_factory.mktemp("shards")
    y, x = np.mgrid[:64, :64]
    records = []
    for i in range(60):
        cover = np.clip(18.5 - np.hypot(y - 32, x - 20 - i / 3), 0, 1)[..., None]
        pixels = np.rint(cover * (255 * (i % 3 == 0), 200 * (i % 3 == 1), 90, 255)).astype(np.uint8)
        records.append(Record(f"made:{i}", "made", 0, 0, 0, 1.0, pack(pixels)))
    write_shard(folder / "pictures-000.safetensors", records, Labels(("a",), ("flat",), ("things",)), 64)
    return folder


@pytest.fixture(scope="module")
def autoencoder(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    stages.train(AUTOENCODER, shards, folder)
    return folder / stages.AVERAGE


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_it_leaves_weights_figures_and_a_sheet(shards: Path, tmp_path: Path) -> None:
    stages.train(RECIPE, shards, tmp_path)
    assert recipe_of(tmp_path / stages.AVERAGE, "upscaler") == RECIPE
    held = lines(tmp_path)[-1]["held_out"]
    assert set(held) == {"network_psnr_white", "bicubic_psnr_white", "lanczos_psnr_white", "alpha_iou"}
    assert all(20 < held[f"{way}_psnr_white"] < 60 for way in ("network", "bicubic", "lanczos"))
    assert list(tmp_path.glob("look-*.png"))


def test_a_run_in_two_slices_is_the_same_run(shards: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stages.train(RECIPE, shards, whole)
    stages.train(RECIPE, shards, cut, minutes=0.0)
    assert not [line for line in lines(cut) if "loss" in line]
    stages.train(RECIPE, shards, cut)
    a, b = load_file(whole / stages.AVERAGE), load_file(cut / stages.AVERAGE)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert bool(a["upscaler/conv_out.weight"].any()), "it has learned something"


def test_it_learns_to_beat_interpolation(shards: Path, tmp_path: Path) -> None:
    optimiser = Optimiser(lr=4e-3, warmup_steps=5, ema_rel=0.05, weight_decay=0.0)
    run = replace(RUN, batch=8, steps=300, log_every=100, optimiser=optimiser)
    recipe = replace(RECIPE, run=run, network=UpscalerConfig(width=12, blocks=1), degraded=0.0, ground=0.0)
    stages.train(recipe, shards, tmp_path)
    held = lines(tmp_path)[-1]["held_out"]
    assert held["network_psnr_white"] > 0.5 + max(held["bicubic_psnr_white"], held["lanczos_psnr_white"])


def test_the_autoencoder_s_pictures_join_where_it_is_given(shards: Path, autoencoder: Path, tmp_path: Path) -> None:
    frozen = {"autoencoder": autoencoder}
    stages.train(RECIPE, shards, tmp_path, frozen=frozen)
    held = lines(tmp_path)[-1]["held_out"]
    assert held["decoded_bicubic_psnr_white"] < held["bicubic_psnr_white"]
    kept, pictures = load_file(tmp_path / "features" / "decoded.safetensors"), load_pictures(shards)
    assert kept["pixels"].shape == (len(kept["rows"]), 4, 32, 32) and 20 < len(kept["rows"]) < 45
    assert set(looked_at(pictures).tolist()) <= set(kept["rows"].tolist())
    assert bool((kept["pixels"][:, :3] <= kept["pixels"][:, 3:]).all())
    written = (tmp_path / "features" / "decoded.safetensors").stat().st_mtime_ns
    stages.train(RECIPE, shards, tmp_path, frozen=frozen)
    assert (tmp_path / "features" / "decoded.safetensors").stat().st_mtime_ns == written, "computed once"
    # what is seen in place of a halved drawing is its worn half, at the same place
    task = UpscaleTask(replace(RECIPE, degraded=1.0, ground=0.0, crop=32), pictures, "cpu", kept)
    task.train_rows, task.chance_of_row = kept["rows"][:1], torch.ones(1)
    seen, wanted = task._crops(generator(0, 0))
    worn, picture = to_network(kept["pixels"][:1]), to_network(pictures.pixels[kept["rows"][:1]])
    flips = [(), (-1,), (-2,), (-1, -2)]
    assert float((seen[0] + 1).mean()) == pytest.approx(
        float((worn[0] + 1).mean()), rel=0.2
    )  # grounds change the light
    assert all(any(torch.equal(w[3:], picture[0].flip(axes)[3:]) for axes in flips) for w in wanted)
    assert all(any(torch.equal(s[3:], worn[0].flip(axes)[3:]) for axes in flips) for s in seen)


def test_what_is_seen_is_half_of_what_is_wanted(shards: Path) -> None:
    task = UpscaleTask(replace(RECIPE, degraded=0.0, ground=0.5), load_pictures(shards), "cpu")
    seen, wanted = task._crops(generator(3, 1))
    assert seen.shape == (6, 4, 16, 16) and wanted.shape == (6, 4, 32, 32)
    halved = F.avg_pool2d(wanted, 2)
    assert torch.allclose(halved[:, 3:], seen[:, 3:], atol=1e-5)
    assert float((halved - seen).abs().mean()) < 5e-3  # lighter colours are cut off at their alpha, which is not linear
    opaque = [bool((p[3] == 1).all()) for p in seen]
    assert any(opaque) and opaque == [bool((p[3] == 1).all()) for p in wanted], "the same ground behind both"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"crop": 4}, "crop is 4; allowed: 8"),
        ({"decoded": 1.5}, "decoded is 1.5"),
        ({"ground": -1.0}, "ground is -1.0"),
    ],
)
def test_impossible_recipes_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        replace(RECIPE, **fields)


def test_crops_larger_than_the_pictures_are_refused(shards: Path) -> None:
    with pytest.raises(TrainingError, match="crop is 33; pictures at half their size have 32"):
        UpscaleTask(replace(RECIPE, crop=33), load_pictures(shards), "cpu")


def test_interpolation_is_pillow_s() -> None:
    plane = np.random.default_rng(0).random((20, 32), dtype=np.float32)
    with torch.no_grad():
        for own, method in ((lanczos, Image.Resampling.LANCZOS), (bicubic, None)):
            found = own(torch.from_numpy(plane)[None, None])[0, 0].numpy()
            assert found.shape == (40, 64)
            if method is not None:
                assert np.abs(found - images.pixels.resize_plane(plane, 64, 40, method)).max() < 1e-5


def test_blur_keeps_flat_colours_and_softens_edges() -> None:
    flat = torch.full((4, 6, 6), 0.3)
    assert torch.allclose(blurred(flat, BLUR), flat)
    edge = torch.cat([torch.zeros(4, 6, 3), torch.ones(4, 6, 3)], 2)
    assert float(blurred(edge, BLUR)[0, 3, 2]) == pytest.approx(BLUR / 3)


# Into a model


def model_with(weights: Path, folder: Path) -> Path:
    """A copy of the shipped model, and beside its components the upscaler of a run."""
    torch.set_num_threads(1)
    shutil.copytree(TEACUP.folder, folder)
    part = upscaler_part(weights)
    export_component(
        part.module, part.name, part.inputs, list(part.inputs), part.outputs, folder, provenance(weights, "")
    )
    return folder


@pytest.fixture(scope="module")
def untrained(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose last layer is still zero: they enlarge bicubically."""
    folder = tmp_path_factory.mktemp("untrained")
    stages.train(RECIPE, shards, folder, minutes=0.0)
    return folder / stages.AVERAGE


@pytest.fixture(scope="module")
def model(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_with(untrained, tmp_path_factory.mktemp("model") / "mine")


def test_the_export_has_one_component_more(untrained: Path, model: Path, tmp_path: Path) -> None:
    parts = _parts(Finished(*[TEACUP.folder] * 4, upscaler=untrained))
    assert [part.name for part in parts] == [*COMPONENTS, "upscaler"]
    assert (parts[-1].outputs, list(parts[-1].inputs)) == (["enlarged"], ["pixels"])
    metadata = metadata_of(model, "upscaler")
    assert (metadata["class"], metadata["precision"]) == ("nets.upscaler:Upscaler", "fp16")
    assert upscaler_part(model).module.cfg == RECIPE.network  # goes through another export as it is
    shutil.copy(model / "decoder.safetensors", tmp_path / "upscaler.safetensors")
    with pytest.raises(TrainingError, match="not of the stage upscale"):
        upscaler_part(tmp_path)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_both_engines_enlarge_a_picture(
    model: Path, engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.zeros((40, 72, 4), np.uint8)
    pixels[8:30, 10:60] = (200, 30, 90, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    words = ["upscale", tmp_path / "a.png", "--model", model, "--engine", engine, "--out", tmp_path / "b.png"]
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, words), "--device", "cpu", "--precision", "f32"])
    assert not stopped.value.code, capsys.readouterr().err
    found = images.read(tmp_path / "b.png")
    plain = bicubic(torch.from_numpy(images.to_network(pixels))[None]).clamp(-1, 1)
    plain[:, :3] = torch.minimum(plain[:, :3], plain[:, 3:])
    wanted = images.from_network(plain[0].numpy())
    assert found.shape == (80, 144, 4)
    assert np.abs(images.to_network(found) - images.to_network(wanted)).max() <= 0.02


def test_tiles_of_a_network_equal_the_whole(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, run=replace(RUN, steps=12))
    stages.train(recipe, shards, tmp_path / "run")
    folder = model_with(tmp_path / "run" / stages.AVERAGE, tmp_path / "mine")
    bundle = families.load(str(folder), precision="f32", threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (150, 90, 4), dtype=np.uint8)
    whole = enlarge.upscale(bundle, pixels)
    monkeypatch.setattr(enlarge, "TILE", 64)
    tiled = enlarge.upscale(bundle, pixels)
    assert np.abs(images.to_network(whole) - images.to_network(tiled)).max() <= 2.1 / 255
