"""A tiny Stable Diffusion is calibrated from end to end, and then drawn with in int8, if it held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stable_file import opened

from chashka import families
from chashka.engines import quantised
from chashka.engines.runtime import openvino
from chashka.errors import EngineError, InputError, UncalibratedError
from chashka.evaluation import calibration
from chashka.families import EngineChoice
from chashka.generate import draw

pytestmark = [pytest.mark.torch, pytest.mark.extra]

FIELDS = {"steps": 2, "width": 64, "height": 64, "sampler": "ddim"}


def test_from_a_checkpoint_to_a_drawing_in_int8(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "compvis.safetensors"
    choices = [EngineChoice("openvino", precision=kind, threads=1, cache_dir=tmp_path) for kind in ("f32", "w8a8")]
    plain = opened(checkpoints, name, choices[0])
    with pytest.raises(UncalibratedError):
        opened(checkpoints, name, choices[1])
    monkeypatch.setattr(quantised, "ALLOWED", 1e9)  # random weights may fail, and are drawn with all the same
    monkeypatch.setattr(calibration, "PAIRS", 5)
    report, file = calibration.calibrate(plain, tmp_path, ["a cup", "a boat"], 3, **FIELDS)
    assert file == quantised.home(tmp_path, report.weights_sha256) / "report.json"
    assert report.calls == 2 and 0 < report.layers[0] < report.layers[1] and report.ratio > 0
    assert len(report.levels) == 2 and all(level.drift > 0 and level.added > 0 for level in report.levels)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []
    graph = openvino().Core().read_model(str(file.with_name("unet.xml")))
    products = [node for node in graph.get_ops() if node.get_type_name() == "MatMul"]
    read = [node.input_value(0).get_node().get_type_name() for node in products]
    widening = quantised.chosen_products(openvino().Core().read_model(str(plain.denoiser.network.graph.path)))
    assert read.count("FakeQuantize") == len(widening) > 0, "what was chosen takes int8 activations"
    small = opened(checkpoints, name, choices[1])
    assert small.engine == "openvino CPU w8a8"
    pixels = [draw(b, b.request(prompt="a tea", seed=5, **FIELDS))[0].pixels.astype(float) for b in (plain, small)]
    assert 0 < np.abs(pixels[0] - pixels[1]).mean() < 20
    monkeypatch.setattr(quantised, "ALLOWED", min(level.added for level in report.levels) / 2)
    with pytest.raises(EngineError, match="not offered for these weights"):
        opened(checkpoints, name, choices[1])


def test_loras_are_not_measured(checkpoints: Path) -> None:
    with pytest.raises(InputError, match="precision w8a8 is measured for a checkpoint as it is"):
        families.load(str(checkpoints / "compvis.safetensors"), precision="w8a8", loras=[(Path("x"), 1.0)])
