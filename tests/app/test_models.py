"""Opened models: opened once, kept while they fit, never closed under a job, shared where jobs are drawn side by side."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from chashka import families
from chashka.app.compute.models import Models
from chashka.app.compute.processes import available, held
from chashka.app.settings import Settings
from chashka.engines.batching import StepBatcher
from chashka.errors import InputError
from chashka.families.family import Bundle
from chashka.generate import draw
from toy_model import toy_bundle

SIZE = sum(file.stat().st_size for file in families.find("kandinsky-teacup")[1].place.glob("*.safetensors"))


class Toys:
    """``families.load`` that gives toys and remembers what it was asked for."""

    def __init__(self, pause: float = 0.0) -> None:
        self.opened: list[str] = []
        self.pause, self.slow = pause, 0.0

    def __call__(self, model: str, **options: Any) -> Bundle:
        time.sleep(self.pause)
        self.opened.append(model)
        bundle = toy_bundle()
        if self.slow:
            network = bundle.denoiser.network
            slow = lambda *given: (time.sleep(self.slow), network(*given))[1]  # noqa: E731
            bundle = replace(bundle, denoiser=replace(bundle.denoiser, network=slow))
        return replace(bundle, preset=replace(bundle.preset, name=model))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models a, b, c, which are the embedded one's files."""
    place = families.find("kandinsky-teacup")[1].place
    for name in "abc":
        (tmp_path / name).symlink_to(place)
    return tmp_path


def models(folder: Path, room: float, **settings: Any) -> tuple[Models, Toys]:
    toys = Toys()
    # beyond the files what this process grows by counts; the room is so large that the toys' own never does
    given = {"slots": 1} | settings
    made = Models(Settings(models=folder, model_memory=round(room * SIZE), **given), toys)
    made._base = 2**60
    return made, toys


def use(kept: Models, name: str) -> None:
    with kept.use(name) as bundle:
        assert bundle.preset.name == name


def test_the_least_recently_used_one_goes(folder: Path) -> None:
    kept, toys = models(folder, 2.5)
    for name in "abacab":
        use(kept, name)
    assert toys.opened == ["a", "b", "c", "b"]
    assert kept.names == ["a", "b"]
    kept.close()
    assert kept.names == []


def test_one_that_is_larger_than_all_the_room_is_opened_all_the_same(folder: Path) -> None:
    kept, toys = models(folder, 0.5)
    for name in "aabb":
        use(kept, name)
    assert toys.opened == ["a", "b"]


def test_nothing_is_closed_under_a_job(folder: Path) -> None:
    kept, toys = models(folder, 1.5)
    with kept.use("a"):
        use(kept, "b")
        assert "a" in kept.names
        kept.close()
        assert kept.names == ["a"]
    use(kept, "a")
    assert toys.opened == ["a", "b"]


def test_growth_of_the_process_counts(folder: Path) -> None:
    kept, _ = models(folder, 2.5)
    use(kept, "a")
    kept._base = held(os.getpid()) - 3 * SIZE
    use(kept, "b")
    assert kept.names == ["b"]


def test_threads_open_a_model_once(folder: Path) -> None:
    kept, toys = models(folder, 5)
    toys.pause = 0.05
    threads = [threading.Thread(target=use, args=(kept, name)) for name in "abab" * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(toys.opened) == ["a", "b"]


def test_what_differs_is_opened_apart(folder: Path) -> None:
    kept, toys = models(folder, 5)
    with kept.use("a") as first, kept.use("a", precision="f32") as second, kept.use("a") as third:
        assert first is third is not second
    assert toys.opened == ["a", "a"]


def test_a_model_that_is_not_there_is_refused(folder: Path) -> None:
    kept, toys = models(folder, 5)
    with pytest.raises(InputError, match="does not exist"), kept.use("d"):
        pass
    assert toys.opened == []


def test_jobs_side_by_side_share_the_networks_calls(folder: Path) -> None:
    kept, toys = models(folder, 5, slots=3)
    toys.slow = 0.01
    alone, _ = models(folder, 5)
    found: dict[int, Any] = {}

    def one(number: int) -> None:
        with kept.use("a") as bundle:
            together.wait()
            found[number] = draw(bundle, bundle.request(prompt=f"cup {number}", seed=number, steps=5 + number))

    together = threading.Barrier(3)
    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with kept.use("a") as bundle, alone.use("a") as apart:
        batcher = bundle.denoiser.network
        assert isinstance(batcher, StepBatcher) and batcher.rows == 6
        assert batcher.calls < 5 + 6 + 7
        assert not isinstance(apart.denoiser.network, StepBatcher)
        for number, pictures in found.items():
            expected = draw(apart, apart.request(prompt=f"cup {number}", seed=number, steps=5 + number))
            assert np.array_equal(pictures[0].pixels, expected[0].pixels)


def test_what_may_be_held() -> None:
    assert available(123) == 123
    assert 0 < available(0) < 2**50
    assert Models(Settings(memory=1000)).cap == 500
