"""Does this machine compute bfloat16 right, and quicker than float32? Asked once per OpenVINO version and processor, in a child.

There are reports of silently wrong bfloat16 matrix products (openvino issue 38256) and of a SIGFPE while compiling
where a hypervisor hides instruction sets (issue 35943); with one thread, on a processor with AMX, compiling the embedded T5
encoder ends so as well (2026.4). The first is found by comparing with float32; the second ends the process that asks,
so a child asks, with as many threads as will compute. Whatever goes wrong, the answer is float32. So it is where bfloat16 is
slower: an Intel Xeon with AVX-512's, whose AMX a hypervisor hides, multiplies it half as fast as float32 and draws in 1.3 times the
time.

    python -m chashka.engines.selftest [THREADS]        prints cosines and seconds as JSON
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import chashka
from chashka.checkpoints.safetensors_file import NumpyArray
from chashka.engines.machine import processor
from chashka.engines.remembered import recall, remember
from chashka.engines.runtime import openvino
from chashka.errors import EngineError

FILE = "selftest.json"
ENCODER = Path(chashka.__file__).parent / "teacup" / "kandinsky" / "text_t5"
ENOUGH = 0.999  # cosine between bf16 and f32; right ones are above 0.99999, wrong ones were at 0.28 to 0.65
SECONDS = 60.0  # for the child; it needs about one
TIMED = 8  # calls in each precision
QUICKER = (
    0.9  # of float32's time bf16 takes at most this where it is taken; where both are alike, chance must not decide
)
CRASHED = 128  # exit codes from here on, and negative ones, are crashes (Windows has 0xC0000094 and the like)
FAILED = "the test could not run"


def best_precision(cache_dir: Path | None = None, threads: int | None = None) -> str:
    """ "bf16" if the child found it present, right and quicker, otherwise "f32". threads: that compute; None: all there are."""
    found = _result(cache_dir, threads)
    taken = found.get("seconds", {})
    return "bf16" if found["bf16"] is True and taken["bf16"] < QUICKER * taken["f32"] else "f32"


def works(cache_dir: Path | None = None, threads: int | None = None) -> bool:
    """Whether bfloat16 is there and right."""
    return _result(cache_dir, threads)["bf16"] is True


def _result(cache_dir: Path | None, threads: int | None) -> dict[str, Any]:
    """What the child found, stored in ``cache_dir``; with None it is remembered for this process alone. A child that could not be
    started, or ended with an error of its own, says nothing about the processor and is asked again next time."""
    key = f"openvino {importlib.metadata.version('openvino')} on {processor()}" + ", one thread" * alone(threads)
    path = cache_dir / FILE if cache_dir else None
    results = {name: result for name, result in recall(path).items() if isinstance(result, dict)}
    if not _whole(results.get(key)):
        results[key] = _ask_child(threads)
        if results[key].get("reason") != FAILED:
            remember(path, results)
    return results[key]


def _whole(result: dict[str, Any] | None) -> bool:
    """Whether a stored result says all that is asked now."""
    if result is None or "bf16" not in result:
        return False
    taken = result.get("seconds")
    timed = isinstance(taken, dict) and all(isinstance(taken.get(name), float) for name in ("f32", "bf16"))
    return timed or result["bf16"] is not True


def alone(threads: int | None) -> bool:
    """Whether one thread computes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (threads or cores) == 1


def judge(cosines: dict[str, float]) -> bool:
    """Whether every comparison came out well; none means that the device has no bfloat16."""
    return bool(cosines) and all(value >= ENOUGH for value in cosines.values())


@cache
def _ask_child(threads: int | None) -> dict[str, Any]:
    """{"bf16": bool, "cosines": {...}, "seconds": {"f32": …, "bf16": …}} or {"bf16": False, "reason": …}."""
    if not sys.executable or getattr(sys, "frozen", False):  # a bundled program would start itself again
        return {"bf16": False, "reason": FAILED}
    # -P: the current folder is not searched
    words = [sys.executable, "-P", "-m", "chashka.engines.selftest", str(threads or 0)]
    try:
        result = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"bf16": False, "reason": f"no answer in {SECONDS:.0f} s"}
    except OSError:
        return {"bf16": False, "reason": FAILED}
    if result.returncode > 0 and result.returncode < CRASHED:
        return {"bf16": False, "reason": FAILED}
    if result.returncode != 0:
        return {"bf16": False, "reason": f"the test crashed with exit code {result.returncode}"}
    try:
        said = json.loads(result.stdout)
        cosines, taken = ({str(n): float(v) for n, v in said[part].items()} for part in ("cosines", "seconds"))
        if cosines and taken.keys() != {"f32", "bf16"}:
            raise ValueError(taken)
    except (ValueError, KeyError, AttributeError, TypeError):
        return {"bf16": False, "reason": "no answer"}
    return {"bf16": judge(cosines), "cosines": cosines, "seconds": taken}


