"""What of a mapped file this process holds in memory, and that giving it back loses nothing."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from chashka.engines import machine

MIB = 2**20
SIZE = 32 * MIB
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(np.arange(SIZE // 4, dtype=np.uint32).tobytes())
    return path


def held(file: Path) -> int:
    """Bytes of a file that are in this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(maxsplit=1)[0]:
            inside = line.endswith(str(file.resolve()))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@linux
def test_pages_are_given_back_and_come_again(file: Path) -> None:
    data = np.memmap(file, np.uint32, "r")
    total = int(data.sum())
    assert held(file) >= SIZE
    machine.give_back(file)
    assert held(file) < MIB
    assert int(data.sum()) == total and held(file) >= SIZE


@linux
def test_what_was_written_is_kept(file: Path) -> None:
    """A private mapping's own pages are nowhere else."""
    data = np.memmap(file, np.uint32, "c")
    data[:] = 7
    machine.give_back(file)
    assert bool((data == 7).all())


@linux
def test_little_is_held_while_a_large_file_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LARGE", SIZE)
    monkeypatch.setattr(machine, "PAUSE", 0.002)
    data = np.memmap(file, np.uint32, "r")
    with machine.sparing(file):
        assert int(data.sum()) and any(held(file) < MIB for _ in range(500) if time.sleep(0.01) is None)
    data.sum()
    with machine.sparing(file):
        pass
    assert held(file) < MIB, "and at the end"


def test_small_files_are_left_alone(file: Path) -> None:
    before = threading.active_count()
    with machine.sparing(file):
        assert threading.active_count() == before
