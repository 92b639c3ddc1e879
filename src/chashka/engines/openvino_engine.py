"""Runs exported graphs with OpenVINO on any CPU. No torch.

A graph is compiled once per shape of its pictures (static shapes ran 1.3 to 1.6 times faster than open ones). The length of
texts stays open, which costs one twentieth of a U-Net's time and saves a compilation per length; only the one that a published
network usually reads (its blueprint's) is compiled for itself.
What was compiled is kept in ``cache_dir``: without float16 weights, which stay in the safetensors file, but with int8 and changed
ones as float32.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from chashka.checkpoints.safetensors_file import NumpyArray, read_metadata, sha256
from chashka.engines import quantised, selftest
from chashka.engines.compiled_cache import CompiledCache
from chashka.engines.components import base_of, ports
from chashka.engines.engine import Blueprint, check_names
from chashka.engines.machine import sparing
from chashka.engines.openvino_changing import change_weights
from chashka.engines.openvino_lowered import lower
from chashka.engines.openvino_products import widen_products
from chashka.engines.openvino_wrapping import wrap_convolutions
from chashka.engines.runtime import openvino
from chashka.errors import EngineError, MissingExtraError, WeightsError
from chashka.nets.configs import to_json

PRECISIONS = ("auto", "f32", "bf16", "f16", quantised.W8A8)
SHAPES_KEPT = 4  # compiled shapes a graph holds in memory: each has its own packed weights

OPEN_AXES: dict[str, tuple[int, ...]] = {
    "ids": (0, 1),
    "mask": (0, 1),
    "tokens1": (0, 1),
    "tokens2": (0, 1),
    "pooled1": (0,),
    "tokens": (1,),
}
"""Axes that stay open when a graph is compiled, by input: whole text encoders, and the text's length in the U-Net."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class OpenVINOEngine:
    """OpenVINO on one device.

    device: "CPU", or another of OpenVINO's names. precision: "f32"; "bf16"; "f16" (not on a CPU); "auto" takes bf16
    where this machine computes it right and in less time (``selftest``), otherwise f32; "w8a8" is auto, with the U-Net's
    largest layers in int8 if that was measured for its weights and held (``quantised``). threads: None for all cores.
    cache_dir: a folder for compiled graphs, the self-test's result and quantised graphs, None for none. Raises EngineError.
    """

    def __init__(
        self,
        device: str = "CPU",
        precision: str = "auto",
        threads: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise EngineError(f"precision {precision!r} does not exist; use one of {', '.join(PRECISIONS)}")
        if threads is not None and threads < 1:
            raise EngineError(f"threads is {threads}; allowed are 1 and more")
        if device == "CPU" and precision == "f16":
            raise EngineError("f16 is slow or wrong on CPUs; use precision bf16, f32 or auto")
        if device != "CPU" and precision == quantised.W8A8:
            raise EngineError(f"precision w8a8 was measured on CPUs alone, not on {device}; use precision auto")
        self.device, self.threads, self.cache_dir = device, threads, cache_dir
        self._core: Any = None
        self._temporary: Path | None = None
        self._lock = threading.Lock()
        best = precision in ("auto", quantised.W8A8)
        found = selftest.best_precision(cache_dir, threads) if device == "CPU" and best else "f32"
        doubtful = device == "CPU" and precision == "bf16" and selftest.alone(threads)
        if doubtful and not selftest.works(cache_dir, threads):
            raise EngineError(
                "bf16 with one thread does not work on this machine (it was tried); use precision f32 or auto"
            )
        self.rest = found if best else precision
        self.precision = self.rest if precision == "auto" else precision

    @property
    def name(self) -> str:
        return f"openvino {self.device} {self.precision}"

    @property
    def beside(self) -> tuple[str, str]:
        return "cpu", "float32"

    @property
    def core(self) -> Any:
        """OpenVINO's Core, made at the first use."""
        with self._lock:
            if self._core is None:
                core = openvino().Core()
                if self.device.partition(".")[0] not in {d.partition(".")[0] for d in core.available_devices}:
                    found = ", ".join(core.available_devices) or "none"
                    raise EngineError(f"openvino has no device {self.device!r} here; it has: {found}")
                self._core = core
            return self._core

    @property
    def settings(self) -> dict[str, Any]:
        """What every compilation is told."""
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.rest, "PERFORMANCE_HINT": "LATENCY"}
        if self.device == "CPU":
            # Beside int8 weights it would round activations to int8 as well: 0.6 % off, and not what torch computes.
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        return settings if self.threads is None else settings | {"INFERENCE_NUM_THREADS": self.threads}

    def open(self, folder: Path, name: str) -> OpenVINOGraph:
        """Open ``<name>.xml`` over ``<name>.safetensors``, or the graph of another component with the weights that this one
        changes. Raises WeightsError if a file is missing or they do not belong together."""
        path = Path(folder) / f"{name}.safetensors"
        metadata = read_metadata(path)
        inputs, outputs = ports(metadata, path)
        base = base_of(metadata, path)
        weights = base or path
        graph = weights.with_suffix(".xml")
        expected, actual = _expected_sha256(graph), sha256(weights)
        if expected != actual:
            raise WeightsError(
                f"{graph} was exported for weights with sha256 {expected[:12]}…, but {weights} has {actual[:12]}…: "
                "one of them is damaged or from another version; fetch or export both again"
            )
        cache = CompiledCache(self.cache_dir, graph, actual) if self.cache_dir and self.device == "CPU" else None
        if base is not None and cache is not None:
            cache = cache.apart(f"changed {sha256(path)}")
        change = None if base is None else path
        return self._chosen(OpenVINOGraph(self, name, graph, weights, metadata, inputs, outputs, cache, change=change))

    def build(self, blueprint: Blueprint, tensors: Mapping[str, Any], source: Path) -> OpenVINOGraph:
        """See ``engine.Engine``. The weights are kept in ``cache_dir`` (without one: for this process): as float16, those of a
        U-Net that is computed in bf16 as bfloat16 (``openvino_lowered``)."""
        if importlib.util.find_spec("torch") is None:
            raise MissingExtraError("torch", f"the conversion of {source.name} to a graph")
        from chashka.engines.conversion import converted
        from chashka.engines.sums import content_of

        if self.cache_dir is None and self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="chashka-"))
            weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        folder = self.cache_dir or self._temporary
        assert folder is not None
        lowered = blueprint.name == "unet" and (self.device, self.precision) == ("CPU", "bf16")
        content = content_of(source, self.cache_dir)
        graph, held = converted(blueprint, tensors, source, folder, content, lowered)
        cache = CompiledCache(folder, graph, graph.parent.name) if self.device == "CPU" else None
        metadata = {"config": to_json(blueprint.config)}
        inputs = tuple(blueprint.inputs)
        weights = graph.with_suffix(".bin")
        made = OpenVINOGraph(self, blueprint.name, graph, weights, metadata, inputs, blueprint.outputs, cache)
        return self._chosen(replace(made, usual=blueprint.inputs.get("tokens"), lowered=lowered, held=held))

    def _chosen(self, graph: OpenVINOGraph) -> OpenVINOGraph:
        """The graph, or with w8a8 the U-Net's quantised one. Raises UncalibratedError, EngineError where it is not offered."""
        if self.precision != quantised.W8A8 or graph.name != quantised.COMPONENT:
            return graph
        report, path = quantised.found(self.cache_dir, graph.weights, graph.metadata["config"])
        other = OpenVINOEngine(self.device, report.rest, self.threads, self.cache_dir)
        assert self.cache_dir is not None
        return graph.quantised(other, path, CompiledCache(self.cache_dir, path, report.graph_sha256))


