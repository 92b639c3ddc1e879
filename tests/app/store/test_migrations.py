"""The tables' versions: the steps give what the schema says, and a step that is interrupted has not happened."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from chashka.app.store import Store
from chashka.app.store.database import Database
from chashka.app.store.migrations import MIGRATIONS, SQL, Migration, ddl, migrate, version
from chashka.app.store.schema import TABLES
from chashka.errors import FileError
from store_jobs import Process, submit
from store_migrations import FIRST, MORE, add_column, migrate_slowly, schema_of, seconds_to_migrate

KILLS = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


def opened(path: Path, *steps: Migration) -> int:
    database = Database.open(path)
    try:
        return migrate(database, (*MIGRATIONS, *steps))
    finally:
        database.close()


def rows(path: Path, statement: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def test_the_steps_make_what_the_schema_says(tmp_path: Path) -> None:
    by_steps, by_schema = Database.open(tmp_path / "steps"), Database.open(tmp_path / "schema")
    assert migrate(by_steps) == MIGRATIONS[-1].number
    with by_schema.write() as connection:
        TABLES.create_all(connection)
    assert schema_of(by_steps) == schema_of(by_schema)
    by_steps.close()
    by_schema.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_first_step_is_what_the_schema_was(kind: str) -> None:
    text = (SQL / f"0001-{kind}.sql").read_text(encoding="utf-8")
    assert "CREATE TABLE jobs" in text
    if len(MIGRATIONS) == 1:
        assert text == ddl(kind), "nothing was released yet: write ddl(kind) into src/chashka/app/store/sql again"


def test_the_numbers_are_in_order() -> None:
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_opening_twice_changes_nothing(path: Path) -> None:
    store = Store.at(path)
    submit(store)
    store.close()
    before = rows(path, "SELECT * FROM migrations")
    assert opened(path) == MIGRATIONS[-1].number
    assert rows(path, "SELECT * FROM migrations") == before
    assert rows(path, "SELECT count(*) FROM jobs") == [(1,)]
    assert not list(path.parent.glob("*.before-*"))


def test_an_old_database_is_copied_and_brought_up(path: Path) -> None:
    store = Store.at(path)
    job = submit(store)
    store.close()
    assert opened(path, *MORE) == MORE[-1].number
    assert rows(path, "SELECT id, mood FROM jobs") == [(job.id, "new 1")]
    for step in MORE:
        copy = path.with_name(f"{path.name}.before-{step.number}")
        assert rows(copy, "SELECT max(number) FROM migrations") == [(step.number - 1,)]
        assert rows(copy, "SELECT id FROM jobs") == [(job.id,)]
    assert not list(path.parent.glob("*.part"))
    assert opened(path, *MORE) == MORE[-1].number


def test_a_newer_database_is_refused(path: Path) -> None:
    opened(path, *MORE)
    for read_only in (False, True):
        with pytest.raises(
            FileError, match=r"is of version \d+, this chashka knows versions to \d+; install"
        ) as caught:
            Store.at(path, read_only=read_only)
        assert "\n" not in str(caught.value)


def test_a_database_that_is_too_old_to_be_read_is_told(path: Path) -> None:
    opened(path)
    database = Database.open(path, read_only=True)
    with pytest.raises(FileError, match="start the server once"):
        migrate(database, (*MIGRATIONS, *MORE))
    database.close()


def test_a_step_that_fails_has_not_happened(path: Path) -> None:
    def fail(connection: Connection, kind: str) -> None:
        add_column(connection, kind)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened(path, Migration(FIRST, "fails", fail))
    database = Database.open(path)
    assert version(database) == FIRST - 1
    database.close()
    assert ("mood",) not in rows(path, "SELECT name FROM pragma_table_info('jobs')")
    assert opened(path, *MORE) == MORE[-1].number


def test_a_step_that_loses_rows_is_undone(path: Path) -> None:
    store = Store.at(path)
    key, _ = store.keys.add("anna")
    store.keys.open_session(key, 60)
    store.close()

    def lose(connection: Connection, kind: str) -> None:
        connection.exec_driver_sql("DELETE FROM keys")

    with pytest.raises(FileError, match="'sessions' would be lost"):
        opened(path, Migration(FIRST, "loses keys", lose))
    assert rows(path, "SELECT count(*) FROM keys") == [(1,)]
    store = Store.at(path)
    with pytest.raises(Exception, match="FOREIGN KEY"), store.database.write() as connection:  # enforced again
        connection.exec_driver_sql("INSERT INTO sessions VALUES ('x', 'nobody', 1)")
    store.close()


def test_a_table_that_others_refer_to_can_be_made_anew(path: Path) -> None:
    store = Store.at(path)
    key, secret = store.keys.add("anna")
    session = store.keys.open_session(key, 60)
    store.close()

    def remake(connection: Connection, kind: str) -> None:
        connection.exec_driver_sql("CREATE TABLE keys_new AS SELECT * FROM keys")
        connection.exec_driver_sql("DROP TABLE keys")
        connection.exec_driver_sql(
            (SQL / "0001-sqlite.sql")
            .read_text()
            .split("CREATE TABLE keys")[1]
            .join(["CREATE TABLE keys", ""])
            .split(";")[0]
        )
        connection.exec_driver_sql("INSERT INTO keys SELECT * FROM keys_new")
        connection.exec_driver_sql("DROP TABLE keys_new")

    database = Database.open(path)
    migrate(database, (*MIGRATIONS, Migration(FIRST, "keys anew", remake)))
    store = Store(database)
    assert store.keys.check(secret) == store.keys.session(session) == key
    store.close()


def test_a_copy_that_cannot_be_written_stops_the_step(path: Path) -> None:
    opened(path)
    path.with_name(f"{path.name}.before-{FIRST}.part").mkdir()
    with pytest.raises(FileError, match="cannot write the copy"):
        opened(path, *MORE)
    assert rows(path, "SELECT max(number) FROM migrations") == [(FIRST - 1,)]


def test_killed_in_the_middle_it_opens_with_every_row(path: Path) -> None:
    """The steps rewrite every row slowly, so that most kills hit one of them or the copy before it."""
    store = Store.at(path)
    ids = sorted(submit(store).id for _ in range(30))
    store.close()
    before, chance, seen = path.read_bytes(), random.Random(1), set[int]()
    whole = seconds_to_migrate(path)
    for _ in range(KILLS):
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink()
        path.write_bytes(before)
        process = Process(migrate_slowly, str(path))
        process.wait()
        time.sleep(chance.uniform(0.0, 1.3 * whole))
        process.kill()
        database = Database.open(path)
        seen.add(version(database))
        database.close()
        assert opened(path, *MORE) == MORE[-1].number
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert [row[0] for row in rows(path, "SELECT id FROM jobs ORDER BY id")] == ids
        assert {row[0] for row in rows(path, "SELECT mood FROM jobs")} == {f"new {n}" for n in range(1, 31)}
        copy = path.with_name(f"{path.name}.before-{FIRST}")
        assert [row[0] for row in rows(copy, "SELECT id FROM jobs ORDER BY id")] == ids
    assert len(seen) > 1, f"every kill found version {seen}: the times do not fit the machine"
