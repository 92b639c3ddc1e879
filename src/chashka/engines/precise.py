"""The marks of layers that stay in float32 whatever the precision, in a graph's file. Saving a graph loses them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from chashka.engines.components import PRECISE_INPUTS


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
            if i in seen or layers[i].get("type") in ("MatMul", "Convolution", "Result", "ShapeOf"):
                continue
            seen.add(i)
            todo.append(i)
            info = layers[i].find("rt_info")
            if info is None:
                info = ET.Element("rt_info")
                layers[i].insert(0 if layers[i].find("data") is None else 1, info)
            ET.SubElement(info, "attribute", {"name": "precise", "version": "0"})
