"""What the benches of full-size checkpoints share: processes of their own, the most memory held, random weights."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def child(script: str, *words: str) -> dict[str, str]:
    """What a process of its own measured: the last line that it printed, as JSON."""
    done = subprocess.run([sys.executable, script, *words], stdout=subprocess.PIPE, check=True, text=True)
    row: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return row


def peak() -> str:
    """The most memory that this process ever held, mapped pages of weight files included."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (most,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return f"{int(most) / 2**20:.1f} GiB"


def seconds(function: Callable[[], Any], times: int = 1) -> float:
    """The shortest of some calls."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        taken.append(time.perf_counter() - started)
    return min(taken)


def filled(shapes: dict[str, Any]) -> dict[str, Any]:
    """float16 of these shapes: small numbers in matrices, ones in norms, zeros in biases."""
    import torch

    made: dict[str, Any] = {}
    for name, value in shapes.items():
        if value.ndim > 1:
            made[name] = (torch.randn(value.shape) * value[0].numel() ** -0.5).half()
        else:
            made[name] = (torch.ones if name.endswith("weight") else torch.zeros)(value.shape, dtype=torch.float16)
    return made


def computes_bf16() -> bool:
    """Whether this processor computes it; where it does not, torch imitates it, hundreds of times slower."""
    from chashka.engines import selftest

    return selftest.works(None)
