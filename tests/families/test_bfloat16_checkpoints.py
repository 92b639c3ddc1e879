"""Stable Diffusions stored in bfloat16: the same weights, texts and pictures as of the same numbers in float32, on both engines."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from lora_files import halves, kohya
from safetensors.torch import load_file
from stable_file import opened, single_file
from stable_folder import tiny_folder
from unclip_folders import write_22

from bfloat16_files import twins, widened
from chashka import families, generate
from chashka.checkpoints import write
from chashka.checkpoints.bfloat16 import BFLOAT16
from chashka.errors import WeightsError
from chashka.families import EngineChoice
from chashka.families.kandinsky import published_21
from chashka.families.stable_diffusion import folder, opening
from chashka.families.stable_diffusion.layout import Parts

pytestmark = pytest.mark.torch
BOTH = ("short", "wide")


def saved(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """As torch saves it, or as safetensors."""
    if file.suffix == ".safetensors":
        write(file, tensors, {})
        return
    torch.save({"state_dict": {name: as_tensor(value) for name, value in tensors.items()}}, file)


def as_tensor(value: np.ndarray) -> torch.Tensor:
    if value.dtype != BFLOAT16:
        return torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
    return torch.from_numpy(widened(value)).bfloat16()


def assert_same(short: Parts, wide: Parts) -> None:
    """Weights bit by bit, and that those of bfloat16 were not widened when they were read."""
    assert short.weights.keys() == wide.weights.keys()
    for part, tensors in wide.weights.items():
        assert short.weights[part].keys() == tensors.keys()
        assert any(value.dtype == BFLOAT16 for value in short.weights[part].values())
        for name, value in tensors.items():
            ours = widened(short.weights[part][name])
            assert ours.dtype == value.dtype and ours.tobytes() == value.tobytes(), (part, name)


def said(bundle: Any) -> list[np.ndarray]:
    """What texts, U-Net and decoder say."""
    x, t = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32), np.array([10.0], np.float32)
    text = bundle.text.encode(["a cup"])
    return [text["tokens"], bundle.denoiser.network(x, t, text), bundle.codec.decode(x)]


def assert_all_equal(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("who", "suffix"), [("compvis", ".safetensors"), ("compvis", ".ckpt"), ("stability", ".ckpt"), ("runway", ".ckpt")]
)
def test_a_single_file_has_the_same_weights(
    who: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chashka.families.stable_diffusion.layout.HEAD_WIDTH", 16)
    files = [tmp_path / f"{name}{suffix}" for name in BOTH]
    for file, tensors in zip(files, twins(single_file(who)), strict=True):
        saved(file, tensors)
    short, wide = (opening._read_file(file, 4) for file in files)
    assert_same(short.parts, wide.parts)
    assert short.parts.unet == wide.parts.unet and short.prediction == wide.prediction


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_single_file_draws_the_same(engine: str, tmp_path: Path) -> None:
    """Read again too: OpenVINO then takes the graphs that it has kept."""
    for name, tensors in zip(BOTH, twins(single_file("compvis")), strict=True):
        saved(tmp_path / f"{name}.safetensors", tensors)
    for _ in range(2):
        choice = EngineChoice(engine, precision="f32", cache_dir=tmp_path / "cache")
        short, wide = (opened(tmp_path, f"{name}.safetensors", choice) for name in BOTH)
        assert_all_equal(said(short), said(wide))
    asked = {"prompt": "a cup", "seed": 1, "steps": 2, "width": 64, "height": 64}
    ours, theirs = (generate.draw(bundle, bundle.request(**asked))[0].pixels for bundle in (short, wide))
    np.testing.assert_array_equal(ours, theirs)


def test_a_module_of_bfloat16_reads_the_file_itself(tmp_path: Path) -> None:
    """And says what it said of the numbers in float32, which were cast to it."""
    for name, tensors in zip(BOTH, twins(single_file("compvis")), strict=True):
        saved(tmp_path / f"{name}.safetensors", tensors)
    short, wide = (
        opened(tmp_path, f"{name}.safetensors", EngineChoice("torch", precision="bf16")).denoiser.network.graph
        for name in BOTH
    )
    ours, theirs = (graph.module.state_dict() for graph in (short, wide))
    assert {value.dtype for value in ours.values()} == {torch.bfloat16, torch.float32}
    assert all(torch.equal(value, theirs[name]) and value.dtype == theirs[name].dtype for name, value in ours.items())


def test_averages_are_found(tmp_path: Path) -> None:
    state, prefix = single_file("compvis"), "model.diffusion_model."
    averages = {name: value * 0.75 for name, value in state.items() if name.startswith(prefix)}
    state |= {f"model_ema.{name.removeprefix('model.').replace('.', '')}": value for name, value in averages.items()}
    for name, tensors in zip(BOTH, twins(state), strict=True):
        saved(tmp_path / f"{name}.safetensors", tensors)
        (tmp_path / f"{name}.yaml").write_text("model:\n  use_ema: true\n", encoding="utf-8")
    short, wide = (opening._read_file(tmp_path / f"{name}.safetensors", 4) for name in BOTH)
    assert short.averaged and wide.averaged
    assert_same(short.parts, wide.parts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any, Any]:
    """Of diffusers: (in bfloat16, the same numbers in float32, U-Net, text tower)."""
    whole = tmp_path_factory.mktemp("bfloat16")
    unet, _, text = tiny_folder(whole / "short")
    shutil.copytree(whole / "short", whole / "wide")
    for file in sorted((whole / "short").rglob("*.safetensors")):
        tensors = {name: value.float().numpy() for name, value in load_file(file).items()}
        short, wide = twins(tensors)
        write(file, short, {})
        write(whole / "wide" / file.relative_to(whole / "short"), wide, {})
    return whole / "short", whole / "wide", unet, text


def test_a_folder_of_diffusers_has_the_same_weights(folders: tuple[Path, Path, Any, Any]) -> None:
    short, wide = (folder.read(place) for place in folders[:2])
    assert_same(short.parts, wide.parts)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_loras_and_embeddings_change_the_same(
    engine: str, folders: tuple[Path, Path, Any, Any], tmp_path: Path
) -> None:
    """Of bfloat16 too, alpha included."""
    made = kohya(halves({"unet": folders[2], "text": folders[3]}, 3))
    vectors = {"emb_params": np.random.default_rng(2).normal(0, 0.5, (2, 24)).astype(np.float32)}
    results = []
    for place, lora, embedding in zip(folders[:2], twins(made), twins(vectors), strict=True):
        home = tmp_path / place.name
        write(home / "ink.safetensors", lora, {})
        write(home / "red-cat.safetensors", embedding, {})
        changes: dict[str, Any] = {
            "loras": [(home / "ink.safetensors", 0.5)],
            "embeddings": [home / "red-cat.safetensors"],
        }
        bundle = families.load(str(place), engine=engine, precision="f32", cache_dir=tmp_path / "cache", **changes)
        results.append([*said(bundle), bundle.text.encode(["a red-cat"])["tokens"]])
    plain = said(families.load(str(folders[0]), engine=engine, precision="f32", cache_dir=tmp_path / "cache"))
    assert_all_equal(*results)
    assert not np.array_equal(results[0][1], plain[1]), "they change something"


def test_kandinsky_2_2_draws_the_same(tmp_path: Path) -> None:
    """Joined projections, and the statistics of embeddings, are of bfloat16 too."""
    write_22(tmp_path / "short" / "kandinsky-2.2")
    shutil.copytree(tmp_path / "short", tmp_path / "wide")
    for file in sorted((tmp_path / "short").rglob("*.safetensors")):
        short, wide = twins({name: value.float().numpy() for name, value in load_file(file).items()})
        write(file, short, {})
        write(tmp_path / "wide" / file.relative_to(tmp_path / "short"), wide, {})
    drawn = []
    for name in BOTH:
        bundle = families.load("kandinsky-2.2", engine="torch", precision="f32", models=tmp_path / name)
        request = bundle.request(prompt="cup", seed=2, steps=2, prior_steps=2, width=64, height=64)
        drawn.append(generate.draw(bundle, request)[0].pixels)
    np.testing.assert_array_equal(*drawn)


def test_kandinsky_2_1_has_the_same_statistics(tmp_path: Path) -> None:
    values = [torch.randn(16, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(2)]
    torch.save(values, tmp_path / "stats.th")
    ours = published_21._statistics(tmp_path / "stats.th", 16)
    assert_all_equal(list(ours), [value.float().numpy() for value in values])


def test_numbers_that_are_not_finite_are_told(tmp_path: Path) -> None:
    name = "model.diffusion_model.out.2.weight"
    state = single_file("compvis")
    state[name] = np.full_like(state[name], np.inf)
    saved(tmp_path / "x.safetensors", twins(state)[0])
    bundle = opened(tmp_path, "x.safetensors")
    with pytest.raises(WeightsError, match=rf"x\.safetensors: {name} holds numbers that are not finite"):
        generate.draw(bundle, bundle.request(prompt="a cup", seed=1, steps=1, width=64, height=64))
