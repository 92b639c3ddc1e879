"""This machine: what identifies its processor, as results measured or compiled on one do not hold on another, and its memory."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MAPS = Path("/proc/self/maps")
LARGE = 256 * 2**20
"""Bytes of a file whose pages are worth giving back."""
PAUSE = 0.05
"""Seconds between two times that they are."""
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
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def sparing(file: Path) -> Iterator[None]:
    """Within, and at its end, this process keeps hardly any pages of a large mapped file that it reads from.

    OpenVINO maps a graph's weights, packs them into memory of its own, and would hold both. The pages stay in the system's cache:
    what is touched again comes back at once.
    """
    if not (_MAPS.exists() and file.is_file() and file.stat().st_size >= LARGE):
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.wait(PAUSE):
            give_back(file)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        give_back(file)


def give_back(file: Path) -> None:
    """Give back the pages under this process's mappings of a file that nothing can write to. Nothing happens but on Linux."""
    with suppress(OSError, AttributeError):
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        path = str(file.resolve())
        for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
            place, allowed, *_, name = line.split(maxsplit=5)
            if name == path and "w" not in allowed:  # what was written to a private mapping would be lost
                begin, end = (int(part, 16) for part in place.split("-"))
                advise(begin, end - begin, mmap.MADV_DONTNEED)
