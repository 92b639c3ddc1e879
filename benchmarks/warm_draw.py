"""Seconds per picture once everything is loaded, beside the limit that this machine sets.

    python benchmarks/warm_draw.py [N]

The limit is the arithmetic of all calls that one picture needs (U-Net with guidance: two rows a step; text; decoder),
counted from the graphs, divided by the speed of one large f32 matrix product on the same engine and the same cores. The
ratio says how much of the time is anything else; it is measured in one run, so that the machine does not matter.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

import chashka
from chashka.checkpoints import read_metadata
from chashka.families.family import Preset

STEPS = 12
PROMPT = "красное яблоко"
GEMM = 1536
GUIDED_ROWS = 2
LATENTS = (16, 16, 16)
TOKENS = 16


def seconds(call: Callable[[], object], runs: int) -> list[float]:
    """Wall times of ``runs`` calls, after one that is not counted."""
    call()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times


def gemm_speed() -> float:
    """FLOP/s of one GEMM×GEMM f32 matrix product in OpenVINO on the CPU: the best of several."""
    left, right = (ops.parameter([GEMM, GEMM], ov.Type.f32) for _ in range(2))
    model = ov.Model([ops.matmul(left, right, False, False)], [left, right], "gemm")
    hint = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", hint).create_infer_request()
    values = np.random.default_rng(0).standard_normal((GEMM, GEMM), dtype=np.float32)
    return 2 * GEMM**3 / min(seconds(lambda: request.infer([values, values]), 8))


def flops(model: Any) -> int:
    """2 × multiply-adds of the convolutions and matrix products of a graph whose shapes are all known."""
    total = 0
    for op in model.get_ordered_ops():
        kind = op.get_type_name()
        if kind in ("Convolution", "GroupConvolution"):
            weight = list(op.input(1).get_partial_shape().to_shape())
            per_output = int(np.prod(weight[1:] if kind == "Convolution" else weight[2:]))
            total += 2 * per_output * int(np.prod(list(op.output(0).get_shape())))
        elif kind == "MatMul":
            attributes = op.get_attributes()
            inner = list(op.input(0).get_shape())[-2 if attributes["transpose_a"] else -1]
            total += 2 * int(inner) * int(np.prod(list(op.output(0).get_shape())))
        elif kind == "ScaledDotProductAttention":
            query, key = (list(op.input(i).get_shape()) for i in (0, 1))
            total += 4 * int(np.prod(query)) * int(key[-2])
    return total


def shape_of(name: str, rows: int, known: Any, channels: int) -> list[int]:
    """The shape that an input has in one picture's drawing, by its name in docs/networks.md. channels: the U-Net's at its input."""
    width = known[len(known) - 1]
    lengths = {
        "t": [rows],
        "ids": [rows, TOKENS],
        "mask": [rows, TOKENS],
        "x": [rows, channels, *LATENTS[1:]],
        "latents": [rows, *LATENTS],
    }
    if name in lengths:
        return lengths[name]
    if name == "tokens":
        return [rows, 2 * TOKENS, width.get_length()]
    return [rows, TOKENS, width.get_length()] if len(known) == 3 else [rows, width.get_length()]


def picture_flops(preset: Preset) -> dict[str, int]:
    """FLOPs by component for one picture of STEPS steps with guidance."""
    core, folder = ov.Core(), preset.folder
    assert folder is not None  # what is embedded has one
    calls = {"text_contrastive": (2, 1), "text_t5": (2, 1), "text_head": (2, 1), "unet": (GUIDED_ROWS, STEPS)}
    channels = json.loads(read_metadata(folder / "unet.safetensors")["config"])["in_channels"]
    counted = {}
    for name, (rows, times) in {**calls, "decoder": (1, 1)}.items():
        model = core.read_model(folder / f"{name}.xml", folder / f"{name}.safetensors")
        named = {p.get_any_name(): p.get_partial_shape() for p in model.inputs}
        model.reshape({port: shape_of(port, rows, known, channels) for port, known in named.items()})
        counted[name] = times * flops(model)
    return counted


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    bundle = chashka.load()
    request = chashka.Request(prompt=PROMPT, seed=1, steps=STEPS)
    request = bundle.request(**request.model_dump(exclude_none=True))
    times = seconds(lambda: chashka.draw(bundle, request), runs)
    draft = bundle.request(prompt=PROMPT, seed=1, fast=True)
    drafts = seconds(lambda: chashka.draw(bundle, draft), runs)
    counted, speed = picture_flops(bundle.preset), gemm_speed()
    total = sum(counted.values())
    median, limit = statistics.median(times), total / speed
    print(f"warm_draw: one picture, {STEPS} steps with guidance, {runs} times, engine {bundle.engine}")
    print(f"  median             {median:7.3f} s   ({min(times):.3f} … {max(times):.3f} s)")
    quick = statistics.median(drafts)
    asked = f"{draft.steps} steps, guidance {draft.guidance_scale:g}"
    print(
        f"  a draft            {quick:7.3f} s   ({min(drafts):.3f} … {max(drafts):.3f} s), {asked}, {quick / median:.2f} × that"
    )
    print(f"  arithmetic         {total / 1e9:7.1f} GFLOP  (U-Net {100 * counted['unet'] / total:.0f} %)")
    print(f"  matrix product     {speed / 1e9:7.0f} GFLOP/s, f32 {GEMM}×{GEMM}")
    print(f"  limit              {limit:7.3f} s   median is {median / limit:.2f} × the limit")


if __name__ == "__main__":
    main()
