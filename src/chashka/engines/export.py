"""From a torch module to a component: one safetensors file with all weights, one graph whose constants lie in it.

OpenVINO's own ``.bin`` would store the weights a second time. Its file format only asks that every constant is so many
bytes at some offset of one file, so the graph points into the safetensors file. What the conversion computes itself
(shapes, axes, small tables) goes into one more tensor there, ``__graph__``.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from chashka.checkpoints.safetensors_file import (
    GRAPH_TENSOR,
    NumpyArray,
    Place,
    layout,
    replace,
    sha256,
    write,
)
from chashka.engines.components import DYNAMIC_AXES, PRECISE_INPUTS, describe
from chashka.engines.runtime import convert_model, openvino
from chashka.errors import WeightsError

GRAPH_LIMIT = 65536  # bytes of constants of the graph's own; more means that weights were rearranged
HALF_MAX = 65504.0  # the largest float16


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. graph_bytes: constants that are no weights; reused_bytes: those that are weights."""

    weights: Path
    graph: Path
    sha256: str
    graph_bytes: int
    reused_bytes: int


class _Traced(nn.Module):
    """The module as a function of positional inputs that returns a tuple in the order of the outputs."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, tuple(names)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.module(**dict(zip(self.names, inputs, strict=True)))
        return result if isinstance(result, tuple) else (result,)


def export_component(
    module: nn.Module,
    name: str,
    example_inputs: Mapping[str, torch.Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    out_folder: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    keep_f32: Collection[str] = (),
) -> Exported:
    """Write ``<name>.safetensors`` and ``<name>.xml`` into ``out_folder``; the same module gives the same bytes.

    module: has its configuration in ``cfg`` and is left as it is. example_inputs: one small tensor per name of
    ``input_names`` (docs/networks.md); axes of ``DYNAMIC_AXES`` stay open in the graph. metadata: stored beside ours.
    keep_f32: names of weights that stay float32; all others are stored as float16, and the graph computes with exactly
    these numbers. Raises WeightsError where float16 would overflow, or if the conversion rearranged weights.
    """
    stored = dict(metadata or {}) | describe(module, input_names, output_names)
    weights = stored_weights(module, keep_f32)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "graph.xml"
        _convert(_with_weights(module, weights), example_inputs, input_names, output_names, path)
        root, binary = ET.parse(path).getroot(), path.with_suffix(".bin").read_bytes()
    constants = _Constants(weights)
    layers = root.find("layers")
    if layers is None:
        raise WeightsError(f"the graph of {name} has no layers")
    found = [(layer, constants.source(layer, binary)) for layer in layers if layer.get("type") == "Const"]
    if len(constants.extra) > GRAPH_LIMIT:
        worst = sorted(constants.unmatched, reverse=True)[:3]
        raise WeightsError(
            f"the graph of {name} has {len(constants.extra)} bytes of constants that are no weights, at most "
            f"{GRAPH_LIMIT} are allowed: a layer computes with its weights before it uses them ({worst})"
        )
    tensors = dict(weights)
    if constants.extra:
        tensors[GRAPH_TENSOR] = np.frombuffer(bytes(constants.extra), np.uint8)
    target = Path(out_folder) / f"{name}.safetensors"
    write(target, tensors, stored)
    digest = sha256(target)
    places, _ = layout(target)
    for layer, (tensor, begin, size) in found:
        _point(root, layer, places[tensor], begin, size)
    _keep_f32(root)
    graph = target.with_suffix(".xml")
    replace(graph, [_serialised(root, name, digest)])
    return Exported(target, graph, digest, len(constants.extra), constants.reused)


def stored_weights(module: nn.Module, keep_f32: Collection[str] = ()) -> dict[str, NumpyArray]:
    """The state dict as it is stored: float16, or float32 for the names in ``keep_f32``; integers as they are."""
    state = module.state_dict()
    unknown = sorted(set(keep_f32) - set(state))
    if unknown:
        raise WeightsError(f"keep_f32 names no weights of the network: {', '.join(unknown[:3])}")
    weights = {}
    for name, value in state.items():
        array = value.detach().cpu()
        if array.is_floating_point():
            wide = array.float()
            if name not in keep_f32 and not bool((wide.abs() <= HALF_MAX).all()):
                raise WeightsError(f"{name} has values beyond float16's {HALF_MAX:.0f} or not a number: keep it f32")
            array = wide if name in keep_f32 else wide.half()
        weights[name] = array.contiguous().numpy()
    return weights


def _with_weights(module: nn.Module, weights: Mapping[str, NumpyArray]) -> nn.Module:
    """A float32 copy that computes with the stored numbers."""
    rounded = copy.deepcopy(module).eval().float().requires_grad_(False)
    rounded.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return rounded


def _convert(
    module: nn.Module, examples: Mapping[str, torch.Tensor], inputs: Sequence[str], outputs: Sequence[str], path: Path
) -> None:
    traced = _Traced(module, inputs).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks about Python numbers; tests compare the results instead
        model = convert_model(traced, example_input=tuple(examples[n] for n in inputs))
    if len(model.inputs) != len(inputs) or len(model.outputs) != len(outputs):
        raise WeightsError(
            f"the graph has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            f"expected {', '.join(inputs)} and {', '.join(outputs)}"
        )
    for port, name in (*zip(model.inputs, inputs, strict=True), *zip(model.outputs, outputs, strict=True)):
        port.get_tensor().set_names({name})
    shapes = {}
    for port, name in zip(model.inputs, inputs, strict=True):
        shape: list[int] = list(examples[name].shape)
        for axis in DYNAMIC_AXES.get(name, (0,)):
            shape[axis] = -1
        shapes[port] = shape
    model.reshape(shapes)
    _reshape_precise(model)
    openvino().save_model(model, str(path), compress_to_fp16=False)


def _reshape_precise(model: Any) -> None:
    """Write ``t[:, None]`` as Reshape: an Unsqueeze is replaced later, and that loses its mark (``_keep_f32``)."""
    ops = openvino().opset13
    for node in model.get_ops():
        source = node.input_value(0) if node.get_type_name() == "Unsqueeze" else None
        if source is None or source.get_node().get_type_name() != "Parameter":
            continue
        if source.get_names() & set(PRECISE_INPUTS) and len(source.get_partial_shape()) == 1:
            axis = int(node.input_value(1).get_node().get_data().ravel()[0])
            shape = ops.constant(np.array([1, -1] if axis == 0 else [-1, 1], np.int64))
            node.output(0).replace(ops.reshape(source, shape, False).output(0))


def _keep_f32(root: ET.Element) -> None:
    """Mark the layers that OpenVINO shall leave in float32 whatever the precision: from PRECISE_INPUTS to the products.

    The mark is OpenVINO's own DisableFP16Compression. Layers that it replaces by others while compiling lose it; tests
    compare both engines over the range of t.
    """
    layers = {layer.get("id"): layer for layer in root.iterfind("layers/layer")}
    following: dict[str | None, list[str | None]] = {}
    for edge in root.iterfind("edges/edge"):
        following.setdefault(edge.get("from-layer"), []).append(edge.get("to-layer"))
    ports = {i: layer.find("output/port") for i, layer in layers.items() if layer.get("type") == "Parameter"}
    todo = [i for i, port in ports.items() if port is not None and port.get("names") in PRECISE_INPUTS]
    seen = set(todo)
    while todo:
        for i in following.get(todo.pop(), []):
            if i in seen or layers[i].get("type") in ("MatMul", "Convolution", "Result", "ShapeOf"):
                continue
            seen.add(i)
            todo.append(i)
            info = layers[i].find("rt_info")
            if info is None:
                info = ET.Element("rt_info")
                layers[i].insert(0 if layers[i].find("data") is None else 1, info)
            ET.SubElement(info, "attribute", {"name": "precise", "version": "0"})


@dataclass(slots=True)
class _Constants:
    """Finds a graph's constants among the weights by their bytes; collects the rest."""

    weights: Mapping[str, NumpyArray]
    extra: bytearray = field(default_factory=bytearray)
    unmatched: list[tuple[int, str]] = field(default_factory=list)
    reused: int = 0
    _weights_by_digest: dict[bytes, str] = field(default_factory=dict)
    _extra_by_bytes: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Last wins below, so that of equal tensors the first name is taken whatever else there is.
        for name in sorted(self.weights, reverse=True):
            array = self.weights[name]
            wide = array.astype(np.float32) if array.dtype == np.float16 else array
            self._weights_by_digest[_digest(wide.tobytes())] = name

    def source(self, layer: ET.Element, binary: bytes) -> tuple[str, int, int]:
        """(tensor's name, first byte in it, bytes) for one Const layer."""
        data = _data(layer)
        begin, size = int(data.get("offset", "0")), int(data.get("size", "0"))
        blob = binary[begin : begin + size]
        if size == 0:
            return next(iter(self.weights)), 0, 0
        name = self._weights_by_digest.get(_digest(blob))
        # Scalars and the like are told from weights by their size: a weight of 4 bytes is cheaper copied than shared.
        if name is not None and size > 8 and data.get("element_type") in ("f32", "i64", "i32", "u8", "i8"):
            self.reused += self.weights[name].nbytes
            return name, 0, self.weights[name].nbytes
        if blob not in self._extra_by_bytes:
            self.extra.extend(bytes(-len(self.extra) % 8))
            self._extra_by_bytes[blob] = len(self.extra)
            self.extra.extend(blob)
            self.unmatched.append((size, layer.get("name", "?")))
        return GRAPH_TENSOR, self._extra_by_bytes[blob], size


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _data(layer: ET.Element) -> ET.Element:
    data = layer.find("data")
    if data is None:
        raise WeightsError(f"the graph's constant {layer.get('name')!r} has no data")
    return data


