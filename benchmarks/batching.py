"""Pictures per second when jobs share calls, beside one job at a time, with the embedded model.

    python benchmarks/batching.py [STEPS]

Both rows of a number of jobs are measured in one run, in turns; the ratio above one is what sharing wins. On a few processor
cores that is little, and less than nothing where empty places are computed (strict); on a GPU calls of few rows leave it idle.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import chashka
from chashka.engines.batching import StepBatcher
from chashka.families.family import Bundle

JOBS = (1, 2, 4, 8)
TURNS = 3
GUIDED_ROWS = 2


def at_once(bundle: Bundle, jobs: int, steps: int, strict: bool) -> float:
    """Seconds for ``jobs`` pictures that begin together."""
    batcher = StepBatcher(bundle.denoiser.network, GUIDED_ROWS * jobs, strict)
    shared = replace(bundle, denoiser=replace(bundle.denoiser, network=batcher))

    def job(number: int) -> None:
        with batcher.job():
            chashka.draw(shared, bundle.request(prompt="красное яблоко", seed=number, steps=steps))

    threads = [threading.Thread(target=job, args=(i,)) for i in range(jobs)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def one_by_one(bundle: Bundle, jobs: int, steps: int) -> float:
    """Seconds for the same pictures, each alone."""
    started = time.perf_counter()
    for number in range(jobs):
        chashka.draw(bundle, bundle.request(prompt="красное яблоко", seed=number, steps=steps))
    return time.perf_counter() - started


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    bundle = chashka.load()
    print(f"{bundle.model}, {bundle.engine}, {steps} guided steps, medians of {TURNS} turns")
    for jobs in JOBS:
        ways: dict[str, Callable[[], float]] = {
            "alone": partial(one_by_one, bundle, jobs, steps),
            "shared": partial(at_once, bundle, jobs, steps, strict=False),
            "strict": partial(at_once, bundle, jobs, steps, strict=True),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            way()  # what is compiled once does not count
        for _ in range(TURNS):
            for name, way in ways.items():
                times[name].append(way())
        middle = {name: statistics.median(found) for name, found in times.items()}
        ratios = ", ".join(f"{name} {middle['alone'] / middle[name]:.2f}" for name in ("shared", "strict"))
        print(
            f"{jobs} jobs: one at a time {jobs / middle['alone']:.2f} pictures a second; together, times as fast: {ratios}"
        )


if __name__ == "__main__":
    main()
