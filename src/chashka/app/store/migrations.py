"""The tables' versions. Every change of the schema is a numbered step that is never edited again once it was released.

To add one: change ``schema.py``; add ``Migration(n, "what it does", …)`` at the end of ``MIGRATIONS``. What it does is either
SQL, for each database a file ``sql/000n-sqlite.sql`` and ``sql/000n-postgresql.sql`` (statements end with ``;`` at the end of a
line), or a function that is given the connection and the kind of database. A test builds one database by the steps and one from
``schema.py`` and compares them. The files of step 1 are ``ddl(kind)`` as the schema was then.

Each step is one transaction with its row in ``migrations``, so a process that dies leaves the version before or the version
after. In SQLite foreign keys are not enforced during a step, since a table may have to be made anew, and are checked before it
is committed; and before an existing file is changed it is copied to ``NAME.before-n``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, Float, Integer, MetaData, String, Table, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateIndex, CreateTable

from chashka.app.keeping.blobs import sync, told
from chashka.app.store.database import Database
from chashka.app.store.schema import TABLES
from chashka.errors import FileError

SQL = Path(__file__).with_name("sql")
_ONE_AT_A_TIME = 0x63686173686B61  # the key of PostgreSQL's lock for processes that start together

applied = Table(
    "migrations",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(200), nullable=False),
    Column("at", Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step. do: (connection, "sqlite" | "postgresql") → None, within its transaction."""

    number: int
    name: str
    do: Callable[[Connection, str], None]


def from_files(number: int) -> Callable[[Connection, str], None]:
    """A step that runs the statements of its files."""

    def do(connection: Connection, kind: str) -> None:
        text = (SQL / f"{number:04}-{kind}.sql").read_text(encoding="utf-8")
        for statement in text.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)

    return do


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "the first tables", from_files(1)),
    Migration(2, "an index of who waits", from_files(2)),
)


def migrate(database: Database, steps: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the tables to the newest version, which is returned. What ``read_only`` databases lack is only told.

    Raises FileError: written by a newer chashka; opened for reading and too old; the copy cannot be written.
    """
    newest = steps[-1].number
    now = found = version(database)
    if now > newest:
        raise FileError(
            f"the database {database.where!r} is of version {now}, this chashka knows versions to {newest}; "
            "install the newer chashka, or use another data folder"
        )
    if database.read_only:
        if now < newest:
            raise FileError(
                f"the database {database.where!r} is of version {now}, this chashka needs {newest}; start the server once"
            )
        return now
    for step in steps:
        if step.number > now:
            if database.kind == "sqlite" and found:
                _copy(database, step.number)
            _apply(database, step)
            now = step.number
    return newest


def version(database: Database) -> int:
    """The number of the last step that was applied; 0: there is nothing yet."""
    return database.fetch(_version)


def ddl(kind: str) -> str:
    """The statements that make the tables of ``schema.py``, for files of step 1 and for comparing."""
    dialect = make_url(f"{kind}://").get_dialect()()
    statements = []
    for table in TABLES.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        indices = sorted(table.indexes, key=lambda index: str(index.name))
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in indices]
    lines = (line.rstrip() for statement in statements for line in f"{statement.strip()};".splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(applied.name):
        return 0
    return connection.execute(select(applied.c.number).order_by(applied.c.number.desc()).limit(1)).scalar() or 0


def _apply(database: Database, step: Migration) -> None:
    """One step in one transaction, unless another process was faster."""
    if database.kind == "postgresql":

        def work(connection: Connection, _: bool) -> None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})")
            _do(connection, database, step)

        database.transact(work)
        return
    with database.lenient(), database.write() as connection:
        _do(connection, database, step)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise FileError(
                f"cannot bring {database.where!r} to version {step.number}: rows of {broken[0][0]!r} would be lost"
            )


def _do(connection: Connection, database: Database, step: Migration) -> None:
    if _version(connection) >= step.number:
        return
    applied.create(connection, checkfirst=True)
    step.do(connection, database.kind)
    row = {"number": step.number, "name": step.name, "at": database.time(connection)}
    connection.execute(insert(applied).values(row))


def _copy(database: Database, number: int) -> None:
    """The file as it was, whole or not at all."""
    target = Path(f"{database.where}.before-{number}")
    part = Path(f"{target}.part")
    try:
        part.unlink(missing_ok=True)
        with database.read() as connection:
            copy_sqlite(connection, part)
        os.replace(part, target)  # noqa: PTH105
        sync(target.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise told(error, f"cannot write the copy {str(target)!r}") from error


def copy_sqlite(connection: Connection, target: Path) -> None:
    """What ``connection`` sees of a SQLite database as a new file, on the disk when it returns. Raises FileError."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    try:
        copy = sqlite3.connect(target)
        try:
            raw.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        finally:
            copy.close()
        sync(target)
    except (OSError, sqlite3.Error) as error:
        raise FileError(f"cannot write the copy {str(target)!r}: {error}") from error
