"""What processes that compute owe to the one that started them: to be polite, to end with it, to be ended whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

POLITE = 10
"""Niceness of what computes and copies, so that the server's answers come first."""
PR_SET_PDEATHSIG = 1


def settle_down(parent: int) -> None:
    """For a process that computes, at its start: nice, the first to go when memory is short, and gone when ``parent`` is.

    parent: its process id. Linux ends us with the thread that started us; elsewhere the end of the pipe has to do.
    """
    step_back()
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it went before we asked
            os._exit(1)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def step_back() -> None:
    """This process's work can wait for that of others."""
    if hasattr(os, "nice"):
        with contextlib.suppress(OSError):
            os.nice(POLITE)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, and what it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def held(pid: int, *, family: bool = False) -> int:
    """Bytes of memory that a process holds (resident), with what it started if ``family``; 0 if it is gone."""
    try:
        process = psutil.Process(pid)
        total = int(process.memory_info().rss)
        for child in process.children(recursive=True) if family else ():
            with contextlib.suppress(psutil.Error):
                total += int(child.memory_info().rss)
        return total
    except psutil.Error:
        return 0


def peak() -> int:
    """Bytes that this process held at most."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().rss)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else int(most) * 1024


def available(setting: int) -> int:
    """Bytes that computing may hold: the setting, or three quarters of this machine's or this container's memory."""
    if setting:
        return setting
    total = int(psutil.virtual_memory().total)
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(name).read_text(encoding="ascii")))
    return total * 3 // 4