def _graphs(ov: Any) -> dict[str, tuple[Any, list[NumpyArray]]]:
    """Small graphs of the three kinds of layers that do the work, with inputs."""
    op = ov.opset13
    random = np.random.default_rng(0)

    def values(*shape: int) -> NumpyArray:
        return random.standard_normal(shape, dtype=np.float32)

    def built(make: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[Any, list[NumpyArray]]:
        inputs = [op.parameter(list(shape), np.float32) for shape in shapes]
        return ov.Model([make(*inputs)], inputs, "selftest"), [values(*shape) for shape in shapes]

    def convolution(x: Any) -> Any:
        kernel = op.constant(values(96, 64, 3, 3) / 24)
        return op.convolution(x, kernel, strides=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1])

    def product(x: Any) -> Any:
        return op.matmul(x, op.constant(values(192, 256) / 16), False, True)

    def attention(q: Any, k: Any, v: Any) -> Any:
        return op.scaled_dot_product_attention(q, k, v)

    graphs = {"convolution": built(convolution, (2, 64, 16, 16))}
    # Odd and even, short and long: the wrong products depended on the shape.
    for rows in (1, 7, 32, 256):
        graphs[f"matmul {rows}"] = built(product, (2, rows, 256))
    graphs["matmul of two"] = built(lambda a, b: op.matmul(a, b, False, True), (2, 4, 64, 32), (2, 4, 96, 32))
    graphs["attention"] = built(attention, (2, 4, 64, 32), (2, 4, 96, 32), (2, 4, 96, 32))
    return graphs


def _work(ov: Any) -> tuple[Any, list[NumpyArray]]:
    """What is timed: convolutions one after another, as a U-Net's middle levels have them."""
    op = ov.opset13
    random = np.random.default_rng(0)
    first = op.parameter([2, 128, 32, 32], np.float32)
    x = first
    for _ in range(4):
        kernel = op.constant(random.standard_normal((128, 128, 3, 3), dtype=np.float32) / 34)
        x = op.swish(op.convolution(x, kernel, strides=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1]))
    return ov.Model([x], [first], "work"), [random.standard_normal((2, 128, 32, 32), dtype=np.float32)]


def asked(threads: int | None = None) -> dict[str, dict[str, float]]:
    """``cosines`` between bfloat16 and float32 for every graph, and the ``seconds`` that some work takes in each.

    Both are empty where the CPU has no bfloat16.
    """
    ov = openvino()
    core = ov.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return {"cosines": {}, "seconds": {}}
    settings = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}

    def compiled(model: Any) -> dict[str, Any]:
        hints = {name: settings | {"INFERENCE_PRECISION_HINT": name} for name in ("f32", "bf16")}
        return {name: core.compile_model(model, "CPU", hint) for name, hint in hints.items()}

    return {"cosines": _cosines(_graphs(ov) | _text(core), compiled), "seconds": _seconds(*_work(ov), compiled)}


def _seconds(model: Any, inputs: list[NumpyArray], compiled: Callable[[Any], dict[str, Any]]) -> dict[str, float]:
    """The quickest of some calls in turns, so that what else the machine does slows both."""
    taken: dict[str, list[float]] = {}
    both = compiled(model)
    for number in range(2 + TIMED):
        for name, call in both.items():
            started = time.perf_counter()
            call(inputs)
            if number >= 2:
                taken.setdefault(name, []).append(time.perf_counter() - started)
    return {name: min(values) for name, values in taken.items()}


def _cosines(
    graphs: dict[str, tuple[Any, list[NumpyArray]]], compiled: Callable[[Any], dict[str, Any]]
) -> dict[str, float]:
    found = {}
    for name, (model, inputs) in graphs.items():
        right, other = (np.asarray(call(inputs)[0], np.float64).ravel() for call in compiled(model).values())
        length = float(np.linalg.norm(right) * np.linalg.norm(other))
        cosine = float(right @ other) / length if length > 0 and np.isfinite(length) else 0.0
        # Scaled results would have the right direction and the wrong length.
        ratio = float(np.linalg.norm(other) / np.linalg.norm(right))
        found[name] = cosine if 0.98 < ratio < 1.02 else 0.0
    return found


def _text(core: Any) -> dict[str, tuple[Any, list[NumpyArray]]]:
    """The T5 encoder of the package, with a short text: what is known to crash."""
    if not ENCODER.with_suffix(".xml").is_file():
        return {}
    model = core.read_model(str(ENCODER.with_suffix(".xml")), str(ENCODER.with_suffix(".safetensors")))
    ids = np.arange(3, 19, dtype=np.int64)[None]
    return {"text": (model, [ids, np.ones(ids.shape, np.float32)])}


if __name__ == "__main__":
    try:
        print(json.dumps(asked(int((*sys.argv, "0")[1]) or None)))
    except EngineError as error:
        sys.exit(str(error))
