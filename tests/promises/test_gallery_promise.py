"""P20: a gallery of 100,000 pictures answers lists and searches quickly. No query looks at all of them: test_gallery_plans.py."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from big_gallery import SEARCHES, fill
from chashka.app.store import Store

pytestmark = pytest.mark.promise
PICTURES = 100_000
LIMIT = 50.0
"""Milliseconds, at the 95th of 100."""
ROUNDS = 10
BUSY = 1.5
"""A machine on which a search takes so many times its own time is doing something else; then its own time is what can be judged."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store.at(tmp_path_factory.mktemp("big") / "gallery.sqlite3")
    fill(made, PICTURES)
    yield made
    made.close()


def p95(times: list[float]) -> float:
    return sorted(times)[int(0.95 * (len(times) - 1))]


@pytest.mark.parametrize("what", ["list", "search"])
def test_p20_big_gallery(store: Store, what: str) -> None:
    chosen = {name: one for name, one in SEARCHES.items() if ("words" in one) == (what == "search")}
    walls, owns = list[float](), list[float]()
    slowest = dict.fromkeys(chosen, float("inf"))
    for _ in range(ROUNDS):
        for name, search in chosen.items():
            wall, own = time.perf_counter(), time.thread_time()
            store.pictures.search(**search)  # type: ignore[arg-type]
            walls.append(1000 * (time.perf_counter() - wall))
            owns.append(1000 * (time.thread_time() - own))
            slowest[name] = min(slowest[name], owns[-1])
    busy = sum(walls) > BUSY * sum(owns)
    value = p95(owns if busy else walls)
    worst = max(slowest, key=lambda name: slowest[name])
    print(f"slowest: {worst}, {slowest[worst]:.1f} ms; p95 as it came {p95(walls):.1f} ms, own time {p95(owns):.1f} ms")
    print(f"P20 gallery_{what}_p95_ms {value:.1f} {LIMIT:.0f} {'PASS' if value <= LIMIT else 'FAIL'}")
    assert value <= LIMIT


def test_p20_pages_are_whole(store: Store) -> None:
    page = store.pictures.search(limit=200)
    assert [picture.number for picture in page] == list(range(PICTURES, PICTURES - 200, -1))