@dataclass(eq=False)
class OpenVINOGraph:
    """One component; see ``engine.Graph``. Calls from several threads take turns."""

    engine: OpenVINOEngine
    name: str
    path: Path
    weights: Path
    metadata: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cache: CompiledCache | None
    axes: str = ""
    change: Path | None = None
    """What is changed in the weights (``openvino_changing``)."""
    usual: Sequence[int] | None = None
    """The shape of ``tokens`` whose length is compiled for itself."""
    lowered: bool = False
    """Whether its weights are stored as bfloat16 and an engine of that precision computes with their type."""
    held: object = field(default=None, repr=False)
    """What keeps a converted graph's files from being deleted while this may read them again (``conversion``)."""
    _requests: OrderedDict[Shapes, Any] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def prepare(self, **shapes: Sequence[int]) -> None:
        """Compile (or load from the cache) for these shapes; open axes may be given any size."""
        check_names(self, shapes)
        with self._lock:
            self._request({name: tuple(shape) for name, shape in shapes.items()})

    def tiled(self, axes: str) -> OpenVINOGraph:
        cache = self.cache and self.cache.apart(f"tiled {axes}")
        return replace(self, axes=axes, cache=cache, _requests=OrderedDict(), _lock=threading.RLock())

    def at(self, engine: OpenVINOEngine) -> OpenVINOGraph:
        """The same computed by another engine, in its precision."""
        return replace(self, engine=engine, _requests=OrderedDict(), _lock=threading.RLock())

    def quantised(self, engine: OpenVINOEngine, path: Path, cache: CompiledCache | None) -> OpenVINOGraph:
        """The graph that ``quantised.quantise`` made of this one and wrote to ``path``; its rest in the engine's precision."""
        return replace(self.at(engine), path=path, weights=path.with_suffix(".bin"), cache=cache)

    def __call__(self, **inputs: Any) -> dict[str, NumpyArray]:
        check_names(self, inputs)
        arrays = {name: _boundary(value) for name, value in inputs.items()}
        with self._lock:
            request = self._request({name: array.shape for name, array in arrays.items()})
            try:
                # Results are copied, because the next call writes to the same memory.
                results = request.infer(arrays, share_inputs=True, share_outputs=False)
            except RuntimeError as error:
                raise EngineError(f"openvino failed in {self.name}: {_reason(error)}") from error
            return {name: np.asarray(results[name]) for name in self.outputs}

    def _request(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        key: Shapes = tuple((name, self._shape(name, shapes[name])) for name in self.inputs)
        if key in self._requests:
            self._requests.move_to_end(key)
            return self._requests[key]
        with sparing(self.weights):
            request = self._compiled(key).create_infer_request()
        self._requests[key] = request
        while len(self._requests) > SHAPES_KEPT:
            self._requests.popitem(last=False)
        return request

    def _shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What an input of this shape is compiled for."""
        if name == "tokens" and self.usual is not None and shape[1:] == tuple(self.usual[1:]):
            return shape
        opened = OPEN_AXES.get(name, ())
        return tuple(-1 if axis in opened else extent for axis, extent in enumerate(shape))

    def _compiled(self, shapes: Shapes) -> Any:
        """The graph for these shapes, from the cache if it is there."""
        core, settings = self.engine.core, self.engine.settings
        cached = self.cache and self.cache.load(core, self.weights, shapes, settings)
        if cached:
            return cached
        try:
            model = core.read_model(str(self.path), str(self.weights))
            if self.change is not None:
                change_weights(model, self.path, self.weights, self.change)
            if self.axes:
                wrap_convolutions(model, self.axes)
            if self.engine.rest == "f32":
                widen_products(model)
            model.reshape({name: list(shape) for name, shape in shapes})
            if self.lowered and self.engine.rest == "bf16":
                lower(model)
            stored = {"CACHE_MODE": "OPTIMIZE_SIZE"} if self.cache else {}
            compiled = core.compile_model(model, self.engine.device, settings | stored)
        except RuntimeError as error:
            given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes)
            raise EngineError(f"openvino cannot compile {self.name} for {given}: {_reason(error)}") from error
        if self.cache:
            self.cache.store(compiled, shapes, settings)
        return compiled


def _boundary(value: Any) -> NumpyArray:
    """Contiguous float32 or int64, as the boundary demands."""
    array = np.asarray(value)
    return np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else np.int64)


def _expected_sha256(graph: Path) -> str:
    """The sha256 that stands at the end of the graph's file."""
    try:
        with graph.open("rb") as file:
            file.seek(max(0, graph.stat().st_size - 1024))
            found = re.search(rb'<weights_sha256 value="([0-9a-f]{64})"', file.read())
    except FileNotFoundError as error:
        raise WeightsError(f"the graph {graph} does not exist; export it again, or use the torch engine") from error
    except OSError as error:
        raise WeightsError(f"cannot read the graph {graph}: {error.strerror}") from error
    if not found:
        raise WeightsError(f"{graph} does not say which weights it belongs to: it is damaged or was not exported by us")
    return found[1].decode()


def _reason(error: RuntimeError) -> str:
    """The last line of OpenVINO's report; those before it are places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
