"""The same contract on a real PostgreSQL, also when it is restarted and connections are cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from backup_contract import BackupContract, everything, fill
from hypothesis.stateful import run_state_machine_as_test
from queue_model import QueueMachine, thoroughness
from sqlalchemy import delete
from store_contract import AcceptContract, DatabaseContract, OrderContract
from worker_contract import LeaseContract, RetryContract

from chashka.app.jobs import Job
from chashka.app.keeping.blobs import Blobs, StorageFullError
from chashka.app.store import NAME, Store
from chashka.app.store.backup import backup, restore
from chashka.app.store.database import Database, UnavailableError
from chashka.app.store.migrations import MIGRATIONS, Migration, migrate, version
from chashka.app.store.schema import TABLES
from chashka.errors import FileError
from postgres_server import server
from store_jobs import BROKEN, LONG, claim, new_job, new_picture, submit
from store_migrations import FIRST, MORE, add_column, schema_of

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def address() -> str:
    return server().new()


@pytest.fixture(scope="module")
def opened(address: str) -> Iterator[Store]:
    store = Store.at(address)
    yield store
    store.close()


@pytest.fixture
def store(opened: Store) -> Store:
    with opened.database.write() as connection:
        for table in reversed(TABLES.sorted_tables):
            connection.execute(delete(table))
    return opened


@pytest.fixture
def empty() -> str:
    return server().new()


class TestPostgres(AcceptContract, OrderContract, LeaseContract, RetryContract, DatabaseContract):
    """All of it."""


class TestBackup(BackupContract):
    """From PostgreSQL into PostgreSQL."""

    def test_from_postgresql_into_sqlite(self, store: Store, tmp_path: Path) -> None:
        blobs = Blobs(tmp_path / "blobs")
        fill(store, blobs)
        backup(store, blobs, tmp_path / "backup")
        restore(tmp_path / "backup", tmp_path / "data")
        with closing(Store.at(tmp_path / "data" / NAME)) as back:
            assert everything(back) == everything(store)

    def test_from_sqlite_into_postgresql(self, empty: str, tmp_path: Path) -> None:
        blobs = Blobs(tmp_path / "blobs")
        with closing(Store.at(tmp_path / "store.sqlite3")) as store:
            fill(store, blobs)
            backup(store, blobs, tmp_path / "backup")
            restore(tmp_path / "backup", tmp_path / "data", empty)
            with closing(Store.at(empty)) as back:
                assert everything(back) == everything(store)
                assert back.keys.add("boris")[0].name == "boris"
                submit(back)
                job = claim(back)
                back.jobs.publish(job.id, job.fence, new_picture())


def test_the_queue_does_what_the_model_does(opened: Store) -> None:
    class Machine(QueueMachine):
        store = opened

    run_state_machine_as_test(Machine, settings=thoroughness(8, 30))


def test_several_processes_may_write(store: Store, address: str) -> None:
    with closing(Store.at(address)) as other:
        assert not store.database.sole
        job = submit(other)
        assert claim(store).id == job.id
        assert other.jobs.claim("other", LONG) is None


def test_a_cut_connection_is_made_anew(store: Store) -> None:
    job = submit(store)
    for _ in range(5):
        assert server().cut() > 0
        assert store.jobs.get(job.id) == job
        with store.database.write() as connection:
            store.database.time(connection)


def test_work_that_is_cut_in_the_middle_is_done_once(store: Store) -> None:
    """The connection goes away within each kind of transaction, at first, and again after what it did was committed."""
    database = store.database
    real = database.write

    def one_cut(where: str) -> None:
        """Make ``write`` lose its connection once: before the commit, or after it, when nobody can know of it."""
        left = [where]

        @contextmanager
        def write() -> Iterator[object]:
            with real() as connection:
                yield connection
                if left == ["before"]:
                    left.clear()
                    server().cut()
                    connection.exec_driver_sql("SELECT 1")
            if left == ["after"]:
                left.clear()
                raise UnavailableError("the answer to COMMIT was lost")

        database.write = write  # type: ignore[method-assign, assignment]

    try:
        for where in ("before", "after"):
            one_cut(where)
            job, fresh = store.jobs.submit(new_job(key=where, body="1"), 10)
            assert fresh
            one_cut(where)
            claimed = claim(store)
            assert (claimed.id, claimed.fence, claimed.attempts) == (job.id, 1, 1)
            one_cut(where)
            assert store.jobs.renew(job.id, 1, LONG, 1, 2) == ""
            one_cut(where)
            picture = store.jobs.publish(job.id, 1, new_picture())
            assert [found.id for found in store.pictures.of_job(job.id)] == [picture]
            one_cut(where)
            assert store.jobs.release(job.id, 1).attempts == 0
            assert claim(store).fence == 2
            one_cut(where)
            left = store.jobs.fail_attempt(job.id, 2, BROKEN)
            assert (left.state, left.attempts) == ("queued", 1)
            assert claim(store).fence == 3
            one_cut(where)
            assert store.jobs.finish(job.id, 3, "done").state == "done"
    finally:
        database.write = real  # type: ignore[method-assign]
    assert store.jobs.counts() == {"queued": 0, "running": 0, "done": 2, "failed": 0, "canceled": 0}


def test_a_restart_is_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are submitted and drawn while the server stops without a goodbye and recovers."""
    monkeypatch.setattr(store.database, "patience", 60.0)  # for a machine that has other things to do
    end, errors, done = threading.Event(), list[Exception](), list[Job]()

    def go() -> None:
        try:
            while not end.is_set():
                submit(store)
                job = claim(store)
                store.jobs.publish(job.id, job.fence, new_picture())
                done.append(store.jobs.finish(job.id, job.fence, "done"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    server().restart()
    before = len(done)
    until = time.monotonic() + 60
    while len(done) < before + 4 and time.monotonic() < until:
        time.sleep(0.05)
    end.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(done) >= before + 4
    assert store.jobs.counts() == {"queued": 0, "running": 0, "done": len(done), "failed": 0, "canceled": 0}
    assert len(store.pictures.search(limit=200)) == min(200, len(done))


def test_a_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chashka.app.store.database.OPENING", 0.2)
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        Database.open("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_postgresql_says_of_a_full_disk_is_understood(store: Store) -> None:
    raising = "DO $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$"
    with pytest.raises(StorageFullError, match="disk is full"), store.database.write() as connection:
        connection.exec_driver_sql(raising)


def test_deadlocks_are_tried_again(store: Store) -> None:
    turns = list[bool]()

    def work(connection: object, again: bool) -> str:
        turns.append(again)
        if not again:
            connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'deadlock_detected'; END $$")  # type: ignore[attr-defined]
        return "done"

    assert store.database.transact(work) == "done"
    assert turns == [False, True]


def test_the_steps_make_what_the_schema_says(empty: str) -> None:
    by_steps, by_schema = Database.open(empty), Database.open(server().new())
    assert migrate(by_steps) == MIGRATIONS[-1].number
    with by_schema.write() as connection:
        TABLES.create_all(connection)
    assert schema_of(by_steps) == schema_of(by_schema)
    by_steps.close()
    by_schema.close()


def test_processes_that_start_together_bring_it_up_once(empty: str) -> None:
    start, found = threading.Barrier(4), list[int]()

    def go() -> None:
        database = Database.open(empty)
        start.wait()
        found.append(migrate(database, (*MIGRATIONS, *MORE)))
        database.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [MORE[-1].number] * 4


def test_a_step_that_fails_has_not_happened(empty: str) -> None:
    def fail(connection: object, kind: str) -> None:
        add_column(connection, kind)  # type: ignore[arg-type]
        raise ZeroDivisionError

    database = Database.open(empty)
    with pytest.raises(ZeroDivisionError):
        migrate(database, (*MIGRATIONS, Migration(FIRST, "fails", fail)))
    assert version(database) == FIRST - 1
    assert migrate(database, (*MIGRATIONS, *MORE)) == MORE[-1].number
    database.close()
    with pytest.raises(FileError, match="install the newer chashka"):
        Store.at(empty)
