"""Matrix products in float32 whose weights are stored as float16: told to OpenVINO as plain float32 weights.

It knows stored float16 by a mark on the Convert behind them, and computes products with marked weights by another kernel than plain
ones, which took 2 to 4 % more of a whole U-Net's time (2026.4, AVX2). Without the mark the weights become float32 when the graph
is compiled, by the same numbers. Convolutions have one kernel for both.
"""

from __future__ import annotations

from typing import Any

from chashka.engines.runtime import openvino


def widen_products(model: Any) -> int:
    """Take the mark from every Convert of a constant that a MatMul reads; returns how many there were."""
    ops, count = openvino().opset13, 0
    for node in model.get_ops():
        if node.get_type_name() != "Convert" or node.input_value(0).get_node().get_type_name() != "Constant":
            continue
        readers = [reader.get_node().get_type_name() for reader in node.output(0).get_target_inputs()]
        if "MatMul" in readers and "decompression_0" in node.get_rt_info():
            node.output(0).replace(ops.convert(node.input_value(0), "f32").output(0))
            count += 1
    return count