def _point(root: ET.Element, layer: ET.Element, place: Place, begin: int, size: int) -> None:
    """Make a Const layer read ``size`` bytes of the safetensors file; a float16 weight gets a Convert behind it."""
    data = _data(layer)
    data.set("offset", str(place.offset + begin))
    data.set("size", str(size))
    if place.dtype == "F16" and data.get("element_type") == "f32":
        _decompress(root, layer)


def _decompress(root: ET.Element, layer: ET.Element) -> None:
    """Turn Const (f32) into Const (f16) → Convert (f32), marked as OpenVINO marks its own compressed weights."""
    layers, edges = root.find("layers"), root.find("edges")
    output = layer.find("output/port")
    assert layers is not None and edges is not None and output is not None
    new = str(max(int(other.get("id", "0")) for other in layers) + 1)
    for edge in edges:
        if edge.get("from-layer") == layer.get("id"):
            edge.set("from-layer", new)
            edge.set("from-port", "1")
    link = {"from-layer": layer.get("id", ""), "from-port": output.get("id", "0"), "to-layer": new, "to-port": "0"}
    ET.SubElement(edges, "edge", link)
    convert = ET.SubElement(layers, "layer", {"id": new, "type": "Convert", "version": "opset1"})
    ET.SubElement(convert, "data", {"destination_type": "f32"})
    ET.SubElement(ET.SubElement(convert, "rt_info"), "attribute", {"name": "decompression", "version": "0"})
    wide, half = copy.deepcopy(output), copy.deepcopy(output)
    half.set("id", "0")
    half.set("precision", "FP16")
    wide.set("id", "1")
    ET.SubElement(convert, "input").append(half)
    ET.SubElement(convert, "output").append(wide)
    output.set("precision", "FP16")
    _data(layer).set("element_type", "f16")


