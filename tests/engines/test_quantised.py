"""W8A8: which convolutions become int8, how near the graph stays, and when a quantised graph is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from tiny_components import GOLDEN, STORED, tiny_unet, unet_inputs

from chashka.checkpoints import sha256
from chashka.engines import quantised, runtime, selftest
from chashka.engines.machine import processor
from chashka.engines.openvino_engine import OpenVINOEngine
from chashka.engines.quantised import Calibration, Level
from chashka.engines.runtime import openvino
from chashka.errors import EngineError, MissingExtraError, UncalibratedError

pytestmark = [pytest.mark.torch, pytest.mark.extra]

CALLS = [unet_inputs(2, 8, 5, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored tiny network under the name that is quantised."""
    folder = tmp_path_factory.mktemp("component")
    for suffix in ("xml", "safetensors"):
        shutil.copy(GOLDEN / f"{STORED}.{suffix}", folder / f"unet.{suffix}")
    return folder


@pytest.fixture(scope="module")
def made(component: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantised") / "unet.xml"
    chosen, every = quantised.quantise(component / "unet.xml", component / "unet.safetensors", CALLS, path)
    assert 0 < chosen < every
    return path


@pytest.fixture
def report(component: Path, made: Path) -> Calibration:
    """One that held, on this machine."""
    config = OpenVINOEngine(precision="f32").open(component, "unet").metadata["config"]
    here = (processor(), openvino().get_version(), "3", "f32")
    level = Level(999.0, 1, 0.1, 0.1, 1.0, 0.005)
    numbers = ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), 2, "f32", 2.0, 1.0)
    made_of = sha256(component / "unet.safetensors"), config
    return Calibration(
        "tiny", *made_of, *here, (3, 9), 6, {}, ("a",), ("b",), (level,), *numbers, sha256(made.with_suffix(".bin"))
    )


@pytest.fixture
def keep(tmp_path: Path, made: Path) -> Callable[[Calibration], Path]:
    """Keeps a report, with a copy of the graph; gives the cache folder."""

    def keeping(report: Calibration) -> Path:
        for suffix in (".xml", ".bin"):
            shutil.copy(made.with_suffix(suffix), tmp_path)
        quantised.keep(tmp_path, report, tmp_path / "unet.xml")
        return tmp_path

    return keeping


