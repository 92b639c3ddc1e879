"""Graphs that compute in bfloat16 by their own types: what they say, what stays float32, what lies on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_conversion import tiny_unet

from chashka.engines import conversion
from chashka.engines.openvino_engine import OpenVINOEngine
from chashka.engines.openvino_lowered import lower, to_bfloat16
from chashka.engines.runtime import openvino

pytestmark = pytest.mark.torch


def inputs(rows: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    x, tokens = rng.normal(size=(rows, 4, 8, 8)), rng.normal(size=(rows, 7, 24))
    return {
        "x": x.astype(np.float32),
        "t": np.linspace(3, 990, rows).astype(np.float32),
        "tokens": tokens.astype(np.float32),
    }


def test_bits_are_those_of_torch() -> None:
    values = np.concatenate(
        [np.random.default_rng(0).normal(size=4000), [0, -0.0, 1.00390625, 1.01171875, 3e38, 1e-40]]
    )
    wanted = torch.from_numpy(values.astype(np.float32)).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(to_bfloat16(values.astype(np.float32)), wanted)
    odd = np.array([0x7FFF, 0xFE01, 0x7C00, 0xFC00], np.uint16).view(
        np.float16
    )  # two that are no numbers, two infinities
    back = torch.from_numpy(to_bfloat16(odd).view(np.int16)).view(torch.bfloat16)
    assert back.isnan().tolist() == [True, True, False, False] and back.isinf().tolist() == [False, False, True, True]


def stored(folder: Path, bfloat16: bool) -> Path:
    blueprint, weights = tiny_unet()
    (folder / "source").write_bytes(b"")
    return conversion.converted(blueprint, weights, folder / "source", folder, "content", bfloat16)[0]


def test_the_file_holds_the_same_numbers_in_as_many_bytes(tmp_path: Path) -> None:
    half, low = stored(tmp_path, False), stored(tmp_path, True)
    assert half != low, "two engines do not take one another's"
    a, b = (graph.with_suffix(".bin") for graph in (half, low))
    assert a.stat().st_size == b.stat().st_size
    models = [openvino().Core().read_model(str(g), str(g.with_suffix(".bin"))) for g in (half, low)]
    kinds = [
        {c.output(0).get_element_type().get_type_name() for c in m.get_ops() if c.get_type_name() == "Constant"}
        for m in models
    ]
    assert "f16" in kinds[0] and "f16" not in kinds[1] and "bf16" in kinds[1]
    compiled = [openvino().Core().compile_model(m, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}) for m in models]
    out = [next(iter(c(inputs()).values())) for c in compiled]
    assert 0 < np.abs(out[0] - out[1]).max() < 0.02 * np.abs(out[0]).max()


def test_what_is_computed_in_which_type(tmp_path: Path) -> None:
    graph = stored(tmp_path, True)
    model = openvino().Core().read_model(str(graph), str(graph.with_suffix(".bin")))
    model.reshape({name: list(value.shape) for name, value in inputs().items()})
    wanted = next(
        iter(openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs()).values())
    )
    lower(model)
    kind = {
        n.get_friendly_name(): n.output(0).get_element_type().get_type_name()
        for n in model.get_ops()
        if n.get_output_size()
    }
    types = {n.get_type_name(): kind[n.get_friendly_name()] for n in model.get_ops() if n.get_output_size()}
    assert types["Convolution"] == types["MatMul"] == types["GroupNormalization"] == "bf16"
    assert types["Sin"] == types["Cos"] == "f32", "of t, which has more bits than bfloat16"
    ends = [*model.inputs, *model.outputs]
    assert {port.get_element_type().get_type_name() for port in ends} == {"f32"} and model.outputs[0].get_names() == {
        "out"
    }
    said = next(iter(openvino().Core().compile_model(model, "CPU")(inputs()).values()))
    assert np.square(said - wanted).mean() ** 0.5 < 0.02 * np.square(wanted).mean() ** 0.5


def test_an_engine_of_bf16_computes_so_and_finds_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chashka.engines.openvino_engine.selftest.works", lambda *_: True)
    blueprint, weights = tiny_unet()
    (tmp_path / "source").write_bytes(b"")
    wide = OpenVINOEngine(precision="f32", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    low = OpenVINOEngine(precision="bf16", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    assert (wide.lowered, low.lowered) == (False, True) and wide.weights != low.weights
    exact, said = wide(**inputs())["out"], low(**inputs())["out"]
    assert np.square(said - exact).mean() ** 0.5 < 0.02 * np.square(exact).mean() ** 0.5
    again = OpenVINOEngine(precision="bf16", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    np.testing.assert_array_equal(again(**inputs())["out"], said)
    tiles = low.tiled("xy")(**inputs())["out"]
    exact_tiles = wide.tiled("xy")(**inputs())["out"]
    assert np.square(tiles - exact_tiles).mean() ** 0.5 < 0.02 * np.square(exact_tiles).mean() ** 0.5
    assert np.abs(low.at(wide.engine)(**inputs())["out"] - exact).max() < 0.02 * np.abs(exact).max()
