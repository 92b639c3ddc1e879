"""How many jobs at a time: found with the first model, kept in the cache folder, never more than is quicker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chashka.app.compute import sharing
from chashka.app.compute.models import Models
from chashka.app.compute.sharing import FILE, MOST, first_call, jobs_worth
from chashka.app.settings import Settings
from chashka.engines.batching import StepBatcher
from chashka.families.family import Bundle
from toy_model import toy_bundle


def taking(seconds: Callable[[int], float]) -> tuple[Bundle, list[int]]:
    """The toy, whose network takes so long for so many rows; and how many rows it was called with."""
    bundle, rows = toy_bundle(), list[int]()
    network: Any = bundle.denoiser.network

    def slow(x: Any, t: Any, cond: Any, /) -> Any:
        rows.append(len(x))
        time.sleep(seconds(len(x)))
        return network(x, t, cond)

    return replace(bundle, denoiser=replace(bundle.denoiser, network=slow)), rows


def test_the_call_is_that_of_one_guided_picture() -> None:
    bundle, rows = taking(lambda rows: 0.0)
    x, t, cond = first_call(bundle)
    assert rows == [] and x.shape[1] == bundle.codec.channels and len(x) == len(t)
    assert all(len(value) == len(x) for value in cond.values())


def test_several_jobs_where_rows_cost_nothing_one_where_they_do(tmp_path: Path) -> None:
    launched, _ = taking(lambda rows: 0.02)  # a GPU
    computed, _ = taking(lambda rows: 0.01 * rows)  # a busy processor
    assert jobs_worth(launched, "GPU.0", None) == MOST
    assert jobs_worth(computed, "", None) == 1


def test_what_was_found_is_kept(tmp_path: Path) -> None:
    """For this model on this device; another one is measured; a damaged file is measured again."""
    launched, rows = taking(lambda rows: 0.02)
    assert jobs_worth(launched, "GPU.0", tmp_path) == MOST
    computed, again = taking(lambda rows: 0.01 * rows)
    assert jobs_worth(computed, "GPU.0", tmp_path) == MOST and again == []
    assert jobs_worth(computed, "GPU.1", tmp_path) == 1 and again
    assert sorted(json.loads((tmp_path / FILE).read_text()).values()) == [1, MOST]
    (tmp_path / FILE).write_text('{"a": 5000, "b')
    del rows[:]
    assert jobs_worth(launched, "GPU.0", tmp_path) == MOST and rows
    (tmp_path / FILE).write_text(json.dumps(dict.fromkeys(json.loads((tmp_path / FILE).read_text()), 5000)))
    assert jobs_worth(computed, "GPU.0", tmp_path) == 1


@pytest.mark.parametrize(("slots", "found", "rows"), [(0, 4, 8), (0, 1, None), (2, 4, 4), (1, 4, None)])
def test_the_settings_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int, found: int, rows: int | None
) -> None:
    monkeypatch.setattr(sharing, "jobs_worth", lambda *_: found)
    models = Models(Settings(data=tmp_path, slots=slots), lambda *_, **__: toy_bundle())
    assert models.slots == (slots or 1)
    with models.use("kandinsky-teacup") as bundle:
        network = bundle.denoiser.network
        assert (network.rows if isinstance(network, StepBatcher) else None) == rows
    assert models.slots == (slots or found)
