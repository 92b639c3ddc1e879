"""Copies of everything and back, from every database into every database: run by test_backup.py and test_store_postgres.py."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chashka.app.keeping.blobs import Blobs
from chashka.app.store import NAME, Store
from chashka.app.store.backup import backup, restore
from chashka.app.store.schema import TABLES
from store_jobs import claim, draw, faults, finish_all, submit


def everything(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    with store.database.read() as connection:
        return {
            table.name: [dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in TABLES.sorted_tables
        }


def fill(store: Store, blobs: Blobs) -> None:
    """Something in every table, with letters and with nothing."""
    for number in range(3):
        submit(store, fields={"prompt": "чашка 茶碗 \0", "seed": None}, parents={"init": "pic_x"}, key=f"k{number}")
        draw(store, blobs, claim(store))
    submit(store, inputs={"init": blobs.put(b"to begin with")})
    picture = store.pictures.search()[0]
    store.pictures.favourite(picture.id)
    store.pictures.delete(store.pictures.search()[1].id)
    store.pictures.log("ab" * 32, "0" * 16, picture.id, "none")
    key, _ = store.keys.add("анна")
    store.keys.open_session(key, 3600)
    with store.database.write() as connection:
        values = {"id": "col_1", "owner": "anna", "name": "чашки", "created": 1.5}
        connection.execute(TABLES.tables["collections"].insert().values(values))
        connection.execute(TABLES.tables["collected"].insert().values(collection="col_1", picture=picture.number))


class BackupContract:
    """The class of a database gives the fixtures ``store``, and ``empty``: an address, or "" for SQLite in the folder."""

    def test_everything_comes_back(self, store: Store, empty: str, tmp_path: Path) -> None:
        blobs = Blobs(tmp_path / "blobs")
        fill(store, blobs)
        before = everything(store)
        assert all(before.values()), {name for name, rows in before.items() if not rows}
        blobs.put(b"nothing refers to this")
        copied = backup(store, blobs, tmp_path / "backup")
        assert copied.rows == sum(map(len, before.values()))
        assert copied.blobs == len(store.referenced()) == len(list(blobs.names())) - 1
        assert restore(tmp_path / "backup", tmp_path / "data", empty) == copied
        back = Store.at(empty or tmp_path / "data" / NAME)
        with closing(back):
            assert everything(back) == before
            kept = Blobs(tmp_path / "data" / "blobs")
            assert set(kept.names()) == store.referenced()
            assert all(kept.read(name) == blobs.read(name) for name in kept.names())
            finish_all(back, kept)  # and it goes on from there: new numbers do not meet old ones
            assert faults(back, kept, [job.id for job in back.jobs.list() if job.inputs]) == []
            assert back.keys.add("boris")[0].name == "boris"

    def test_it_is_made_while_others_work(self, store: Store, tmp_path: Path) -> None:
        blobs, end = Blobs(tmp_path / "blobs"), threading.Event()

        def go() -> None:
            while not end.is_set():
                submit(store, limit=10**6)
                draw(store, blobs, claim(store))

        thread = threading.Thread(target=go)
        thread.start()
        try:
            for number in range(3):
                backup(store, blobs, tmp_path / f"backup {number}")
        finally:
            end.set()
            thread.join()
        for number in range(3):
            restore(tmp_path / f"backup {number}", tmp_path / f"data {number}")
            with closing(Store.at(tmp_path / f"data {number}" / NAME)) as back:
                kept = Blobs(tmp_path / f"data {number}" / "blobs")
                assert back.referenced() <= set(kept.names())
                finish_all(back, kept)
                assert faults(back, kept, [job.id for job in back.jobs.list(limit=10**6)]) == []

    @pytest.mark.parametrize("what", ["database", "folder"])
    def test_nothing_is_restored_over_something(self, store: Store, empty: str, tmp_path: Path, what: str) -> None:
        blobs = Blobs(tmp_path / "blobs")
        submit(store)
        backup(store, blobs, tmp_path / "backup")
        target = tmp_path / "data"
        if what == "folder":
            target.mkdir()
            (target / "something").write_text("")
        elif empty:
            restore(tmp_path / "backup", tmp_path / "first", empty)
        else:
            restore(tmp_path / "backup", target)
        with pytest.raises(Exception, match="is not empty; name a new"):
            restore(tmp_path / "backup", target, empty)
        assert sorted(path.name for path in tmp_path.glob("*data*")) == (
            [] if what == "database" and empty else ["data"]
        )
