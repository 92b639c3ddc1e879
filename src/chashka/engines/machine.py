"""This machine: what identifies its processor, as results measured or compiled on one do not hold on another, and its memory."""

from __future__ import annotations

import hashlib
import platform
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FIELDS = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU implementer", "CPU part", "Features")


@cache
def processor() -> str:
    """16 hex digits of the model and the instruction sets (a hypervisor may hide some: they count as absent)."""
    lines = [platform.machine(), platform.processor(), platform.system()]
    try:
        first = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
        lines += [line for line in first.splitlines() if line.partition(":")[0].strip() in _FIELDS]
    except OSError:
        pass  # not Linux: the platform module's answers have to do
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def trim() -> None:
    """Give freed memory back to the system, where the allocator (glibc's) keeps what it had."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
