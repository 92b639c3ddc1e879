"""A component that changes another one's weights (``checkpoints.low_rank``), as a graph: the other's own, with other constants.

The sums are made here and not by layers of the graph: OpenVINO 2026.4 would fold such layers too, but dies of it (SIGFPE) when the
graph is to compute in bfloat16.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from chashka.checkpoints.low_rank import changed
from chashka.checkpoints.safetensors_file import layout, read_tensors
from chashka.engines.runtime import openvino
from chashka.errors import WeightsError


def change_weights(model: Any, graph: Path, base: Path, change: Path) -> None:
    """Put the changed weights into ``model`` in place. model: read from ``graph`` over ``base``. Raises WeightsError."""
    weights = changed(read_tensors(base), read_tensors(change), str(change))
    wanted = set(weights)
    names, ops = _constants(graph, base), openvino().opset13
    for node in model.get_ordered_ops():
        name = names.get(node.get_friendly_name())
        if name in wanted:
            wanted.remove(name)
            _widened(node).replace(ops.constant(weights[name]).output(0))
    if wanted:
        raise WeightsError(f"{graph} does not read {sorted(wanted)[0]}, which {change} changes: export both again")
    model.validate_nodes_and_infer_types()


def _constants(graph: Path, base: Path) -> dict[str, str]:
    """Which weight each constant is, by the constant's name in the graph."""
    starts = {place.offset: name for name, place in layout(base)[0].items()}
    found = {}
    for layer in ET.parse(graph).getroot().iterfind("layers/layer[@type='Const']"):
        data = layer.find("data")
        name = None if data is None else starts.get(int(data.get("offset", "-1")))
        if name is not None:
            found[layer.get("name", "")] = name
    return found


def _widened(constant: Any) -> Any:
    """The output that gives a stored weight as float32: behind a Convert, of int8 behind a Multiply by its scales as well."""
    output = constant.output(0)
    kinds = {"i8": ("Convert", "Multiply"), "f16": ("Convert",)}
    for kind in kinds.get(output.get_element_type().get_type_name(), ()):
        readers = [reader.get_node() for reader in output.get_target_inputs()]
        if [reader.get_type_name() for reader in readers] != [kind]:
            raise WeightsError(
                f"the graph reads {constant.get_friendly_name()} in another way than ours: export it again"
            )
        output = readers[0].output(0)
    return output
