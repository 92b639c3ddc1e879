"""``kill -9`` of the process that owns a SQLite database, at any time."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

from chashka.app.ids import new_id
from chashka.app.keeping.blobs import Blobs
from chashka.app.store import Store
from store_jobs import Process, faults, finish_all, own_and_work

KILLS = 20
LINE = len(f"{new_id('job')}\n")


def test_nothing_that_was_accepted_is_lost_when_the_owner_is_killed(tmp_path: Path) -> None:
    where, folder, accepted = tmp_path / "store.sqlite3", tmp_path / "blobs", tmp_path / "accepted"
    chance = random.Random(1)
    for _ in range(KILLS):
        owner = Process(own_and_work, str(where), str(folder), str(accepted))
        owner.wait()
        more = accepted.stat().st_size + chance.randint(0, 3) * LINE
        while accepted.stat().st_size < more:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.02))
        owner.kill()
    store, blobs = Store.at(where), Blobs(folder)
    finish_all(store, blobs)
    ids = accepted.read_text().split()
    assert len(ids) >= KILLS
    assert faults(store, blobs, ids) == []
    sums = {
        name for picture in store.pictures.search(limit=200) for name in (picture.new.sha256, picture.new.thumbnail)
    }
    assert sums <= store.referenced() <= set(blobs.names())
    store.close()
    with sqlite3.connect(where) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
