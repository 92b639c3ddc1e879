"""Jobs that share a network's calls: fewer calls, the same pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import chashka
from chashka.engines.batching import StepBatcher, best_rows
from chashka.errors import EngineError, InputError
from chashka.families.family import Bundle
from toy_model import toy_bundle

Float = NDArray[np.float32]


class Counting:
    """out = (x + 10 t) · added, row by row; counts calls and rows, takes a moment."""

    def __init__(self, seconds: float = 0.002) -> None:
        self.seconds = seconds
        self.rows: list[int] = []

    def __call__(self, x: Float, t: Float, cond: dict[str, Float]) -> Float:
        time.sleep(self.seconds)
        self.rows.append(len(x))
        if (t < 0).any():
            raise ValueError("a negative time")
        out: Float = (x + 10 * t[:, None]) * cond["added"]
        return out


def call(number: int, rows: int = 1, width: int = 3) -> tuple[Float, Float, dict[str, Float]]:
    generator = np.random.default_rng(number)
    x, added = (generator.standard_normal((rows, width), np.float32) for _ in range(2))
    return x, np.full(rows, number, np.float32), {"added": added}


def together(jobs: list[Callable[[], Any]]) -> list[Any]:
    """What each job returns or raises, all of them begun at the same moment."""
    results: list[Any] = [None] * len(jobs)
    begin = threading.Barrier(len(jobs))

    def run(i: int) -> None:
        begin.wait()
        try:
            results[i] = jobs[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return results


@pytest.mark.parametrize("strict", [True, False])
def test_every_job_gets_its_own_rows(strict: bool) -> None:
    network = Counting()
    batcher = StepBatcher(network, 4, strict, linger=50)

    def job(number: int, steps: int) -> list[Float]:
        with batcher.job():
            return [batcher(*call(100 * number + i, rows=1 + number % 2)) for i in range(steps)]

    steps = [3, 9, 5, 1, 7]
    results = together([lambda n=n, s=s: job(n, s) for n, s in enumerate(steps)])  # type: ignore[misc]
    for number, outs in enumerate(results):
        for i, out in enumerate(outs):
            x, t, cond = call(100 * number + i, rows=1 + number % 2)
            np.testing.assert_array_equal(out, (x + 10 * t[:, None]) * cond["added"])
    assert batcher.calls == len(network.rows) < sum(steps)
    assert set(network.rows) == {4} if strict else max(network.rows) <= 4


def test_calls_are_shared_as_far_as_they_go() -> None:
    """Two jobs of twenty steps that begin together need twenty calls, or one more."""
    network = Counting()
    batcher = StepBatcher(network, 2, linger=200)

    def job(number: int) -> None:
        with batcher.job():
            for i in range(20):
                batcher(*call(i + number))

    together([lambda: job(1), lambda: job(2)])
    assert batcher.calls <= 21


def test_shapes_that_differ_are_not_mixed() -> None:
    network = Counting()
    batcher = StepBatcher(network, 8, linger=50)
    results = together([lambda w=w: batcher(*call(w, width=w)) for w in (2, 3, 2, 5)])  # type: ignore[misc]
    assert [out.shape for out in results] == [(1, 2), (1, 3), (1, 2), (1, 5)]


def test_one_jobs_fault_is_not_anothers() -> None:
    network = Counting()
    batcher = StepBatcher(network, 4, linger=500)
    batcher._last = 0.01
    bad = call(1)
    jobs = [lambda: batcher(bad[0], -bad[1], bad[2]), lambda: batcher(*call(2)), lambda: batcher(*call(3))]

    def inside(job: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with batcher.job():
                return job()

        return run

    wrong, *right = together([inside(job) for job in jobs])
    assert isinstance(wrong, ValueError)
    assert [out.shape for out in right] == [(1, 3), (1, 3)]


def test_a_job_that_never_calls_costs_little() -> None:
    network = Counting(0.01)
    batcher = StepBatcher(network, 4, linger=0.05)
    with batcher.job(), batcher.job():  # the second one is busy with something else
        batcher(*call(1))
        started = time.perf_counter()
        for i in range(10):
            batcher(*call(i))
    assert time.perf_counter() - started < 10 * network.seconds * 3


def test_more_rows_than_fit_are_done_in_pieces() -> None:
    network = Counting(0)
    x, t, cond = call(1, rows=7)
    out = StepBatcher(network, 3)(x, t, cond)
    np.testing.assert_array_equal(out, (x + 10 * t[:, None]) * cond["added"])
    assert network.rows == [3, 3, 3]


def test_what_is_not_numpy_goes_through() -> None:
    class Other(list[int]):
        """Such as a tensor with gradients."""

    seen: list[Any] = []
    batcher = StepBatcher(lambda x, t, cond: seen.append(x) or x, 4)  # type: ignore[func-returns-value]
    given = Other()
    assert batcher(given, None, {}) is given is seen[0]


def test_it_can_be_tiled_if_its_network_can() -> None:
    batcher = StepBatcher(Counting(0), 4)
    assert not hasattr(batcher, "tiled")
    bundle = toy_bundle()
    shared = replace(bundle, denoiser=replace(bundle.denoiser, network=batcher))
    with pytest.raises(InputError, match="tiling: toy"):
        shared.tiled("x")


def test_rows_grow_only_where_that_is_quicker() -> None:
    def launched(x: Float, t: Float, cond: dict[str, Float]) -> Float:  # a GPU: the call costs, the rows do not
        time.sleep(0.01)
        return x

    def computed(x: Float, t: Float, cond: dict[str, Float]) -> Float:  # a processor that is busy already
        time.sleep(0.005 * len(x))
        return x

    def small(x: Float, t: Float, cond: dict[str, Float]) -> Float:
        if len(x) > 4:
            raise EngineError("no memory for so many rows")
        return launched(x, t, cond)

    assert best_rows(launched, *call(1, rows=2), most=16) == 16
    assert best_rows(small, *call(1, rows=2), most=16) == 4
    assert best_rows(computed, *call(1, rows=2), most=16) == 2


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return chashka.load()


def drawn(bundle: Bundle, number: int, batcher: StepBatcher | None = None) -> NDArray[np.uint8]:
    """Picture of a job with its own words, steps, guidance and sampler."""
    prompts = ["a fox", "красная чашка", "ein grünes Haus", "a boat"]
    shared = bundle if batcher is None else replace(bundle, denoiser=replace(bundle.denoiser, network=batcher))
    request = bundle.request(
        prompt=prompts[number % 4],
        seed=number,
        steps=2 + number % 3,
        guidance_scale=(1.0, 3.0, 5.0)[number % 3],
        sampler=("ddim", "dpmpp_2m")[number % 2],
    )
    if batcher is None:
        return chashka.draw(shared, request)[0].pixels
    with batcher.job():
        return chashka.draw(shared, request)[0].pixels


def test_pictures_do_not_depend_on_their_neighbours(bundle: Bundle) -> None:
    """Strict: equal to the last bit, alone or among three others with other steps and guidance, however they meet."""
    network = bundle.denoiser.network
    alone = [drawn(bundle, n, StepBatcher(network, 4)) for n in range(4)]
    batcher = StepBatcher(network, 4, linger=5)
    batcher._last = 0.05
    shared = together([lambda n=n: drawn(bundle, n, batcher) for n in range(4)])  # type: ignore[misc]
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    assert batcher.calls < sum(2 + n % 3 for n in range(4))


def test_without_strictness_pictures_differ_by_rounding_alone() -> None:
    """In float32; bfloat16 has 16 bits less to round in."""
    bundle = chashka.load(precision="f32")
    batcher = StepBatcher(bundle.denoiser.network, 4, strict=False, linger=5)
    shared = together([lambda n=n: drawn(bundle, n, batcher) for n in range(3)])  # type: ignore[misc]
    for number, pixels in enumerate(shared):
        error = float(np.mean((pixels.astype(float) - drawn(bundle, number).astype(float)) ** 2))
        assert error == 0 or 10 * np.log10(255**2 / error) >= 50
