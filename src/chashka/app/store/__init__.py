"""What lasts: jobs, pictures and keys in one database (docs/server.md)."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, or_, select

from chashka.app.settings import Settings
from chashka.app.store.database import Database
from chashka.app.store.jobs import JobStore
from chashka.app.store.keys import Keys
from chashka.app.store.migrations import migrate
from chashka.app.store.pictures import Pictures
from chashka.app.store.schema import jobs, pictures
from chashka.errors import FileError

NAME = "chashka.sqlite3"
"""The database's name in the data folder."""


class Store:
    """jobs, pictures and keys of one ``database``. ``database.sole`` tells whether no other process writes into it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.jobs = JobStore(database)
        self.pictures = Pictures(database)
        self.keys = Keys(database)

    @classmethod
    def open(cls, settings: Settings, *, read_only: bool = False) -> Store:
        """Open what the settings name, make it if it is not there, and bring its tables to the newest version.

        read_only: also while a server owns it, and nothing is made or changed. Raises as ``Database.open`` and ``migrate``.
        """
        if not settings.database and not read_only:
            try:
                settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise FileError(f"cannot make the folder {str(settings.data)!r}: {error.strerror or error}") from error
        return cls.at(settings.database or settings.data / NAME, read_only=read_only)

    @classmethod
    def at(cls, where: str | Path, *, read_only: bool = False) -> Store:
        """The same for a file or an address."""
        database = Database.open(where, read_only=read_only)
        try:
            migrate(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def damage(self) -> list[str]:
        """What SQLite finds wrong with its file, in its own words; PostgreSQL looks after its own."""
        if self.database.kind != "sqlite":
            return []
        said = self.database.fetch(
            lambda connection: connection.exec_driver_sql("PRAGMA quick_check(20)").scalars().all()
        )
        return [str(line) for line in said if line != "ok"]

    def referenced(self) -> set[str]:
        """The sha256 of every file that a picture is, or that a job which has not ended is given; for ``Blobs.sweep``."""
        return self.database.fetch(self.referenced_in)

    def referenced_in(self, connection: Connection) -> set[str]:
        """The same as one transaction sees it."""
        found: set[str] = set()
        for row in connection.execute(select(pictures.c.sha256, pictures.c.thumbnail)):
            found.update(row)
        going_on = or_(jobs.c.state == "queued", jobs.c.state == "running")
        for inputs in connection.execute(select(jobs.c.inputs).where(going_on)).scalars():
            found.update(inputs.values())
        return found

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()
