"""A graph that computes in bfloat16 by its own types, for a U-Net whose weights are stored so.

Told to compute a float32 graph in bfloat16, OpenVINO 2026.4 makes float32 constants of stored float16 weights, packs those into
bfloat16 and keeps both: for each weight two bytes of the file, four and two of memory. A graph whose types are bfloat16 reads the
file's own constants and packs them, half of that. What is computed is the same up to rounding.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chashka.engines.precise import precise_nodes
from chashka.engines.runtime import openvino

FLOAT32_PORTS: dict[str, tuple[int, ...]] = {"Interpolate": (1, 2, 3), "Range": (0, 1, 2)}
"""Inputs that say where and how far, by operation: they stay what they are."""
UNTOUCHED = ("Constant", "Parameter", "Result")


def to_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The nearest bfloat16, as bits; halves go to the even one, and what is no number stays none."""
    wide = np.ascontiguousarray(values, np.float32)
    bits = wide.view(np.uint32)
    return np.where(np.isnan(wide), 0x7FC0, (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def store_bfloat16(graph: Path) -> None:
    """Rewrite a converted graph's float16 constants, in the .bin beside it, as bfloat16: the same bytes in number and place."""
    tree = ET.parse(graph)
    data = np.memmap(graph.with_suffix(".bin"), np.uint8, "r+")
    done = set()
    for layer in tree.getroot().iterfind("layers/layer[@type='Const']"):
        place, port = layer.find("data"), layer.find("output/port")
        if place is None or port is None or place.get("element_type") != "f16":
            continue
        begin, size = int(place.get("offset", "0")), int(place.get("size", "0"))
        if size and begin not in done:
            part = data[begin : begin + size]
            part[:] = to_bfloat16(part.view(np.float16)).view(np.uint8)
            done.add(begin)
        place.set("element_type", "bf16")
        port.set("precision", "BF16")
    data.flush()
    tree.write(graph, encoding="utf-8", xml_declaration=True)


def lower(model: Any) -> None:
    """Make every operation of ``model`` compute in bfloat16, in place, but those between a precise input and the first product.
    Inputs and outputs stay float32."""
    wide, lowered = precise_nodes(model), _Lowered()
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in UNTOUCHED or node.get_friendly_name() in wide or _widens_constant(node):
            continue
        if kind == "Convert" and _is(node.output(0), "f32"):
            node.output(0).replace(openvino().opset13.convert(node.input_value(0), "bf16").output(0))
            continue
        for i, port in enumerate(node.inputs()):
            if i not in FLOAT32_PORTS.get(kind, ()) and _is(port.get_source_output(), "f32"):
                port.replace_source_output(lowered(port.get_source_output()))
        node.constructor_validate_and_infer_types()
    for result in model.get_results():
        source = result.input_value(0)
        if _is(source, "bf16"):
            names = source.get_tensor().get_names()
            back = openvino().opset13.convert(source, "f32").output(0)
            source.get_tensor().set_names(set())
            back.get_tensor().set_names(names)
            result.input(0).replace_source_output(back)
    model.validate_nodes_and_infer_types()


class _Lowered:
    """bfloat16 twins of float32 outputs, one for each: the stored constant itself, a new constant, or a Convert."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], Any] = {}

    def __call__(self, source: Any) -> Any:
        key = (source.get_node().get_friendly_name(), source.get_index())
        if key not in self._made:
            stored = self.stored(source)
            self._made[key] = openvino().opset13.convert(source, "bf16").output(0) if stored is None else stored
        return self._made[key]

    def stored(self, source: Any) -> Any:
        """The constant behind an output as bfloat16; None where it is computed."""
        node = source.get_node()
        if _widens_constant(node) and _is(node.input_value(0), "bf16"):
            return node.input_value(0)
        return _constant(node.get_data()) if node.get_type_name() == "Constant" and _is(source, "f32") else None


def _widens_constant(node: Any) -> bool:
    """A Convert of stored numbers, which those who read it do away with, or keep where they are precise."""
    return bool(node.get_type_name() == "Convert" and node.input_value(0).get_node().get_type_name() == "Constant")


def _constant(values: npt.NDArray[Any]) -> Any:
    tensor = openvino().Tensor(openvino().Type.bf16, openvino().Shape(list(values.shape)))
    tensor.data[...] = to_bfloat16(values).reshape(values.shape).view(tensor.data.dtype)
    return openvino().opset13.constant(tensor, shared_memory=False).output(0)


def _is(output: Any, kind: str) -> bool:
    return bool(output.get_element_type().get_type_name() == kind)
