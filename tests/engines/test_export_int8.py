"""int8 components: one byte a weight, and both engines see the same numbers behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_components import components

from chashka.checkpoints import GRAPH_TENSOR, read_metadata, read_tensors
from chashka.checkpoints.int8 import SCALES
from chashka.engines import open_engine
from chashka.engines.components import WIDE, class_name
from chashka.engines.export import export_component
from chashka.engines.runtime import openvino
from chashka.engines.torch_engine import TorchEngine
from chashka.errors import WeightsError

pytestmark = pytest.mark.torch

NAMES = ("unet", "encoder", "decoder", "text_contrastive", "text_t5", "text_head", "upscaler")


def export(made: tuple[Any, ...], name: str, folder: Path, precision: str) -> Any:
    module, examples, _, outputs = made
    tensors = {key: torch.from_numpy(value) for key, value in examples.items()}
    return export_component(module, name, tensors, list(tensors), outputs, folder, precision=precision)


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[Any, dict[str, Any], dict[str, Any], list[str]]]:
    return components()


@pytest.fixture(scope="module")
def folder(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("int8")
    for name in NAMES:
        export(made[name], name, out, "int8")
    return out


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_agree(name: str, folder: Path, made: dict[str, Any]) -> None:
    _, _, inputs, outputs = made[name]
    a = open_engine("openvino", precision="f32", threads=1).open(folder, name)(**inputs)
    b = open_engine("torch", "cpu", "f32").open(folder, name)(**inputs)
    for output in outputs:
        assert np.abs(a[output] - b[output]).max() <= 1e-5 * np.abs(b[output]).max()


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_multiply_to_the_same_numbers(name: str, folder: Path) -> None:
    """What stands behind every Multiply by scales in the graph is a weight of the torch module, to the last bit."""
    ov = openvino()
    model = ov.Core().read_model(str(folder / f"{name}.xml"), str(folder / f"{name}.safetensors"))
    scaled = [
        node
        for node in model.get_ops()
        if node.get_type_name() == "Multiply"
        and node.input_value(0).get_node().get_type_name() == "Convert"
        and node.input_value(0).get_node().input_value(0).get_element_type() == ov.Type.i8
    ]
    stored = json.loads(read_metadata(folder / f"{name}.safetensors")["int8"])
    assert len(scaled) == len(stored) > 0
    state = TorchEngine("cpu", "f32").open(folder, name).module.state_dict()
    wanted = {state[key].numpy().tobytes() for key in stored}
    found = ov.Core().compile_model(ov.Model([node.output(0) for node in scaled], []), "CPU")({})
    assert {np.asarray(value).tobytes() for value in found.values()} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_a_byte_a_weight_but_not_everywhere(name: str, folder: Path, made: dict[str, Any]) -> None:
    stored = load_file(folder / f"{name}.safetensors")
    quantised = {key for key, value in stored.items() if value.dtype == np.int8}
    assert quantised == {key.removesuffix(SCALES) for key in stored if key.endswith(SCALES)}
    kept = {key for key in stored.keys() - quantised - {GRAPH_TENSOR} if not key.endswith(SCALES)}
    assert all(stored[key].dtype == np.float16 for key in kept)
    for beginning in WIDE[class_name(made[name][0])]:  # a table of names that no longer exist would keep nothing
        assert any(key.startswith(beginning) for key in kept)
    assert not [key for key in quantised if stored[key].ndim < 2 or key.endswith("bias")]


def test_the_network_hardly_changes(folder: Path, made: dict[str, Any]) -> None:
    module, _, inputs, _ = made["unet"]
    with torch.no_grad():
        wanted = module.float()(**{key: torch.from_numpy(value) for key, value in inputs.items()}).numpy()
    found = open_engine("torch", "cpu", "f32").open(folder, "unet")(**inputs)["out"]
    error = np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean())
    assert 1e-5 < error < 0.03


def test_exporting_what_was_exported_gives_the_same_weights(folder: Path, made: dict[str, Any], tmp_path: Path) -> None:
    module, examples, other, outputs = components()["unet"]
    module.load_state_dict({k: torch.from_numpy(v) for k, v in read_tensors(folder / "unet.safetensors").items()})
    again = export((module, examples, other, outputs), "unet", tmp_path, "int8")
    assert again.weights.read_bytes() == (folder / "unet.safetensors").read_bytes()


def test_another_precision_is_refused(made: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="precision 'int4' does not exist; use one of fp16, int8"):
        export(made["text_head"], "text_head", tmp_path, "int4")
