"""No search of the gallery looks at every picture: the plans that SQLite makes, of every statement that is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from big_gallery import SEARCHES, fill
from chashka.app.store import Store
from chashka.app.store.finding import COUNTED

PICTURES = 5_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store.at(tmp_path_factory.mktemp("plans") / "gallery.sqlite3")
    fill(made, PICTURES)
    yield made
    made.close()


def plans(store: Store, search: dict[str, Any]) -> list[str]:
    """The lines of EXPLAIN QUERY PLAN of everything that a search sends."""
    sent: list[tuple[str, Any]] = []

    def remember(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    engine = store.database._reader
    event.listen(engine, "before_cursor_execute", remember)
    try:
        store.pictures.search(**search)
    finally:
        event.remove(engine, "before_cursor_execute", remember)
    with store.database.read() as connection:
        raw: Any = connection.connection.driver_connection
        asked = [(text, values) for text, values in sent if text.startswith("SELECT")]
        return [row[3] for text, values in asked for row in raw.execute(f"EXPLAIN QUERY PLAN {text}", values)]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_table_is_reached_through_an_index(store: Store, name: str) -> None:
    lines = plans(store, SEARCHES[name])
    assert any(line.startswith("SEARCH pictures") or "no such" in name for line in lines)
    scans = [line for line in lines if line.startswith("SCAN") and "CONSTANT ROW" not in line]
    # what was counted or collected already is small: see COUNTED
    assert [line for line in scans if not line.startswith("SCAN (subquery") and "anon_" not in line] == []


def test_the_order_comes_from_an_index(store: Store) -> None:
    """Sorting would mean reading everything first."""
    assert COUNTED < PICTURES  # so that common words are walked here too
    for name, search in SEARCHES.items():
        assert "USE TEMP B-TREE FOR ORDER BY" not in plans(store, search), name
