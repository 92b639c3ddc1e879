"""The store's contract on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_contract import AcceptContract, DatabaseContract, OrderContract
from worker_contract import LeaseContract, RetryContract

from chashka.app.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.at(tmp_path / "store.sqlite3")
    yield opened
    opened.close()


class TestSqlite(AcceptContract, OrderContract, LeaseContract, RetryContract, DatabaseContract):
    """All of it."""
