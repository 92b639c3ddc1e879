"""Seamless pictures: convolutions of an OpenVINO graph that see the opposite edge instead of zeros."""

from __future__ import annotations

from typing import Any

from chashka.engines.runtime import openvino

AXES = {"y": 2, "x": 3}
"""Of arrays (B, C, h, w); a convolution's pads are numbered from h on."""


def wrap_convolutions(model: Any, axes: str) -> None:
    """Change every padded convolution over h and w in place. axes: of 'x' and 'y'."""
    ops = openvino().opset13
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Pad":
            _wrap_pad(ops, node, axes)
        if node.get_type_name() not in ("Convolution", "GroupConvolution"):
            continue
        said = node.get_attributes()
        pads = [list(said["pads_begin"]), list(said["pads_end"])]
        if len(pads[0]) != 2 or not any(pads[0] + pads[1]):
            continue
        data = node.input_value(0)
        for axis in axes:
            number = AXES[axis]
            before, after = (side[number - 2] for side in pads)
            data = _wrapped(ops, data, number, before, after)
            for side in pads:
                side[number - 2] = 0
        make = ops.convolution if node.get_type_name() == "Convolution" else ops.group_convolution
        other = make(data, node.input_value(1), said["strides"], *pads, said["dilations"], auto_pad="explicit")
        other.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(other.output(0))
    model.validate_nodes_and_infer_types()


def _wrap_pad(ops: Any, node: Any, axes: str) -> None:
    """The same for an operation that pads by constants."""
    pads = [node.input_value(i).get_node() for i in (1, 2)]
    if node.get_attributes()["pad_mode"] != "constant" or any(p.get_type_name() != "Constant" for p in pads):
        return
    begin, end = ([int(n) for n in p.data.reshape(-1)] for p in pads)
    if len(begin) != 4:
        return
    data = node.input_value(0)
    for axis in axes:
        number = AXES[axis]
        data = _wrapped(ops, data, number, begin[number], end[number])
        begin[number] = end[number] = 0
    other = ops.pad(data, begin, end, "constant", node.input_value(3))
    node.output(0).replace(other.output(0))


def _wrapped(ops: Any, data: Any, axis: int, before: int, after: int) -> Any:
    """The last ``before`` rows in front, the first ``after`` behind."""
    parts = [data]
    if before:
        parts.insert(0, ops.slice(data, [-before], [2**31 - 1], [1], [axis]).output(0))
    if after:
        parts.append(ops.slice(data, [0], [after], [1], [axis]).output(0))
    return ops.concat(parts, axis).output(0) if len(parts) > 1 else data
