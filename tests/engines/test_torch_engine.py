"""The torch engine: the same numbers as the other one, the caller's kind of array back, gradients, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_components import GOLDEN, STORED, unet_inputs

from chashka.checkpoints import read_metadata, read_tensors, write
from chashka.engines import Graph, GraphNetwork, open_engine
from chashka.engines.torch_engine import TorchEngine
from chashka.errors import EngineError, MissingExtraError, WeightsError

pytestmark = pytest.mark.torch

WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


def strides(engine: TorchEngine) -> set[bool]:
    """Whether the convolutions of 3×3 have their channels last."""
    convolutions = [m for m in engine.open(GOLDEN, STORED).module.modules() if isinstance(m, torch.nn.Conv2d)]
    return {m.weight.stride(1) == 1 for m in convolutions if m.kernel_size == (3, 3)}


def test_channels_are_last_where_a_cpu_computes_in_bfloat16() -> None:
    assert (strides(TorchEngine("cpu", "bf16")), strides(TorchEngine("cpu"))) == ({True}, {False})


@pytest.fixture(scope="module")
def graph() -> Graph:
    return TorchEngine("cpu").open(GOLDEN, STORED)


def test_it_computes_what_was_stored(graph: Graph) -> None:
    with np.load(GOLDEN / "tiny_out.npz") as stored:
        for case, wanted in stored.items():
            out = graph(**unet_inputs(*map(int, case.split("_"))))["out"]
            assert out.dtype == np.float32
            assert np.abs(out - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_both_engines_agree(graph: Graph) -> None:
    other = open_engine("openvino", precision="f32", threads=1).open(GOLDEN, STORED)
    assert (graph.inputs, graph.outputs, graph.metadata) == (other.inputs, other.outputs, other.metadata)
    inputs = unet_inputs(3, 8, 7)
    a, b = graph(**inputs)["out"], other(**inputs)["out"]
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


def test_tensors_come_back_for_tensors(graph: Graph) -> None:
    inputs = {k: torch.from_numpy(v) for k, v in unet_inputs().items()}
    out = graph(**inputs)["out"]
    assert isinstance(out, torch.Tensor) and not out.requires_grad
    np.testing.assert_array_equal(out.numpy(), graph(**unet_inputs())["out"])


def test_read_only_arrays_are_taken(graph: Graph) -> None:
    inputs = unet_inputs()
    inputs["x"].flags.writeable = False
    assert graph(**inputs)["out"].shape == (2, 4, 8, 8)


def test_gradients_flow_where_they_are_asked_for(graph: Graph) -> None:
    inputs = {k: torch.from_numpy(v) for k, v in unet_inputs(1, 4, 3).items()}
    x = inputs["x"].requires_grad_(True)
    graph(**inputs)["out"].square().sum().backward()
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    with torch.no_grad():  # what the caller set is not what decides
        assert graph(**inputs)["out"].requires_grad


def test_the_network_takes_tensors(graph: Graph) -> None:
    inputs = {k: torch.from_numpy(v) for k, v in unet_inputs().items()}
    out = GraphNetwork(graph)(inputs["x"], inputs["t"], {"tokens": inputs["tokens"], "added": inputs["added"]})
    assert isinstance(out, torch.Tensor)


def test_half_on_a_cpu_becomes_bfloat16() -> None:
    engine = TorchEngine("cpu", "f16")
    assert (engine.precision, engine.name) == ("bf16", "torch cpu bf16")
    inputs = unet_inputs()
    wanted = TorchEngine("cpu").open(GOLDEN, STORED)(**inputs)["out"]
    out = engine.open(GOLDEN, STORED)(**inputs)["out"]
    assert out.dtype == np.float32
    assert 0 < np.sqrt(np.square(out - wanted).mean()) < 0.05 * np.sqrt(np.square(wanted).mean())


def test_wrong_shapes_are_an_engine_error(graph: Graph) -> None:
    with pytest.raises(EngineError, match="torch failed in tiny") as caught:
        graph(**(unet_inputs() | {"x": np.zeros((2, 3, 8, 8), np.float32)}))
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="takes the inputs x, t, tokens, added"):
        graph(x=np.zeros((2, 4, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "os:system"}, "names the unknown network 'os:system'"),
        ({"config_class": "Path"}, "names the unknown configuration 'Path'"),
        ({"config": '{"width": 16}'}, "configuration in .* does not fit"),
        ({"config": "nonsense"}, "configuration in .* does not fit"),
        ({"format": "2"}, "metadata of format 2, expected 1"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(change: dict[str, str], message: str, tmp_path: Path) -> None:
    source = GOLDEN / f"{STORED}.safetensors"
    write(tmp_path / "a.safetensors", read_tensors(source), read_metadata(source) | change)
    with pytest.raises(WeightsError, match=message):
        TorchEngine("cpu").open(tmp_path, "a")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = GOLDEN / f"{STORED}.safetensors"
    config = json.loads(read_metadata(source)["config"]) | {"width": 32}
    write(tmp_path / "a.safetensors", read_tensors(source), read_metadata(source) | {"config": json.dumps(config)})
    with pytest.raises(WeightsError, match=r"a\.safetensors does not fit UNet: \d+ of another shape"):
        TorchEngine("cpu").open(tmp_path, "a")


@WITHOUT_CUDA
def test_an_absent_gpu_is_said() -> None:
    with pytest.raises(EngineError, match="torch has no CUDA device here"):
        open_engine("torch", "cuda:0")
    with pytest.raises(EngineError, match="torch has no CUDA device here"):
        open_engine("auto", "cuda")
    assert open_engine("torch").name == "torch cpu f32"


def test_unknown_names_are_said() -> None:
    with pytest.raises(EngineError, match="device 'meta' computes nothing here; use cpu, cuda, mps, xpu or auto"):
        TorchEngine("meta")
    with pytest.raises(EngineError, match=r"torch cannot use device 'xpu' here \(.+\); use cpu or auto"):
        TorchEngine("xpu")
    with pytest.raises(EngineError, match="knows no device 'abacus'"):
        TorchEngine("abacus")
    with pytest.raises(EngineError, match="precision 'f8' does not exist"):
        TorchEngine("cpu", "f8")


def test_absent_torch_is_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chashka.engines.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'chashka\[torch\]'"):
        open_engine("torch", "cpu")
