"""Components that are changes of another one's weights: both engines compute with the sums, and refuse what does not belong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_components import GOLDEN, STORED, unet_inputs

from chashka.checkpoints import read_metadata, read_tensors, write
from chashka.checkpoints.low_rank import changed as sums_of
from chashka.checkpoints.safetensors_file import NumpyArray, sha256
from chashka.engines import GraphNetwork, open_engine
from chashka.engines.batching import StepBatcher
from chashka.engines.openvino_engine import OpenVINOEngine
from chashka.errors import WeightsError

RANK = 2


@pytest.fixture
def component(tmp_path: Path) -> Path:
    for file in GOLDEN.glob(f"{STORED}.*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def change(folder: Path, size: float, name: str = "fast") -> dict[str, NumpyArray]:
    """Random changes of every matrix, written beside the component and returned."""
    base, chance = folder / f"{STORED}.safetensors", np.random.default_rng(3)
    tensors: dict[str, NumpyArray] = {}
    for key, weight in read_tensors(base).items():
        if key.endswith(".weight") and weight.ndim > 1:
            columns = int(np.prod(weight.shape[1:]))
            layer = key.removesuffix(".weight")
            tensors[f"{layer}.up"] = (size * chance.standard_normal((len(weight), RANK))).astype(np.float16)
            tensors[f"{layer}.down"] = chance.standard_normal((RANK, columns)).astype(np.float16)
    told = {k: v for k, v in read_metadata(base).items() if k not in ("precision", "int8")}
    write(folder / f"{name}.safetensors", tensors, told | {"base": STORED, "base_sha256": sha256(base)})
    return tensors


def test_the_openvino_engine_computes_with_the_changes_and_keeps_its_graph(component: Path, tmp_path: Path) -> None:
    cache, inputs = tmp_path / "cache", unet_inputs(2, 8, 5)
    engine = OpenVINOEngine(precision="f32", threads=1, cache_dir=cache)
    base = engine.open(component, STORED)(**inputs)["out"]
    change(component, 0.0, "nothing")
    np.testing.assert_allclose(engine.open(component, "nothing")(**inputs)["out"], base, atol=1e-6)
    change(component, 0.1)
    changed = engine.open(component, "fast")
    out = changed(**inputs)["out"]
    assert np.abs(out - base).max() > 0.01 * np.abs(base).max()
    kept = {file: file.stat().st_mtime_ns for file in cache.rglob("*.blob")}
    assert len(kept) == 3  # the base's and the two changes'
    again = OpenVINOEngine(precision="f32", threads=1, cache_dir=cache).open(component, "fast")
    np.testing.assert_array_equal(again(**inputs)["out"], out)
    assert set(cache.rglob("*.blob")) == set(kept)
    # another change of the same weights is another graph
    tensors = change(component, 0.2)
    assert tensors and np.abs(engine.open(component, "fast")(**inputs)["out"] - out).max() > 0.001


@pytest.mark.torch
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_both_engines_say_the_same_and_so_does_a_network_with_the_sums(component: Path, precision: str) -> None:
    import torch

    from chashka.engines.export import export_change

    tensors, inputs = change(component, 0.1, "raw"), unet_inputs(2, 8, 5)
    written = {key: torch.from_numpy(value) for key, value in tensors.items()}
    file = export_change(written, component / f"{STORED}.safetensors", "fast", {"fast": "{}"}, precision)
    assert read_metadata(file)["fast"] == "{}" and read_metadata(file)["precision"] == precision
    ours = OpenVINOEngine(precision="f32", threads=1).open(component, "fast")(**inputs)["out"]
    engine = open_engine("torch", device="cpu")
    theirs = engine.open(component, "fast")(**inputs)["out"]
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=1e-4)
    own = read_tensors(component / f"{STORED}.safetensors")
    sums = own | sums_of(own, read_tensors(file), "here")
    write(component / "sums.safetensors", sums, read_metadata(component / f"{STORED}.safetensors"))
    whole = engine.open(component, "sums")(**inputs)["out"]
    # stored once more as float32 or float16, the sums are rounded at most there
    np.testing.assert_allclose(whole, theirs, atol=2e-3 * np.abs(theirs).max())


def test_changes_of_other_weights_are_refused(component: Path) -> None:
    engine = OpenVINOEngine(precision="f32", threads=1)
    tensors = change(component, 0.1)
    base = component / f"{STORED}.safetensors"
    told = read_metadata(component / "fast.safetensors")
    layer = next(iter(tensors)).rpartition(".")[0]
    for spoilt in (
        {f"{layer}.up": tensors[f"{layer}.up"]},
        tensors | {f"{layer}.down": tensors[f"{layer}.down"][:, :-1]},
        tensors | {"elsewhere.up": tensors[f"{layer}.up"], "elsewhere.down": tensors[f"{layer}.down"]},
    ):
        write(component / "fast.safetensors", spoilt, told)
        with pytest.raises(WeightsError, match="they belong to another network"):
            engine.open(component, "fast")(**unet_inputs(1, 8, 5))
    write(component / "fast.safetensors", tensors, told | {"base_sha256": "0" * 64})
    with pytest.raises(WeightsError, match="was made for weights with sha256 000000000000"):
        engine.open(component, "fast")
    write(component / "fast.safetensors", tensors, told)
    base.unlink()
    with pytest.raises(WeightsError, match="does not exist"):
        engine.open(component, "fast")


def test_a_network_has_a_quick_one_where_the_model_does(component: Path) -> None:
    engine, opened = OpenVINOEngine(precision="f32", threads=1), []
    change(component, 0.1)

    def draft() -> object:
        opened.append(1)
        return engine.open(component, "fast")

    graph = engine.open(component, STORED)
    assert GraphNetwork(graph).quick is None and StepBatcher(GraphNetwork(graph), 2).quick is None
    network = GraphNetwork(graph, draft)  # type: ignore[arg-type]
    assert not opened  # nothing is opened before it is asked for
    inputs = unet_inputs(1, 8, 5)
    x, t, cond = inputs["x"], inputs["t"], {k: inputs[k] for k in ("tokens", "added")}
    quick = network.quick
    assert quick is not None and opened
    alone = quick(x, t, cond)
    assert np.abs(alone - network(x, t, cond)).max() > 0.001
    shared = StepBatcher(network, 2)
    assert shared.quick is shared.quick and shared.quick is not None
    np.testing.assert_allclose(shared.quick(x, t, cond), alone, atol=1e-5)
