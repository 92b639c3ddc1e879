"""A copy of everything while it is in use, and back.

    TARGET/MANIFEST.json      what is in it: the sha256 and size of every file, the version of the tables, the number of rows
    TARGET/chashka.sqlite3    the rows of SQLite, as one file; or
    TARGET/rows/TABLE.jsonl   those of PostgreSQL, a JSON object each; both can be restored into both
    TARGET/blobs/ab/abcd…     the pictures: never changed once written, so hard links where the disk is the same
    TARGET/made.jsonl         the log of what commands made, and
    TARGET/styles.csv         the styles of A1111's clients: copies, where the data folder has them

What else is in the data folder (``training``: shards and runs, which may be very large) is left out and named in the manifest. Rows
first, then the files they refer to: a file is always there before its row. A copy has its name only when it is complete and
was read again and compared.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, insert, select

from chashka.app.keeping.blobs import FOLDER, Blobs, sync, told
from chashka.app.keeping.made import NAME as MADE
from chashka.app.store import NAME, Store
from chashka.app.store.database import Database, as_json
from chashka.app.store.migrations import MIGRATIONS, copy_sqlite, migrate, version
from chashka.app.store.schema import TABLES
from chashka.errors import FileError

MANIFEST = "MANIFEST.json"
ROWS = "rows"
FORMAT = 1
BESIDE = (MADE, "styles.csv")
"""Files of the data folder, beside the pictures."""
PASSING = (NAME, f"{NAME}-wal", f"{NAME}-shm", f"{NAME}.lock", FOLDER, "server.json")
"""What else a data folder has that is copied otherwise, or means nothing elsewhere."""
_TRIES = 3
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup holds or a restoration brought back: rows, files of pictures, all bytes, and names of files beside them.

    left: names in the data folder that were left out.
    """

    rows: int
    blobs: int
    size: int
    beside: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def backup(store: Store, blobs: Blobs, target: Path) -> Copied:
    """Copy everything into the folder ``target``, which must not be there or be empty, while others go on working.

    The data folder is the one that ``blobs`` are in.

    The store may be open for reading only. Raises FileError, after which ``target`` is as it was: not writable, not empty, or
    something in the store is missing or damaged, which is named.
    """
    with _whole(target, "write the backup") as part:
        return _fill(store, blobs, part)


def restore(source: Path, target: Path, database: str = "") -> Copied:
    """Put a backup into the data folder ``target``, which must not be there or be empty; rows into ``database`` if one is named.

    Everything is compared with the manifest before anything is written. Raises FileError: no backup, damaged, of a newer
    chashka, or the place is not empty.
    """
    manifest = verify(source)
    if manifest["version"] > MIGRATIONS[-1].number:
        raise FileError(f"the backup {str(source)!r} was made by a newer chashka; install that one")
    with _whole(target, "restore into") as part:
        blobs = Blobs(part / FOLDER)
        for name in manifest["files"]:
            if name.startswith(f"{FOLDER}/"):
                _link(source / name, blobs.path(Path(name).name))
            elif name in BESIDE:  # a copy: it goes on growing here
                _copy(source / name, part / name)
        where: str | Path = database or part / NAME
        same = not database and (source / NAME).is_file()
        if same:
            _copy(source / NAME, part / NAME)
        with closing(Database.open(where)) as opened:
            if not same:
                _insert_all(source, manifest, opened)
            rows = _count(opened)
            if rows != manifest["rows"]:
                raise FileError(f"not every row came back into {str(where)!r}: {rows} of {manifest['rows']}")
            migrate(opened)
    return _copied(manifest)


def verify(source: Path) -> dict[str, Any]:
    """The manifest of a backup whose every file was read and is as it was. Raises FileError that names the first that is not."""
    try:
        manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise FileError(f"{str(source)!r} is a backup of format {manifest['format']}; this chashka knows {FORMAT}")
        for name, said in manifest["files"].items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise FileError(f"{str(source / MANIFEST)!r} names {name[:80]!r}, which is not within the backup")
            if _described(source / name) != said:
                raise FileError(f"{str(source / name)!r} is damaged: it is not what was backed up")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{str(source / MANIFEST)!r} is damaged: {error}") from error
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{str(source)!r} is no complete backup: {error}") from error
    return manifest


def _fill(store: Store, blobs: Blobs, part: Path) -> Copied:
    """Rows, files and the manifest; compared at the end."""
    for tried in range(1, _TRIES + 1):
        rows, needed = _rows(store, part)
        missing = _files(blobs, needed, part / FOLDER)
        if not missing:
            break
        if tried == _TRIES:  # otherwise a picture was deleted for good after the rows were copied
            raise FileError(f"the file {missing} of a picture is missing in {str(blobs.folder)!r}")
    data = blobs.folder.parent
    there = [path.name for path in data.iterdir()] if data.is_dir() else []
    for name in BESIDE:
        if (data / name).is_file():
            _copy(data / name, part / name, whole_lines=name == MADE)
    files = {path.relative_to(part).as_posix(): _described(path) for path in sorted(part.rglob("*")) if path.is_file()}
    for name, said in files.items():
        if name.startswith(f"{FOLDER}/") and said["sha256"] != Path(name).name:
            raise FileError(f"the file {Path(name).name} in {str(blobs.folder)!r} is damaged")
    manifest = {
        "format": FORMAT,
        "version": version(store.database),
        "database": store.database.kind,
        "rows": rows,
        "files": files,
        "left": sorted(filter(_left, there)),
    }
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for folder in (part, *(path for path in part.rglob("*") if path.is_dir()), part / MANIFEST):
        sync(folder)
    return _copied(manifest)


