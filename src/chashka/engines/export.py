"""From a torch module to a component: one safetensors file with all weights, one graph whose constants lie in it.

OpenVINO's own ``.bin`` would store the weights a second time. Its file format only asks that every constant is so many
bytes at some offset of one file, so the graph points into the safetensors file. What the conversion computes itself
(shapes, axes, small tables) goes into one more tensor there, ``__graph__``. A weight stored as int8 is a constant of int8, a
Convert and a Multiply by its scales, which lie there too; the numbers are the ones that ``checkpoints.int8`` gives.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from chashka.checkpoints import low_rank
from chashka.checkpoints.int8 import SCALES, to_int8, widened
from chashka.checkpoints.safetensors_file import (
    GRAPH_TENSOR,
    NumpyArray,
    Place,
    layout,
    read_metadata,
    read_tensors,
    replace,
    sha256,
    write,
)
from chashka.engines.components import PRECISIONS, describe, kept_wide
from chashka.engines.conversion import save_graph
from chashka.engines.precise import keep_precise
from chashka.errors import WeightsError

GRAPH_LIMIT = 65536  # bytes of constants of the graph's own; more means that weights were rearranged
HALF_MAX = 65504.0  # the largest float16
PORT_TYPES = {
    "F16": "FP16",
    "I8": "I8",
}  # stored types of weights that become float32 in the graph, as its ports call them


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written. graph_bytes: constants that are no weights; reused_bytes: those that are weights."""

    weights: Path
    graph: Path
    sha256: str
    graph_bytes: int
    reused_bytes: int


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
    precision: str = "fp16",
) -> Exported:
    """Write ``<name>.safetensors`` and ``<name>.xml`` into ``out_folder``; the same module gives the same bytes.

    module: has its configuration in ``cfg`` and is left as it is. example_inputs: one small tensor per name of
    ``input_names`` (docs/networks.md); axes of ``DYNAMIC_AXES`` stay open in the graph. metadata: stored beside ours.
    keep_f32: names of weights that stay float32; all others are stored as float16. precision: "fp16", or "int8" for one
    byte a weight where that serves (``components.kept_wide``) and float16 elsewhere. Both engines compute with exactly
    the stored numbers. Raises WeightsError where float16 would overflow, or if the conversion rearranged weights.
    """
    weights = stored_weights(module, keep_f32, precision)
    stored = dict(metadata or {}) | describe(module, input_names, output_names) | {"precision": precision}
    if precision == "int8":
        stored["int8"] = json.dumps(sorted(name.removesuffix(SCALES) for name in weights if name.endswith(SCALES)))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "graph.xml"
        save_graph(_with_weights(module, weights), example_inputs, input_names, output_names, path)
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
        _point(root, layer, places[tensor], begin, size, places.get(tensor + SCALES))
    keep_precise(root)
    graph = target.with_suffix(".xml")
    replace(graph, [_serialised(root, name, digest)])
    return Exported(target, graph, digest, len(constants.extra), constants.reused)


def export_change(
    change: Mapping[str, torch.Tensor], base: Path, name: str, metadata: Mapping[str, str], precision: str = "int8"
) -> Path:
    """Write what is changed in the weights of the exported component ``base`` as ``<name>.safetensors`` beside it.

    change: see ``checkpoints.low_rank``. Its graph is the base's. Raises WeightsError where the two do not fit.
    """
    tensors = {key: value.detach().cpu().float().numpy() for key, value in change.items()}
    low_rank.layers(tensors, read_tensors(base), name)
    stored: dict[str, NumpyArray] = {}
    for key, array in tensors.items():
        if precision == "int8":
            stored[key], stored[key + SCALES] = to_int8(array)
        else:
            stored[key] = array.astype(np.float16)
    own = read_metadata(base)
    told = dict(metadata) | {
        key: own[key] for key in ("format", "class", "config_class", "config", "inputs", "outputs")
    }
    told |= {"precision": precision, "base": base.stem, "base_sha256": sha256(base)}
    if precision == "int8":
        told["int8"] = json.dumps(sorted(tensors))
    target = base.with_name(f"{name}.safetensors")
    write(target, stored, told)
    return target


