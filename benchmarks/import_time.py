"""Seconds of `import chashka` and of `chashka --help` in fresh processes, beside a bare interpreter.

    python benchmarks/import_time.py [N]

N fresh processes each (default 9), the median. Nothing heavy may be imported by `import chashka`: its ratio to the bare
interpreter says whether that holds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path


def seconds(words: list[str], runs: int) -> float:
    """Median wall time of the command over ``runs`` fresh processes, after one that warms the disk."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    command = str(Path(sys.executable).parent / "chashka")
    bare = seconds([sys.executable, "-c", "pass"], runs)
    print(f"import_time: {runs} processes each, median")
    print(f"  bare interpreter   {bare:7.3f} s")
    for name, words in {
        "import chashka": [sys.executable, "-c", "import chashka"],
        "import numpy": [sys.executable, "-c", "import numpy"],
        "import openvino": [sys.executable, "-c", "import openvino"],
        "chashka --help": [command, "--help"],
    }.items():
        taken = seconds(words, runs)
        print(f"  {name:18} {taken:7.3f} s   {taken / bare:6.2f} × bare")


if __name__ == "__main__":
    main()
