"""One database, SQLite or PostgreSQL, as transactions: ``read`` and ``write`` give a connection, ``transact`` and ``fetch`` repeat.

SQLite before 3.51.3 can damage a file when two connections write and checkpoint at once (decision 006), so one process owns the
file (``lock.py``), one connection in it writes and checkpoints, one thread at a time, and all others may only read. PostgreSQL is
shared by processes; what a lost connection interrupted is done again there, which the work has to allow (``Work``).
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import URL, ColumnElement, Connection, Engine, Float, Table, cast, create_engine, event, func, select
from sqlalchemy import exc as sql_errors
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool, StaticPool

from chashka.app.keeping.blobs import StorageFullError
from chashka.app.store.lock import Ownership
from chashka.errors import FileError, InputError, MissingExtraError

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection, bool], T]
"""What happens in one transaction. The second value says that it is tried again and may have been committed the first time."""
BUSY = 5.0
"""Seconds that SQLite waits for a lock."""
PATIENCE = 15.0
"""Seconds that a lost PostgreSQL is waited for."""
OPENING = 3.0
"""The same while it is opened, where an address may simply be wrong."""
WAL_LIMIT = 16_000_000
"""Bytes of SQLite's write-ahead log from which on it is emptied by force; it is promised to stay below 64 MB."""
READERS = 8
_FULL_STATES = ("53100",)
_LOST_STATES = ("57P01", "57P02", "57P03", "57P05", "40001", "40P01", "55P03", "25P03", "53300")
"""PostgreSQL: shut down, crashed, starting, and a transaction that was ended for others' sake."""


class UnavailableError(FileError):
    """The database does not answer, or not in time; nothing is known to have changed."""


