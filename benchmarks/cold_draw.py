"""Process start → PNG on disk: one 256×256 picture with the shipped weights in fresh processes, and a draft.

    python benchmarks/cold_draw.py [N]

The first process starts with an empty home folder, so that it also compiles the graphs; the N next ones (default 5)
find what it left in the cache. Prints seconds and peak resident memory (the kernel's own figure for each process).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

STEPS = 12
PROMPT = "красное яблоко"
KIB_PER_MB = 1e6 / 1024


def draw(folder: Path, number: int, *more: str) -> tuple[float, float]:
    """Draw once in a fresh process; returns (seconds until it ended, peak resident MB)."""
    out = folder / f"{number}.png"
    command = str(Path(sys.executable).parent / "chashka")
    words = [command, "draw", PROMPT, "--seed", str(number), "--out", str(out), *(more or ("--steps", str(STEPS)))]
    home = str(folder / "home")
    environment = os.environ | {"HOME": home, "XDG_CACHE_HOME": f"{home}/.cache", "XDG_DATA_HOME": f"{home}/.local"}
    started = time.perf_counter()
    quiet = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, quiet, 1)]
    pid = os.posix_spawn(command, words, environment, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    taken = time.perf_counter() - started
    os.close(quiet)
    if status != 0 or not out.read_bytes().startswith(b"\x89PNG"):
        sys.exit(f"'{' '.join(words)}' failed with exit code {os.waitstatus_to_exitcode(status)}")
    kib = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return taken, kib / KIB_PER_MB


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, first_memory = draw(folder, 0)
        measured = [draw(folder, i) for i in range(1, runs + 1)]
        draw(folder, 0, "--fast")
        drafts = [draw(folder, i, "--fast")[0] for i in range(1, runs + 1)]
    times = [t for t, _ in measured]
    memory = statistics.median(m for _, m in measured)
    median = statistics.median(times)
    print(f"cold_draw: one 256×256 picture, {STEPS} steps, {runs} fresh processes")
    print(f"  first ever         {first:7.2f} s   peak {first_memory:6.0f} MB   {first / median:5.2f} × median")
    print(f"  median             {median:7.2f} s   peak {memory:6.0f} MB   ({min(times):.2f} … {max(times):.2f} s)")
    quick = statistics.median(drafts)
    print(
        f"  a draft (--fast)   {quick:7.2f} s   ({min(drafts):.2f} … {max(drafts):.2f} s)   {quick / median:5.2f} × median"
    )


if __name__ == "__main__":
    main()
