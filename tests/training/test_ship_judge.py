"""A judge's run becomes a component that any engine opens, and says of pictures what the trained network says."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from chashka.cli import main
from chashka.data.composed_words import EMOJI
from chashka.engines import open_engine
from chashka.errors import TrainingError
from chashka.evaluation.detector import TrainedDetector
from chashka.nets.configs import JudgeConfig
from chashka.nets.judge import JudgeNet
from chashka.training.judge import read
from chashka.training.recipes import JudgeRecipe
from chashka.training.ship_judge import ship_judge

pytestmark = pytest.mark.torch
CONFIG = JudgeConfig(len(EMOJI), side=64, width=16, blocks=1)
TOLD = {
    "emoji": json.dumps(list(EMOJI)),
    "threshold": "0.3",
    "strict": "0.5",
    "tested": "384",
    "precision": "0.9",
    "recall": "0.8",
    "counts": "0.7",
    "scenes": "0.6",
}


def average(folder: Path, **changed: str) -> tuple[Path, JudgeNet]:
    """What a run leaves, of a network that says different things in different places."""
    torch.manual_seed(0)
    network = JudgeNet(CONFIG).eval()
    recipe = asdict(replace(JudgeRecipe(), network=CONFIG))
    path = folder / "average.safetensors"
    weights = {f"judge/{name}": value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, path, {"recipe": json.dumps(recipe), "step": "5", **TOLD, **changed})
    return path, network


def test_the_component_says_what_the_network_says(tmp_path: Path) -> None:
    path, network = average(tmp_path)
    weights = ship_judge(path, tmp_path / "one", "fp16")
    assert weights.read_bytes() == ship_judge(path, tmp_path / "two", "fp16").read_bytes()
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 4, 128, 128)).astype(np.float32)
    judge = TrainedDetector(tmp_path / "one", open_engine("openvino", precision="f32", threads=1))
    small = torch.from_numpy(pixels.reshape(3, 4, 64, 2, 64, 2).mean((3, 5)))
    with torch.no_grad():
        seen = network(small)
    for ours, theirs in zip(judge.look(pixels), read(seen), strict=True):
        assert ours.heat.shape == (len(EMOJI) + 1, 16, 16)
        for name in ("heat", "box", "mask"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=2e-3)
    np.testing.assert_allclose(judge.features(pixels), seen.features.numpy(), atol=2e-3)
    about = judge.about
    assert (about.name, about.threshold, about.strict, about.tested, about.scenes) == ("one", 0.3, 0.5, 384, 0.6)
    assert "twemoji" in about.sources


def test_int8_is_half_as_large_and_nearly_the_same(tmp_path: Path) -> None:
    path, _ = average(tmp_path)
    sizes = [ship_judge(path, tmp_path / kind, kind).stat().st_size for kind in ("fp16", "int8")]
    assert sizes[1] < 0.65 * sizes[0]
    engine = open_engine("torch", device="cpu")
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 4, 64, 64)).astype(np.float32)
    wide, small = (TrainedDetector(tmp_path / kind, engine).look(pixels) for kind in ("fp16", "int8"))
    gaps = [np.abs(a.box - b.box).max() for a, b in zip(wide, small, strict=True)]
    assert 0 < max(gaps) < 0.1


def test_what_is_no_measured_judge_is_refused(tmp_path: Path) -> None:
    path, _ = average(tmp_path, recipe=json.dumps({"stage": "upscale"}))
    with pytest.raises(TrainingError):
        ship_judge(path, tmp_path / "out")
    path, _ = average(tmp_path, emoji=json.dumps(["1f431"]))
    folder = ship_judge(path, tmp_path / "out").parent
    with pytest.raises(TrainingError, match="knows other things than this grammar"):
        TrainedDetector(folder, open_engine("openvino", precision="f32", threads=1))


def test_the_command_writes_a_judge_alone(tmp_path: Path) -> None:
    path, _ = average(tmp_path)
    words = ["export", "--judge", str(path), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["judge.safetensors", "judge.xml"]
    for more, said in (
        (["--unet", str(path)], "unet: belongs to a model"),
        (["--precision", "unet=int8"], "precision"),
    ):
        result = CliRunner().invoke(main, words + more)
        assert result.exit_code == 2 and said in result.output, result.output
    result = CliRunner().invoke(main, words[:3])
    assert result.exit_code == 2 and "--out" in result.output