def drift(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_convolutions_of_several_places_between_the_first_and_the_last_are_chosen(component: Path) -> None:
    model = openvino().Core().read_model(str(component / "unet.xml"), str(component / "unet.safetensors"))
    sizes = {
        node.get_friendly_name(): list(node.input_value(1).get_shape())
        for node in model.get_ops()
        if node.get_type_name() == "Convolution"
    }
    wide = [size for size in sizes.values() if size[2:] == [3, 3]]
    chosen = [sizes[name] for name in quantised.chosen_convolutions(model)]
    left = list(wide)
    for size in chosen:
        left.remove(size)
    # 4 channels of x and 8 of places into 16; 16 into the 4 that come out
    assert sorted(left) == [[4, 16, 3, 3], [16, 12, 3, 3]] and any(size[2:] == [1] for size in sizes.values())


def test_of_products_those_that_widen_what_a_norm_left_are_chosen() -> None:
    opset = openvino().opset13
    x, text = (opset.parameter([-1, 3, 8], np.float32, name=name) for name in ("x", "tokens"))
    normed = opset.mvn(x, [2], True, 1e-5, "inside_sqrt")
    scaled = opset.add(opset.multiply(normed, np.ones(8, np.float32)), np.ones(8, np.float32))
    given = {"plain": (normed, 32), "scaled": (scaled, 40), "narrow": (scaled, 31), "raw": (x, 32), "said": (text, 32)}
    made = []
    for name, (source, width) in given.items():
        made.append(opset.matmul(source, np.ones((width, 8), np.float32), False, True))
        made[-1].set_friendly_name(name)
    model = openvino().Model([opset.result(product) for product in made], [x, text], "m")
    assert quantised.chosen_products(model) == {"plain", "scaled"}


def test_it_says_nearly_the_same(component: Path, made: Path) -> None:
    engine = OpenVINOEngine(precision="f32", threads=1)
    graph = engine.open(component, "unet")
    other = graph.quantised(engine, made, None)
    for inputs in (unet_inputs(2, 8, 5, 20), unet_inputs(1, 4, 9, 21)):
        assert 1e-4 < drift(other(**inputs)["out"], graph(**inputs)["out"]) < 0.1
    assert 'name="precise"' in made.read_text(encoding="utf-8"), "t is computed with in float32 whatever the rest"


def test_weights_that_are_stored_in_int8_are_taken(tmp_path: Path) -> None:
    import torch

    from chashka.engines.export import export_component

    examples = {name: torch.from_numpy(value) for name, value in unet_inputs(2, 4, 3).items()}
    export_component(tiny_unet(), "unet", examples, list(examples), ["out"], tmp_path, {}, precision="int8")
    path = tmp_path / "made.xml"
    chosen, _ = quantised.quantise(tmp_path / "unet.xml", tmp_path / "unet.safetensors", CALLS, path)
    model = openvino().Core().read_model(str(path))
    convolutions = [node for node in model.get_ops() if node.get_type_name() == "Convolution"]
    read = [[node.input_value(i).get_node().get_type_name() for i in (0, 1)] for node in convolutions]
    assert sum(activations == "FakeQuantize" for activations, _ in read) == chosen
    assert all(
        weights in ("FakeQuantize", "Multiply") for activations, weights in read if activations == "FakeQuantize"
    )
    engine = OpenVINOEngine(precision="f32", threads=1)
    graph = engine.open(tmp_path, "unet")
    inputs = unet_inputs(2, 8, 5, 20)
    assert 1e-4 < drift(graph.quantised(engine, path, None)(**inputs)["out"], graph(**inputs)["out"]) < 0.1


def test_without_a_measurement_it_is_not_opened(component: Path, tmp_path: Path) -> None:
    said = r"not measured with these weights; run this first: chashka export --int8 --calibrate --model MODEL"
    with pytest.raises(UncalibratedError, match=said):
        OpenVINOEngine(precision="w8a8", cache_dir=tmp_path).open(component, "unet")
    with pytest.raises(EngineError, match="give cache_dir"):
        OpenVINOEngine(precision="w8a8").open(component, "unet")
    with pytest.raises(EngineError, match="on CPUs alone, not on GPU"):
        OpenVINOEngine("GPU", precision="w8a8")


def test_what_was_measured_elsewhere_does_not_count(
    component: Path, report: Calibration, keep: Callable[[Calibration], Path]
) -> None:
    for change, said in (
        ({"processor": "another"}, "on another processor"),
        ({"openvino": "2020.1-x"}, "with openvino 2020.1;"),
        ({"config": "{}"}, "not measured with these weights"),
        ({"layout": 0}, "not measured with these weights"),
    ):
        folder = keep(replace(report, **change))  # type: ignore[arg-type]
        with pytest.raises(UncalibratedError, match=said):
            OpenVINOEngine(precision="w8a8", cache_dir=folder).open(component, "unet")


def test_one_level_that_fails_closes_the_gate_and_keeps_no_graph(
    component: Path, report: Calibration, keep: Callable[[Calibration], Path]
) -> None:
    for added in (0.0123, float("nan")):
        failed = replace(report, levels=(*report.levels, Level(26.0, 1, 0.1, 0.1, 1.0, added)))
        folder = keep(failed)
        assert [path.name for path in quantised.home(folder, report.weights_sha256).iterdir()] == ["report.json"]
        with pytest.raises(EngineError, match=r"not offered for these weights: int8 adds up to .* allowed is 1%"):
            OpenVINOEngine(precision="w8a8", cache_dir=folder).open(component, "unet")
    assert replace(report, levels=(Level(26.0, 1, 0.1, 0.1, 1.0, 0.0123),)).verdict == (
        "int8 adds up to 1.23% to its error (at t = 26), allowed is 1%"
    )


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layout": LAYOUT}', '{"layout": LAYOUT, "levels": [{}]}', "\x00"])
def test_a_damaged_report_is_none(
    component: Path, report: Calibration, keep: Callable[[Calibration], Path], text: str
) -> None:
    folder = keep(report)
    text = text.replace("LAYOUT", str(quantised.LAYOUT))
    (quantised.home(folder, report.weights_sha256) / "report.json").write_text(text, encoding="utf-8")
    with pytest.raises(UncalibratedError):
        OpenVINOEngine(precision="w8a8", cache_dir=folder).open(component, "unet")


def test_it_is_opened_where_it_held_and_only_when_asked_for(
    component: Path,
    made: Path,
    report: Calibration,
    keep: Callable[[Calibration], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selftest, "best_precision", lambda *_: "f32")
    folder = keep(report)
    kept = json.loads((quantised.home(folder, report.weights_sha256) / "report.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(asdict(report)))
    inputs = unet_inputs(2, 8, 5, 20)
    exact = OpenVINOEngine(precision="f32", threads=1).open(component, "unet")
    wanted = exact.quantised(exact.engine, made, None)(**inputs)["out"]
    for _ in range(2):  # compiled, then from the cache
        engine = OpenVINOEngine(precision="w8a8", threads=1, cache_dir=folder)
        assert engine.name == "openvino CPU w8a8"
        np.testing.assert_array_equal(engine.open(component, "unet")(**inputs)["out"], wanted)
    assert len(list((folder / "graphs").glob("unet-*.blob"))) == 1
    usual = OpenVINOEngine(threads=1, cache_dir=folder).open(component, "unet")
    np.testing.assert_array_equal(usual(**inputs)["out"], exact(**inputs)["out"])


def test_other_networks_stay_as_they_are(component: Path, tmp_path: Path) -> None:
    for suffix in ("xml", "safetensors"):
        shutil.copy(component / f"unet.{suffix}", tmp_path / f"decoder.{suffix}")
    graph = OpenVINOEngine(precision="w8a8", threads=1, cache_dir=tmp_path / "cache").open(tmp_path, "decoder")
    assert graph.path == tmp_path / "decoder.xml"


def test_the_extra_is_named(component: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"chashka\[quantise\]"):
        quantised.quantise(component / "unet.xml", component / "unet.safetensors", CALLS, tmp_path / "x.xml")