def _serialised(root: ET.Element, name: str, digest: str) -> bytes:
    """The graph as text, one layer a line, without anything that changes from one run to the next."""
    root.set("name", name)
    named = _named_ports(root)
    for layer in root.iterfind("layers/layer"):
        for port in layer.iterfind("output/port"):
            if (layer.get("id"), port.get("id")) not in named:
                port.attrib.pop("names", None)
        # The converter's own names carry counters that run on within a process.
        port_name = next((port.get("names") for port in layer.iterfind("output/port")), None)
        is_input = layer.get("type") == "Parameter" and port_name is not None
        layer.set("name", str(port_name) if is_input else f"{layer.get('type')}_{layer.get('id')}")
    for old in root.findall("rt_info"):
        root.remove(old)
    own = ET.SubElement(ET.SubElement(root, "rt_info"), "chashka")
    ET.SubElement(own, "weights_sha256", {"value": digest})
    for element in root.iter():
        element.text, element.tail = (element.text or "").strip() or None, None
    for parent in (root, *root.iterfind("layers"), *root.iterfind("edges")):
        parent.text = "\n"
        for child in parent:
            child.tail = "\n"
    text: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0"?>\n{text}\n'.encode()


def _named_ports(root: ET.Element) -> set[tuple[str | None, str | None]]:
    """(layer, port) of everything whose name is part of the boundary: the inputs, and what the outputs read."""
    types = {layer.get("id"): layer.get("type") for layer in root.iterfind("layers/layer")}
    named = {
        (e.get("from-layer"), e.get("from-port"))
        for e in root.iterfind("edges/edge")
        if types[e.get("to-layer")] == "Result"
    }
    inputs = (layer for layer in root.iterfind("layers/layer") if layer.get("type") == "Parameter")
    return named | {(layer.get("id"), port.get("id")) for layer in inputs for port in layer.iterfind("output/port")}
