"""Steps that come after the released ones, for tests: they rewrite every job, slowly, as a big change does."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from chashka.app.store.database import Database
from chashka.app.store.migrations import MIGRATIONS, Migration, migrate

FIRST = len(MIGRATIONS) + 1


def add_column(connection: Connection, kind: str) -> None:
    """A column that is there at once."""
    connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN mood VARCHAR(20)")


def fill_column(connection: Connection, kind: str) -> None:
    """A number for every job, one after the other."""
    ids = connection.execute(text("SELECT id FROM jobs ORDER BY id")).scalars().all()
    for number, id in enumerate(ids, 1):
        connection.execute(text("UPDATE jobs SET mood = :mood WHERE id = :id"), {"mood": f"new {number}", "id": id})
        time.sleep(0.003)


def index_column(connection: Connection, kind: str) -> None:
    """An index of it."""
    connection.exec_driver_sql("CREATE INDEX jobs_mood ON jobs (mood)")


MORE = (
    Migration(FIRST, "a column", add_column),
    Migration(FIRST + 1, "its values", fill_column),
    Migration(FIRST + 2, "its index", index_column),
)


def migrate_slowly(where: str, ready: Any) -> None:
    """Open a database and bring it up, then wait to be killed."""
    database = Database.open(where)
    ready.set()
    migrate(database, (*MIGRATIONS, *MORE))
    time.sleep(60)


def seconds_to_migrate(path: Path) -> float:
    """How long it takes here when nobody is killed; what is at ``path`` is brought up."""
    with closing(Database.open(path)) as database:
        began = time.monotonic()
        migrate(database, (*MIGRATIONS, *MORE))
        return time.monotonic() - began


def _plain(index: Any) -> str:
    """An index as text; conditions are objects of SQLAlchemy."""
    options = {name: str(value) for name, value in index.pop("dialect_options", {}).items()}
    return f"{index} {options}"


def schema_of(database: Database) -> dict[str, Any]:
    """Tables, columns, indices, keys: what the database itself says, in an order that does not depend on how it was made."""
    found: dict[str, Any] = {}
    with database.read() as connection:
        seen = inspect(connection)
        for table in sorted(seen.get_table_names()):
            if table == "migrations":
                continue
            columns = {column["name"]: {**column, "type": str(column["type"])} for column in seen.get_columns(table)}
            found[table] = {
                "columns": columns,
                "key": seen.get_pk_constraint(table)["constrained_columns"],
                "indices": sorted(_plain(index) for index in seen.get_indexes(table)),
                "unique": sorted(map(str, seen.get_unique_constraints(table))),
                "foreign": sorted(map(str, seen.get_foreign_keys(table))),
            }
        if database.kind == "sqlite":
            words = (
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name <> 'migrations' ORDER BY name"
            )
            found["sql"] = [(name, " ".join(sql.split())) for name, sql in connection.exec_driver_sql(words)]
    return found