def _rows(store: Store, part: Path) -> tuple[dict[str, int], set[str]]:
    """Write the rows; how many there are of each table, and which files they refer to."""
    if store.database.kind == "sqlite":
        with store.database.read() as connection:
            (part / NAME).unlink(missing_ok=True)
            copy_sqlite(connection, part / NAME)
        with closing(Store(Database.open(part / NAME, read_only=True))) as copy:
            found = _count(copy.database), copy.referenced()
        for beside in ("-wal", "-shm"):
            (part / (NAME + beside)).unlink(missing_ok=True)
        return found
    (part / ROWS).mkdir(exist_ok=True)
    with store.database.read() as connection:
        counts = {table.name: _write_rows(connection, table, part / ROWS) for table in TABLES.sorted_tables}
        return counts, store.referenced_in(connection)


def _write_rows(connection: Connection, table: Table, folder: Path) -> int:
    """One table as lines of JSON; how many."""
    number = 0
    with (folder / f"{table.name}.jsonl").open("w", encoding="utf-8") as file:
        found = connection.execution_options(yield_per=_AT_ONCE).execute(select(table))
        for row in found:
            file.write(as_json(dict(row._mapping)) + "\n")
            number += 1
        file.flush()
        os.fsync(file.fileno())
    return number


def _insert_all(source: Path, manifest: dict[str, Any], database: Database) -> None:
    """The rows of a backup into an empty database, whichever of the two either is."""
    now = version(database)
    if now not in (0, manifest["version"]) or (now and any(_count(database).values())):
        raise FileError(f"the database {database.where!r} is not empty; name a new one")
    migrate(database, [step for step in MIGRATIONS if step.number <= manifest["version"]])
    if (source / NAME).is_file():
        with closing(Database.open(source / NAME, read_only=True)) as old, old.read() as reading:
            _insert(database, {table.name: _read_table(reading, table) for table in TABLES.sorted_tables})
        return
    _insert(
        database, {table.name: _read_lines(source / ROWS / f"{table.name}.jsonl") for table in TABLES.sorted_tables}
    )


def _insert(database: Database, found: dict[str, Iterator[dict[str, Any]]]) -> None:
    """Everything in one transaction, tables that others refer to first."""
    with database.write() as connection:
        tables = MetaData()
        tables.reflect(connection)
        for known in TABLES.sorted_tables:
            table = tables.tables[known.name]
            for some in _pieces(found[known.name]):
                connection.execute(insert(table), some)
            if database.kind == "postgresql" and "number" in table.c:  # numbers go on behind what came back
                last = select(func.max(table.c.number)).scalar_subquery()
                counter = func.pg_get_serial_sequence(table.name, "number")
                connection.execute(select(func.setval(counter, last)).where(last.is_not(None)))


def _read_table(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    for row in connection.execute(select(table)):
        yield dict(row._mapping)


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _pieces(found: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    some: list[dict[str, Any]] = []
    for row in found:
        some.append(row)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _files(blobs: Blobs, needed: set[str], folder: Path) -> str | None:
    """Link or copy files that are not there yet; the first that is missing, if one is."""
    for name in sorted(needed):
        place = folder / name[:2] / name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                _link(blobs.path(name), place)
            except FileNotFoundError:
                return name
    return None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one that knows no links
        _copy(source, target)


def _copy(source: Path, target: Path, whole_lines: bool = False) -> None:
    """A file of its own. whole_lines: without a last line that is being written."""
    shutil.copyfile(source, target)
    if whole_lines:
        with target.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    sync(target)


def _left(name: str) -> bool:
    """Whether something in the data folder is left out."""
    return name not in (*BESIDE, *PASSING) and not name.startswith(".")


def _count(database: Database) -> dict[str, int]:
    with database.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in TABLES.sorted_tables
        }


def _described(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}


def _copied(manifest: dict[str, Any]) -> Copied:
    files = manifest["files"]
    blobs = sum(name.startswith(f"{FOLDER}/") for name in files)
    size = sum(file["bytes"] for file in files.values())
    beside = tuple(name for name in BESIDE if name in files)
    return Copied(sum(manifest["rows"].values()), blobs, size, beside, tuple(manifest.get("left", ())))


@contextmanager
def _whole(target: Path, what: str) -> Iterator[Path]:
    """A folder to fill that becomes ``target`` if all goes well; otherwise nothing is left of it."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileError(f"{str(target)!r} is not empty; name a new folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".part", dir=target.parent))
        try:
            yield part
            if target.exists():
                target.rmdir()
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync(target.parent)
    except OSError as error:
        raise told(error, f"cannot {what} {str(target)!r}") from error
