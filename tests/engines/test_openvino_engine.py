"""The OpenVINO engine on a stored component: numbers, errors, its cache, and that it is silent. No torch here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_components import GOLDEN, STORED, unet_inputs

from chashka.checkpoints import read_tensors, write
from chashka.engines import Graph, GraphNetwork, open_engine
from chashka.engines import compiled_cache as cache_module
from chashka.engines.openvino_engine import SHAPES_KEPT, OpenVINOEngine
from chashka.errors import EngineError, WeightsError


@pytest.fixture(scope="module")
def engine() -> OpenVINOEngine:
    return OpenVINOEngine(precision="f32", threads=1)


@pytest.fixture(scope="module")
def graph(engine: OpenVINOEngine) -> Graph:
    return engine.open(GOLDEN, STORED)


@pytest.fixture
def component(tmp_path: Path) -> Path:
    for file in GOLDEN.glob(f"{STORED}.*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("case", ["2_8_5", "1_4_9"])
def test_it_computes_what_torch_did(graph: Graph, case: str) -> None:
    rows, size, length = map(int, case.split("_"))
    with np.load(GOLDEN / "tiny_out.npz") as stored:
        wanted = stored[case]
    out = graph(**unet_inputs(rows, size, length))["out"]
    assert out.dtype == np.float32
    assert error(out, wanted) < 1e-5


def test_a_row_does_not_depend_on_its_neighbours(graph: Graph) -> None:
    inputs = unet_inputs(3, 8, 4)
    whole = graph(**inputs)["out"]
    for row in range(3):
        alone = graph(**{name: value[row : row + 1] for name, value in inputs.items()})["out"]
        np.testing.assert_array_equal(alone[0], whole[row])


def test_results_are_the_callers(graph: Graph) -> None:
    first = graph(**unet_inputs(seed=1))["out"]
    kept = first.copy()
    graph(**unet_inputs(seed=2))
    np.testing.assert_array_equal(first, kept)
    first[...] = 0


def test_inputs_are_cast_to_the_boundarys_types(graph: Graph) -> None:
    inputs = unet_inputs(2, 8, 5)
    wide = {k: np.asfortranarray(v.astype(np.float64)) for k, v in inputs.items()}
    np.testing.assert_array_equal(graph(**wide)["out"], graph(**inputs)["out"])


def test_what_a_graph_says_of_itself(graph: Graph) -> None:
    assert (graph.name, graph.inputs, graph.outputs) == (STORED, ("x", "t", "tokens", "added"), ("out",))
    assert graph.metadata["latent_scale"] == "1.5"
    assert graph.metadata["class"] == "nets.unet:UNet"
    assert json.loads(graph.metadata["config"])["width"] == 16


def test_network_takes_what_the_graph_needs(graph: Graph) -> None:
    inputs = unet_inputs(2, 8, 5)
    network = GraphNetwork(graph)
    cond = {"tokens": inputs["tokens"], "added": inputs["added"], "mask": np.ones((2, 5)), "pooled": None}
    np.testing.assert_array_equal(network(inputs["x"], inputs["t"], cond), graph(**inputs)["out"])
    with pytest.raises(EngineError, match="takes the inputs x, t, tokens, added; given were x, t, tokens"):
        network(inputs["x"], inputs["t"], {"tokens": inputs["tokens"]})


def test_wrong_inputs_are_named(graph: Graph) -> None:
    with pytest.raises(EngineError, match="given were none"):
        graph()
    with pytest.raises(EngineError, match="takes the inputs"):
        graph(**unet_inputs(), mask=np.ones(2))
    bad = unet_inputs() | {"x": np.zeros((2, 3, 8, 8), np.float32)}
    with pytest.raises(EngineError, match=r"cannot compile tiny for x \[2, 3, 8, 8\]") as caught:
        graph(**bad)
    assert "\n" not in str(caught.value)


def test_few_shapes_are_kept_and_text_lengths_share_one(engine: OpenVINOEngine) -> None:
    graph = engine.open(GOLDEN, STORED)
    for length in (2, 3, 9):
        graph(**unet_inputs(1, 4, length))
    assert len(graph._requests) == 1
    for rows in range(1, SHAPES_KEPT + 2):
        graph.prepare(x=(rows, 4, 4, 4), t=(rows,), tokens=(rows, 3, 24), added=(rows, 64))
    assert len(graph._requests) == SHAPES_KEPT


def test_threads_take_turns(graph: Graph) -> None:
    wanted = [graph(**unet_inputs(seed=seed))["out"] for seed in range(4)]
    results: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: graph(**unet_inputs(seed=i))["out"]})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        np.testing.assert_array_equal(results[i], wanted[i])


def test_other_weights_are_refused_and_both_files_named(engine: OpenVINOEngine, component: Path) -> None:
    weights = component / f"{STORED}.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(WeightsError, match=r"tiny\.xml was exported for weights .*tiny\.safetensors has") as caught:
        engine.open(component, STORED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["xml", "safetensors"])
def test_a_missing_file_is_named(engine: OpenVINOEngine, component: Path, missing: str) -> None:
    (component / f"{STORED}.{missing}").unlink()
    with pytest.raises(WeightsError, match=rf"tiny\.{missing} does not exist"):
        engine.open(component, STORED)


def test_files_that_are_not_ours_are_refused(engine: OpenVINOEngine, component: Path) -> None:
    (component / f"{STORED}.xml").write_text("<net/>")
    with pytest.raises(WeightsError, match="does not say which weights"):
        engine.open(component, STORED)
    write(component / f"{STORED}.safetensors", {"a": np.ones(2, np.float32)}, {"format": "pt"})
    with pytest.raises(WeightsError, match="metadata of format pt, expected 1"):
        engine.open(component, STORED)


def test_the_weights_are_there_once() -> None:
    """No .bin, and the graph's own constants are few."""
    assert not list(GOLDEN.glob("*.bin"))
    weights = sum(a.nbytes for a in read_tensors(GOLDEN / f"{STORED}.safetensors").values())
    assert (GOLDEN / f"{STORED}.safetensors").stat().st_size < weights + 40_000