def stored_weights(module: nn.Module, keep_f32: Collection[str] = (), precision: str = "fp16") -> dict[str, NumpyArray]:
    """The state dict as it is stored: float16, or float32 for the names in ``keep_f32``; integers as they are.

    With precision "int8" large weights are int8, and each has one more entry with its scales.
    """
    state = module.state_dict()
    unknown = sorted(set(keep_f32) - set(state))
    if unknown:
        raise WeightsError(f"keep_f32 names no weights of the network: {', '.join(unknown[:3])}")
    if precision not in PRECISIONS:
        raise WeightsError(f"precision {precision!r} does not exist; use one of {', '.join(PRECISIONS)}")
    weights: dict[str, NumpyArray] = {}
    for name, value in state.items():
        array = value.detach().cpu()
        if array.is_floating_point():
            wide = array.float()
            if name not in keep_f32 and not bool((wide.abs() <= HALF_MAX).all()):
                raise WeightsError(f"{name} has values beyond float16's {HALF_MAX:.0f} or not a number: keep it f32")
            if precision == "int8" and name not in keep_f32 and not kept_wide(module, name, wide.shape):
                weights[name], weights[name + SCALES] = to_int8(wide.numpy())
                continue
            array = wide if name in keep_f32 else wide.half()
        weights[name] = array.contiguous().numpy()
    return weights


def _with_weights(module: nn.Module, weights: Mapping[str, NumpyArray]) -> nn.Module:
    """A float32 copy that computes with the stored numbers."""
    rounded = copy.deepcopy(module).eval().float().requires_grad_(False)
    rounded.load_state_dict({name: torch.from_numpy(array) for name, array in widened(weights).items()})
    return rounded


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
        values = widened(self.weights)
        for name in sorted(values, reverse=True):
            array = values[name]
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


def _point(root: ET.Element, layer: ET.Element, place: Place, begin: int, size: int, scales: Place | None) -> None:
    """Make a Const layer read ``size`` bytes of the safetensors file; behind it what makes float32 of what it reads."""
    data, output = _data(layer), layer.find("output/port")
    assert output is not None
    data.set("offset", str(place.offset + begin))
    data.set("size", str(size))
    if data.get("element_type") != "f32" or place.dtype not in PORT_TYPES:
        return
    extents = [int(extent.text or 0) for extent in output.iterfind("dim")]
    output.set("precision", PORT_TYPES[place.dtype])
    data.set("element_type", place.dtype.lower())
    taken = _followers(root, layer)
    # OpenVINO marks the Convert of its own float16 weights so; that of int8 weights it knows by the Multiply behind it.
    convert = _appended(root, "Convert", {"destination_type": "f32"}, [layer], extents, decompression=scales is None)
    last = convert
    if scales is not None:
        if extents[:1] != list(scales.shape):
            raise WeightsError(f"{layer.get('name')}: the graph has these weights as {extents}, not by output channel")
        shape = [*scales.shape, *(1 for _ in extents[1:])]
        place_of = {"element_type": "f32", "shape": ", ".join(map(str, shape))}
        place_of |= {"offset": str(scales.offset), "size": str(scales.size)}
        last = _appended(
            root,
            "Multiply",
            {"auto_broadcast": "numpy"},
            [convert, _appended(root, "Const", place_of, [], shape)],
            extents,
        )
    for edge in taken:
        edge.set("from-layer", last.get("id", ""))
        edge.set("from-port", _data_port(last))


def _data_port(layer: ET.Element) -> str:
    port = layer.find("output/port")
    assert port is not None
    return port.get("id", "0")


def _followers(root: ET.Element, layer: ET.Element) -> list[ET.Element]:
    return [edge for edge in root.iterfind("edges/edge") if edge.get("from-layer") == layer.get("id")]


def _appended(
    root: ET.Element,
    kind: str,
    data: Mapping[str, str],
    sources: Sequence[ET.Element],
    shape: Sequence[int],
    *,
    decompression: bool = False,
) -> ET.Element:
    """A new layer behind the graph's others that reads the first outputs of ``sources`` and gives float32 of ``shape``."""
    layers, edges = root.find("layers"), root.find("edges")
    assert layers is not None and edges is not None
    new = str(max(int(other.get("id", "0")) for other in layers) + 1)
    layer = ET.SubElement(layers, "layer", {"id": new, "type": kind, "version": "opset1"})
    ET.SubElement(layer, "data", dict(data))
    if decompression:
        ET.SubElement(ET.SubElement(layer, "rt_info"), "attribute", {"name": "decompression", "version": "0"})
    if sources:
        inputs = ET.SubElement(layer, "input")
        for number, source in enumerate(sources):
            port = copy.deepcopy(source.find("output/port"))
            assert port is not None
            port.set("id", str(number))
            inputs.append(port)
            link = {"from-layer": source.get("id", ""), "from-port": _data_port(source)}
            ET.SubElement(edges, "edge", link | {"to-layer": new, "to-port": str(number)})
    output = ET.SubElement(ET.SubElement(layer, "output"), "port", {"id": str(len(sources)), "precision": "FP32"})
    for extent in shape:
        ET.SubElement(output, "dim").text = str(extent)
    return layer


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
