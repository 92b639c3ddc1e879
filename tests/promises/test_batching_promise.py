"""P22: what is drawn beside a picture never changes it."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import chashka
from chashka.engines.batching import StepBatcher
from chashka.families.family import Bundle

pytestmark = pytest.mark.promise

JOBS = 12
ROWS = 8
PROMPTS = ["a fox", "красная чашка", "ein grünes Haus", "une pomme", "лодка на воде", "a yellow car"]


def drawn(bundle: Bundle, batcher: StepBatcher, number: int) -> NDArray[np.uint8]:
    shared = replace(bundle, denoiser=replace(bundle.denoiser, network=batcher))
    request = bundle.request(
        prompt=PROMPTS[number % len(PROMPTS)],
        seed=number,
        n=1 + number % 2,
        steps=3 + number % 5,
        guidance_scale=(1.0, 3.0, 4.5)[number % 3],
        sampler=("ddim", "dpmpp_2m", "euler_a")[number % 3],
    )
    with batcher.job():
        return np.stack([picture.pixels for picture in chashka.draw(shared, request)])


def one(
    bundle: Bundle,
    batcher: StepBatcher,
    number: int,
    places: threading.Semaphore,
    results: dict[int, NDArray[np.uint8]],
) -> None:
    """A job's thread: it waits for a place, then draws."""
    with places:
        results[number] = drawn(bundle, batcher, number)


def test_p22_batching_never_changes_a_picture() -> None:
    bundle = chashka.load()
    alone = [drawn(bundle, StepBatcher(bundle.denoiser.network, ROWS), n) for n in range(JOBS)]
    calls_alone = sum(3 + n % 5 for n in range(JOBS))
    different = 0
    for together in (2, 4, 8):  # so many jobs at a time, each next one joins when one has left
        batcher = StepBatcher(bundle.denoiser.network, ROWS, linger=0.5)
        places, chance = threading.Semaphore(together), random.Random(together)
        results: dict[int, NDArray[np.uint8]] = {}
        order = chance.sample(range(JOBS), JOBS)
        threads = [threading.Thread(target=one, args=(bundle, batcher, n, places, results)) for n in order]
        for thread in threads:
            thread.start()
            time.sleep(chance.uniform(0, 0.05))
        for thread in threads:
            thread.join(300)
        assert len(results) == JOBS
        different += sum(not np.array_equal(results[n], alone[n]) for n in range(JOBS))
        assert batcher.calls < calls_alone, "no call was shared"
    print(f"P22 pictures changed by their neighbours {different} 0 {'PASS' if different == 0 else 'FAIL'}")
    assert different == 0
