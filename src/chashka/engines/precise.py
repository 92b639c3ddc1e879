"""Layers that stay in float32 whatever the precision: their marks in a graph's file, which saving loses, and their constants.

A graph that is saved with float16 weights has float16 frequencies as well, wrong in the fourth digit; times t = 999 that is a
quarter of a radian.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chashka.engines.components import PRECISE_INPUTS

PRODUCTS = ("MatMul", "Convolution", "Result", "ShapeOf")
"""Where what must be precise ends."""
COMPRESSED = "_compressed"
"""Behind the name of a constant that was saved as float16."""


def keep_precise(root: ET.Element) -> None:
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
            if i in seen or layers[i].get("type") in PRODUCTS:
                continue
            seen.add(i)
            todo.append(i)
            info = layers[i].find("rt_info")
            if info is None:
                info = ET.Element("rt_info")
                layers[i].insert(0 if layers[i].find("data") is None else 1, info)
            ET.SubElement(info, "attribute", {"name": "precise", "version": "0"})


def precise_nodes(model: Any) -> dict[str, Any]:
    """The same layers of a model in memory, by name."""
    todo = [p for p in model.get_parameters() if p.output(0).get_names() & set(PRECISE_INPUTS)]
    found: dict[str, Any] = {}
    while todo:
        node = todo.pop()
        if node.get_friendly_name() not in found and node.get_type_name() not in PRODUCTS:
            found[node.get_friendly_name()] = node
            todo += [reader.get_node() for output in node.outputs() for reader in output.get_target_inputs()]
    return found


def precise_constants(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 constants that those layers read, by name; of a model that was not saved yet."""
    read = [port.get_source_output().get_node() for node in precise_nodes(model).values() for port in node.inputs()]
    wide = [
        n for n in read if n.get_type_name() == "Constant" and n.output(0).get_element_type().get_type_name() == "f32"
    ]
    return {node.get_friendly_name(): np.array(node.get_data()) for node in wide}


def keep_constants(root: ET.Element, binary: Path, constants: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Have the saved graph read these constants as float32 again, from behind everything else in ``binary``."""
    for layer in root.iterfind("layers/layer[@type='Const']"):
        data, port, name = layer.find("data"), layer.find("output/port"), layer.get("name", "")
        values = constants.get(name.removesuffix(COMPRESSED))
        if values is None or data is None or port is None or data.get("element_type") != "f16":
            continue
        with binary.open("ab") as file:
            file.write(bytes(-file.tell() % 8))
            place = {"element_type": "f32", "offset": str(file.tell()), "size": str(values.nbytes)}
            file.write(np.ascontiguousarray(values, np.float32).tobytes())
        for key, value in place.items():
            data.set(key, value)
        port.set("precision", "FP32")
        for edge in root.iterfind(f"edges/edge[@from-layer='{layer.get('id')}']"):
            reader = root.find(f"layers/layer[@id='{edge.get('to-layer')}']/input/port[@id='{edge.get('to-port')}']")
            if reader is not None:
                reader.set("precision", "FP32")