def compiled_once(engine: OpenVINOEngine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, np.ndarray]:
    """Whether the graph had to be compiled, and its result."""
    graph = engine.open(folder, STORED)
    assert graph.cache is not None
    store, compiled = graph.cache.store, []

    def spy(*arguments: Any) -> None:
        compiled.append(True)
        store(*arguments)

    monkeypatch.setattr(graph.cache, "store", spy)
    out = graph(**unet_inputs())["out"]
    return bool(compiled), out


def test_compiled_graphs_are_kept_without_weights(
    component: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OpenVINOEngine(precision="f32", threads=1, cache_dir=tmp_path / "cache")
    first, wanted = compiled_once(engine, component, monkeypatch)
    blobs = list((tmp_path / "cache" / "graphs").iterdir())
    assert first and len(blobs) == 1
    assert blobs[0].stat().st_size < (component / f"{STORED}.xml").stat().st_size + 300_000
    again, out = compiled_once(engine, component, monkeypatch)
    assert not again
    np.testing.assert_array_equal(out, wanted)
    assert list((tmp_path / "cache" / "graphs").iterdir()) == blobs


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:-40] + b"x" + b[-39:]])
def test_a_damaged_cache_is_written_again(
    component: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object
) -> None:
    engine = OpenVINOEngine(precision="f32", threads=1, cache_dir=tmp_path / "cache")
    _, wanted = compiled_once(engine, component, monkeypatch)
    (blob,) = (tmp_path / "cache" / "graphs").iterdir()
    whole = blob.read_bytes()
    blob.write_bytes(damage(whole))  # type: ignore[operator]
    compiled, out = compiled_once(engine, component, monkeypatch)
    assert compiled
    np.testing.assert_array_equal(out, wanted)
    assert not compiled_once(engine, component, monkeypatch)[0]


def test_a_cache_that_cannot_be_written_does_no_harm(component: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    graph = OpenVINOEngine(precision="f32", threads=1, cache_dir=tmp_path / "cache").open(component, STORED)
    assert graph(**unet_inputs())["out"].shape == (2, 4, 8, 8)


def test_the_cache_is_bounded(component: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_BLOBS", 2)
    graph = OpenVINOEngine(precision="f32", threads=1, cache_dir=tmp_path / "cache").open(component, STORED)
    for rows in (1, 2, 3):
        graph.prepare(x=(rows, 4, 4, 4), t=(rows,), tokens=(rows, 3, 24), added=(rows, 64))
    assert len(list((tmp_path / "cache" / "graphs").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp8"}, "precision 'fp8' does not exist; use one of auto, f32"),
        ({"precision": "f16"}, "f16 is slow or wrong on CPUs"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "NPU7", "precision": "f32"}, "openvino has no device 'NPU7' here; it has: CPU"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        OpenVINOEngine(**arguments).open(GOLDEN, STORED)(**unet_inputs())  # type: ignore[arg-type]


def test_open_engine_knows_the_names(tmp_path: Path) -> None:
    engine = open_engine("openvino", precision="f32", cache_dir=tmp_path)
    assert (engine.name, engine.precision) == ("openvino CPU f32", "f32")
    assert open_engine(precision="f32", device="auto").name == "openvino CPU f32"
    with pytest.raises(EngineError, match="engine 'onnx' does not exist; use one of auto, openvino, torch"):
        open_engine("onnx")


SILENT = """
import json, socket, sys
tried = []
def refuse(*a, **k):
    tried.append(repr(a))
    raise OSError("no network here")
def watch(event, args):
    if event.startswith("socket.") and event != "socket.__new__":
        tried.append(event)
class Refusing(socket.socket):
    connect = connect_ex = sendto = bind = refuse
socket.socket = Refusing
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
sys.addaudithook(watch)
from pathlib import Path
import threading, time
sys.path.insert(0, sys.argv[2])
from tiny_components import STORED, unet_inputs
from chashka.engines import open_engine
graph = open_engine("openvino", precision="f32", threads=1).open(Path(sys.argv[1]), STORED)
graph(**unet_inputs())
left = [name for name in sys.modules if name.startswith(("openvino_telemetry", "openvino.tools.ovc", "torch"))]
children = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
print(json.dumps([tried, left, children]))
"""


def test_it_is_silent_and_leaves_converter_telemetry_and_torch_out() -> None:
    words = [sys.executable, "-c", SILENT, str(GOLDEN), str(GOLDEN.parent)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [[], [], []]


def test_the_converter_can_be_imported_afterwards() -> None:
    code = "import sys; from chashka.engines.runtime import openvino; openvino(); openvino()\n"
    code += "print([n for n in ('openvino.tools.ovc', 'openvino_telemetry') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


def test_products_in_float32_have_plain_float32_weights(engine: OpenVINOEngine, graph: Graph) -> None:
    """OpenVINO computes products with weights that it knows to be float16 by a slower kernel."""
    shapes = tuple((name, value.shape) for name, value in unet_inputs(1, 4, 3).items())
    nodes = graph._compiled(shapes).get_runtime_model().get_ops()
    kinds = {
        str(node.input_value(1).get_element_type().get_type_name())
        for node in nodes
        if node.get_rt_info()["layerType"].value == "FullyConnected"
    }
    assert kinds == {"f32"}
