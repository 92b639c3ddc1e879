"""SQLite as one process may use it: who owns it, what is set, and what people are told when it does not work."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from chashka.app.keeping.blobs import StorageFullError
from chashka.app.settings import Settings
from chashka.app.store import NAME, Store, database
from chashka.app.store.database import Database, UnavailableError, as_json
from chashka.errors import FileError, InputError, MissingExtraError
from store_jobs import submit

HOLD = (
    "import sys; from chashka.app.store import Store; s = Store.at(sys.argv[1]); print('has it', flush=True); input()"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store.at(path)
    yield opened
    opened.close()


def setting(connection: object, name: str) -> object:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()  # type: ignore[attr-defined]


def test_the_settings_of_both_kinds_of_connection(store: Store) -> None:
    with store.database.write() as connection:
        assert setting(connection, "journal_mode") == "wal"
        assert setting(connection, "synchronous") == 2
        assert setting(connection, "wal_autocheckpoint") == 1000
        assert setting(connection, "query_only") == 0
        assert setting(connection, "foreign_keys") == 1
    with store.database.read() as connection:
        assert setting(connection, "query_only") == 1
        assert setting(connection, "wal_autocheckpoint") == 0
        assert setting(connection, "busy_timeout") == 5000
        assert setting(connection, "mmap_size") == 0
    assert store.database.version == sqlite3.sqlite_version
    assert store.database.sole


def test_a_second_owner_is_refused_and_told_who_has_it(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdin is not None and owner.stdout is not None
        assert owner.stdout.readline() == "has it\n"
        with pytest.raises(FileError, match=rf"belongs to process {owner.pid}") as caught:
            Store.at(path)
        assert "\n" not in str(caught.value)
        reader = Store.at(path, read_only=True)
        assert reader.jobs.counts()["queued"] == 0
        with pytest.raises(FileError, match="reading only"):
            submit(reader)
        reader.close()
        owner.kill()
    again = Store.at(path)  # the system took the lock back
    submit(again)
    again.close()


def test_the_same_process_is_refused_too(store: Store, path: Path) -> None:
    with pytest.raises(FileError, match=f"process {os.getpid()}"):
        Store.at(path)
    store.close()
    Store.at(path).close()


def test_a_reader_in_another_process_does_not_checkpoint(store: Store, path: Path) -> None:
    submit(store)
    log = path.with_name(path.name + "-wal")
    before = log.stat().st_size
    assert before > 0
    reader = Store.at(path, read_only=True)
    assert len(reader.jobs.list()) == 1
    reader.close()
    assert log.stat().st_size == before


def test_a_reader_finds_what_a_killed_owner_left(path: Path, project: Path) -> None:
    code = "import os, sys; sys.path[:0] = sys.argv[2:]; from store_jobs import *; "
    code += "submit(Store.at(sys.argv[1])); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(path), str(project / "tests")], check=False)
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    reader = Store.at(path, read_only=True)
    assert reader.jobs.counts()["queued"] == 1
    reader.close()


def test_nothing_is_left_beside_a_closed_database(path: Path) -> None:
    store = Store.at(path)
    submit(store)
    store.close()
    assert sorted(found.name for found in path.parent.iterdir()) == [path.name, path.name + ".lock"]


def test_the_log_stays_small_although_somebody_always_reads(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WAL_LIMIT", 300_000)
    store.database._wal_limit = 300_000
    log, end, largest = path.with_name(path.name + "-wal"), threading.Event(), 0

    def read() -> None:
        while not end.is_set():
            with store.database.read() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar_one()
                time.sleep(0.005)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(60):
            submit(store, fields={"prompt": "x" * 30_000})
            largest = max(largest, log.stat().st_size)
    finally:
        end.set()
        for reader in readers:
            reader.join()
    assert largest < 1_200_000 < path.stat().st_size  # 60 × 30 kB and more were written


def test_a_full_disk_is_told_and_passes(store: Store) -> None:
    first = submit(store)
    with store.database.write() as connection:
        pages = setting(connection, "page_count")
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageFullError, match="disk is full"):
        for _ in range(200):
            submit(store, fields={"prompt": "x" * 5000})
    before = store.jobs.counts()["queued"]
    with pytest.raises(StorageFullError):
        submit(store, fields={"prompt": "x" * 50_000})
    with store.database.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    submit(store, fields={"prompt": "x" * 50_000})
    assert store.jobs.counts()["queued"] == before + 1
    assert store.jobs.get(first.id) == first


def test_a_transaction_within_a_transaction_is_a_mistake(store: Store) -> None:
    with store.database.write(), pytest.raises(RuntimeError, match="within"), store.database.write():
        pass
    submit(store)


def test_writers_wait_for_each_other(store: Store) -> None:
    inside, order = threading.Event(), list[str]()

    def second() -> None:
        inside.wait()
        submit(store)
        order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with store.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM jobs")
        inside.set()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_another_programs_lock_is_waited_for_and_told(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.database._pragma("busy_timeout=50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="busy"):
        submit(store)
    other.execute("ROLLBACK")
    other.close()
    submit(store)


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at", b"\0" * 5000])
def test_what_is_no_database_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"store\.sqlite3"):
        Store.at(path)
    assert path.read_bytes() == content


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no database"):
        Store.at(tmp_path / "none", read_only=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileError, match="is no file"):
        Store.at(tmp_path)
    with pytest.raises(FileError, match="cannot write"):
        Store.at(tmp_path / "no" / "folder")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot make the folder"):
        Store.open(Settings(data=tmp_path / "file" / "data"))


@pytest.mark.parametrize("where", ["mysql://me@host/x", "sqlite://", "nonsense://", "://"])
def test_other_addresses_are_refused(where: str) -> None:
    with pytest.raises(InputError, match="postgresql://USER@HOST/NAME"):
        Database.open(where)


def test_postgresql_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"chashka\[postgres\]"):
        Database.open("postgresql://me@host/x")


def test_settings_say_where_it_is(tmp_path: Path) -> None:
    data = tmp_path / "über" / "данные 100% #1?"
    store = Store.open(Settings(data=data))
    submit(store)
    store.close()
    assert sqlite3.connect(data / NAME).execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    again = Store.at(f"sqlite:///{data / NAME}".replace("%", "%25").replace("#", "%23").replace("?", "%3F"))
    again.close()


def test_json_is_compact_and_keeps_letters() -> None:
    assert as_json({"a": "ч", "b": [1, None]}) == '{"a":"ч","b":[1,null]}'
    assert as_json("\ud800") == '"\\ud800"'


def test_lists_and_claims_use_indices(store: Store) -> None:
    """No statement of the queue walks through all jobs there ever were."""
    submit(store)
    plans = {
        "SELECT * FROM jobs WHERE owner = 'a' ORDER BY created DESC, id DESC LIMIT 50": "jobs_owner",
        "SELECT * FROM jobs ORDER BY created DESC, id DESC LIMIT 50": "jobs_created",
        "SELECT * FROM jobs WHERE state = 'done' ORDER BY created DESC, id DESC LIMIT 50": "jobs_state",
        "SELECT max(started) FROM jobs WHERE owner = 'a'": "jobs_turn",
        "SELECT count(*) FROM jobs WHERE finished > 1": "jobs_finished",
        "SELECT * FROM jobs WHERE state = 'running' AND lease_until < 5": "jobs_lease",
        "SELECT id FROM jobs WHERE state = 'queued' AND owner = 'a' ORDER BY place, id LIMIT 1": "jobs_waiting",
    }
    with store.database.read() as connection:
        for statement, index in plans.items():
            plan = " ".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {statement}")))
            assert index in plan, f"{statement}: {plan}"
            assert "SCAN jobs" not in plan.replace(f"SCAN jobs USING INDEX {index}", ""), plan


def test_the_store_does_not_import_what_it_need_not() -> None:
    code = "import sys, chashka.app.store, chashka.app.store.backup, chashka.app.keeping.blobs; "
    code += (
        "print([name for name in ('numpy', 'openvino', 'fastapi', 'PIL', 'torch', 'psycopg') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