class Database:
    """See the module. kind: "sqlite" or "postgresql". version: the database's own. sole: no other process writes.

    now: the database's clock as an SQL expression, seconds since 1970; in SQLite to the millisecond.
    """

    def __init__(self, kind: str, where: str, version: str, writer: Engine | None, reader: Engine) -> None:
        self.kind = kind
        self.where = where
        self.version = version
        self.sole = kind == "sqlite" and writer is not None
        self.patience = PATIENCE if kind == "postgresql" else 0.0
        self.now = _clock(kind)
        self._writer = writer
        self._reader = reader
        self._turn: threading.Lock | None = threading.Lock() if kind == "sqlite" else None
        self._writing: int | None = None
        self._wal = Path(where + "-wal") if kind == "sqlite" else None
        self._wal_limit = WAL_LIMIT
        self._ownership: Ownership | None = None

    @classmethod
    def open(cls, where: str | Path, *, read_only: bool = False) -> Database:
        """Open a SQLite file, which is made, or ``postgresql://…``; tables are ``migrations.py``'s.

        read_only: may be opened while another process owns it; it has to exist. Raises FileError (cannot be read, is no database,
        belongs to another process), UnavailableError, MissingExtraError (the extra [postgres]), InputError (another URL).
        """
        if isinstance(where, str) and "://" in where:
            try:
                url = make_url(where)
            except sql_errors.ArgumentError:
                raise InputError("database: not an address; allowed: a path, postgresql://USER@HOST/NAME") from None
            if url.drivername.partition("+")[0] in ("postgresql", "postgres"):
                return _open_postgresql(url, read_only)
            if url.drivername != "sqlite" or not url.database:
                raise InputError(
                    f"database: {url.drivername!r} is not possible; allowed: a path, postgresql://USER@HOST/NAME"
                )
            where = url.database
        return _open_sqlite(Path(where).absolute(), read_only)

    @property
    def read_only(self) -> bool:
        """Whether ``write`` is refused."""
        return self._writer is None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database and may not change it."""
        with self._translated(), self._connected(self._reader) as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: committed, durably, when the block ends, and rolled back if it raises.

        Raises StorageFullError, UnavailableError, FileError. Not to be begun within another one of the same thread.
        """
        if self._writer is None:
            raise FileError(f"the database {self.where!r} is open for reading only")
        if self._turn is None:
            with self._translated(), self._connected(self._writer) as connection, connection.begin():
                yield connection
            return
        if self._writing == threading.get_ident():
            raise RuntimeError("a transaction within a transaction")
        with self._turn, self._translated():
            self._writing = threading.get_ident()
            try:
                with self._writer.connect() as connection, connection.begin():
                    yield connection
                self._shorten_log()
            finally:
                self._writing = None

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """SQLite's writer without enforcement of foreign keys, for migrations; nobody else writes meanwhile."""
        self._pragma("foreign_keys=OFF")
        try:
            yield
        finally:
            self._pragma("foreign_keys=ON")

    def _pragma(self, text: str) -> Any:
        """A setting of SQLite's writer, outside of a transaction; the first value of the answer."""
        assert self._writer is not None
        with self._writer.connect() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            row = raw.execute(f"PRAGMA {text}").fetchone()
            return None if row is None else row[0]

    def transact(self, work: Work[T]) -> T:
        """``work`` in one ``write``; with PostgreSQL again if the connection was lost, for ``PATIENCE`` seconds."""
        return self._patiently(work, self.write)

    def fetch(self, work: Callable[[Connection], T]) -> T:
        """``work`` in one ``read``; with PostgreSQL again if the connection was lost."""
        return self._patiently(lambda connection, _: work(connection), self.read)

    def time(self, connection: Connection) -> float:
        """The value of ``now``."""
        return float(connection.execute(select(self.now)).scalar_one())

    def insert_new(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """INSERT that does nothing where a unique value is there already."""
        made = sqlite.insert(table) if self.kind == "sqlite" else postgresql.insert(table)
        return made.on_conflict_do_nothing()

    def close(self) -> None:
        """Readers first: who leaves SQLite's file last checkpoints, and that has to be the writer."""
        self._reader.dispose()
        if self._writer is not None and self._writer is not self._reader:
            self._writer.dispose()
        if self._ownership is not None:
            self._ownership.release()

    def _patiently(self, work: Work[T], begin: Callable[[], Any]) -> T:
        until, pause, again = time.monotonic() + self.patience, 0.02, False
        while True:
            try:
                with begin() as connection:
                    return work(connection, again)
            except UnavailableError:
                if time.monotonic() + pause > until:
                    raise
            again = True
            time.sleep(pause)
            pause = min(2 * pause, 0.5)

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        """A connection; PostgreSQL is waited for while it starts."""
        until = time.monotonic() + self.patience
        while True:
            try:
                connection = engine.connect()
                break
            except sql_errors.OperationalError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)
        with connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The database's errors as ours; those that only a mistake of ours can cause stay as they are."""
        try:
            yield
        except sql_errors.TimeoutError as error:
            raise UnavailableError("the database is busy: no connection was free in time; try again") from error
        except sql_errors.DBAPIError as error:
            found = _error(error, self.where)
            if found is None:
                raise
            raise found from error

    def _shorten_log(self) -> None:
        """Empty the write-ahead log when it has grown because somebody was always reading; called by the writing thread."""
        assert self._wal is not None
        try:
            size = self._wal.stat().st_size
        except FileNotFoundError:
            return
        if size <= self._wal_limit:
            return
        self._pragma("busy_timeout=250")  # for readers to finish
        blocked = self._pragma("wal_checkpoint(TRUNCATE)")
        self._pragma(f"busy_timeout={int(BUSY * 1000)}")
        self._wal_limit = size + WAL_LIMIT // 4 if blocked else WAL_LIMIT


def _clock(kind: str) -> ColumnElement[float]:
    if kind == "sqlite":
        return cast((func.julianday("now") - 2440587.5) * 86400.0, Float)
    return func.date_part("epoch", func.clock_timestamp(), type_=Float)


def as_json(value: Any) -> str:
    """JSON as it is stored: letters stay letters, but for halves of surrogate pairs, which are no letters."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def storable(text: str) -> str:
    """A text as both databases can store it: without NUL, which PostgreSQL refuses, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _open_sqlite(path: Path, read_only: bool) -> Database:
    if read_only and not path.is_file():
        raise FileError(
            f"there is no database {str(path)!r}: nothing was kept there yet; another --data, or begin with chashka serve"
        )
    if path.exists() and not path.is_file():
        raise FileError(f"{str(path)!r} is no file; allowed: a SQLite database, or a name for a new one")
    ownership = None if read_only else Ownership(path)
    # autocommit of the driver: BEGIN is ours, so that a writer begins as one and a reader sees one state
    address = path.as_uri() + ("?mode=ro" if read_only else "?mode=rwc")

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False)

    def settle(raw: sqlite3.Connection, writes: bool) -> None:
        if writes:
            raw.execute("PRAGMA journal_mode=WAL")
            raw.execute("PRAGMA synchronous=FULL")
            raw.execute(f"PRAGMA journal_size_limit={WAL_LIMIT}")
        else:
            raw.execute("PRAGMA query_only=ON")
            raw.execute("PRAGMA wal_autocheckpoint=0")
            raw.execute("PRAGMA cache_size=-256")  # KiB; there are many readers, and the system caches the file anyway
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA mmap_size=0")

    def engine(writes: bool) -> Engine:
        pool: dict[str, Any] = {"poolclass": StaticPool} if writes else {"poolclass": QueuePool}
        if not writes:
            pool |= {"pool_size": READERS, "max_overflow": 4 * READERS, "pool_timeout": 30.0}
        made = create_engine("sqlite://", creator=connect, json_serializer=as_json, hide_parameters=True, **pool)
        event.listen(made, "connect", lambda raw, _: settle(raw, writes))

        @event.listens_for(made, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return made

    database = Database("sqlite", str(path), sqlite3.sqlite_version, None if read_only else engine(True), engine(False))
    database._ownership = ownership
    try:
        if not read_only:
            with database.write():  # opens the one connection, before any reader can
                pass
        with database.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except BaseException:
        database.close()
        raise
    return database


def _open_postgresql(url: URL, read_only: bool) -> Database:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise MissingExtraError("postgres", "PostgreSQL") from None
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        json_serializer=as_json,
        hide_parameters=True,  # messages would quote prompts
        pool_size=READERS,
        max_overflow=3 * READERS,
        pool_pre_ping=True,
        connect_args={
            "application_name": "chashka",
            "connect_timeout": 5,
            "keepalives_idle": 30,
            "options": "-c synchronous_commit=on -c timezone=UTC -c idle_in_transaction_session_timeout=60000",
        },
    )
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    where = url.render_as_string(hide_password=True)
    database = Database("postgresql", where, "", None if read_only else engine, reader)
    database.patience = OPENING
    try:
        with database.read() as connection:
            database.version = str(connection.exec_driver_sql("SHOW server_version").scalar_one())
        database.patience = PATIENCE
    except BaseException:
        engine.dispose()
        raise
    return database


def _error(error: sql_errors.DBAPIError, where: str) -> FileError | None:
    """What a person can act on, or None for what is a mistake of ours (a wrong statement, a value that is not possible)."""
    origin = error.orig
    state = getattr(origin, "sqlstate", None)
    name = getattr(origin, "sqlite_errorname", "") or ""
    reason = " ".join(str(origin).split())[:200]
    if state in _FULL_STATES or name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and _no_room(where)):
        return StorageFullError(
            "the database cannot be written: the disk is full; free some space, then it works again"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UnavailableError(f"the database {where!r} is busy; try again")
    if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_CANTOPEN", "SQLITE_READONLY")):
        return FileError(f"cannot use the database {where!r}: {reason}")
    lost = error.connection_invalidated or state in _LOST_STATES or (state or "").startswith("08")
    if lost or (state is None and not name and isinstance(error, sql_errors.OperationalError)):
        return UnavailableError(f"the database {where!r} does not answer: {reason}")
    if state in ("28P01", "28000", "3D000"):  # a password, a role or a database that does not exist
        return FileError(f"cannot use the database {where!r}: {reason}")
    return None


def _no_room(where: str) -> bool:
    """Whether an error of input or output comes from a full disk: SQLite does not always know."""
    with suppress(OSError):
        return shutil.disk_usage(Path(where).parent).free < 1_000_000
    return False
