"""Files by the sha256 of what is in them: written whole or not at all, never changed.

    FOLDER/ab/abcdef…        64 hexadecimal digits, in one of 256 folders that are made when it is opened
    FOLDER/ab/.RANDOM.part   being written: locked by whoever writes it, so that only what a dead process left is cleared away

A file has its name only after its bytes are on the disk, and ``put`` returns only after its name is. Several processes may use one
folder. Nothing is deleted but by ``sweep``, which spares what is young: a file is there before the row that refers to it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from chashka.errors import FileError, InputError

try:
    import fcntl
except ImportError:  # Windows: there parts are cleared away by their age
    fcntl = None  # type: ignore[assignment]

FOLDER = "blobs"
"""Its name in the data folder."""
NAME = re.compile(r"[0-9a-f]{64}")
RESERVE = 512_000_000
SHARE = 0.02
SPARED = 3600.0
"""Seconds: a younger file is not swept, a row for it may still come."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageFullError(FileError):
    """There is no room on the disk; nothing was changed, and the same works again when there is."""


class Blobs:
    """The files of ``folder``, which is made. reserve, share: bytes and part of the disk that new work leaves free.

    Raises FileError if the folder cannot be made. May be used by any number of threads. look: nothing is made or cleared, the
    files are only looked at.
    """

    def __init__(self, folder: str | Path, *, reserve: int = RESERVE, share: float = SHARE, look: bool = False) -> None:
        self.folder = Path(folder)
        self.reserve = reserve
        self.share = share
        self._lock = threading.Lock()  # between "it is there already" and a sweep
        if look:
            return
        try:
            self._make()
        except OSError as error:
            raise told(error, f"cannot make the folder {str(self.folder)!r}") from error
        self.clear()

    def put(self, data: bytes) -> str:
        """Keep ``data`` and return its sha256; what is there already is not written again.

        Raises StorageFullError and FileError, after which nothing is left behind.
        """
        name = sha256(data).hexdigest()
        target = self.path(name)
        try:
            if not self._kept(target):
                self._write(target, data)
            sync(target.parent)  # also if it was there: another thread may be just before doing it
        except OSError as error:
            raise told(error, f"cannot write a file of {len(data):,} bytes into {str(self.folder)!r}") from error
        return name

    def has(self, name: str) -> bool:
        """Whether there is a file with this sha256."""
        return self.path(name).is_file()

    def path(self, name: str) -> Path:
        """Where the file with this sha256 is, or would be. Raises InputError for anything but 64 hexadecimal digits."""
        if not NAME.fullmatch(name):
            raise InputError(f"{name[:80]!r} is no sha256; allowed: 64 of 0-9 and a-f")
        return self.folder / name[:2] / name

    def read(self, name: str) -> bytes:
        """The bytes. Raises FileError if they are not there, InputError as :meth:`path`."""
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            raise told(error, f"cannot read the file {name}") from error

    def size(self, name: str) -> int:
        """Bytes of one file. Raises as :meth:`read`."""
        try:
            return self.path(name).stat().st_size
        except OSError as error:
            raise told(error, f"cannot read the file {name}") from error

    def names(self) -> Iterator[str]:
        """The sha256 of every file there is, in order."""
        for place in self._places():
            try:
                found = sorted(entry.name for entry in os.scandir(place) if NAME.fullmatch(entry.name))
            except OSError as error:
                raise told(error, f"cannot read the folder {str(place)!r}") from error
            yield from found

    def sweep(self, referenced: Container[str], age: float = SPARED) -> int:
        """Delete files that nothing refers to and that are older than ``age`` seconds; how many. Clears parts away too.

        ``referenced`` must be asked for before (``Store.referenced``); what was put since is young. Another process that puts the
        very same bytes in the moment of their deletion would lose them, so one process of several sweeps.
        """
        self.clear()
        gone = 0
        for name in list(self.names()):
            if name in referenced:
                continue
            path = self.path(name)
            with self._lock, suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= age:
                    path.unlink()
                    gone += 1
        return gone

    def clear(self) -> int:
        """Delete what writers that died left half written; how many."""
        return sum(_forsaken(part) for place in self._places() for part in list(place.glob("*.part")))

    def free(self) -> int:
        """Bytes free on the disk for this user."""
        return shutil.disk_usage(self.folder).free

    def low(self) -> bool:
        """Whether so little room is left that no new work should be taken on."""
        usage = shutil.disk_usage(self.folder)
        return usage.free < max(self.reserve, self.share * usage.total)

    def _places(self) -> list[Path]:
        return [self.folder / f"{number:02x}" for number in range(256)]

    def _make(self) -> None:
        """All folders at once, so that no file has to wait for its folder to be on the disk."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, mode=0o700)
            sync(self.folder.parent)
        missing = [place for place in self._places() if not place.is_dir()]
        for place in missing:
            place.mkdir(exist_ok=True)
        if missing:
            sync(self.folder)

    def _kept(self, target: Path) -> bool:
        """Whether the file is there; if so it is young again, and no sweep takes it before its row is written."""
        with self._lock:
            try:
                os.utime(target)
            except FileNotFoundError:
                return False
            return True

    def _write(self, target: Path, data: bytes) -> None:
        handle, part = _new_part(target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                if fcntl is not None:
                    os.replace(part, target)  # noqa: PTH105
            if fcntl is None:  # Windows renames no open file
                os.replace(part, target)  # noqa: PTH105
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def _new_part(folder: Path) -> tuple[int, Path]:
    """A new file that is locked by us, and so not taken for one that was left behind."""
    while True:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
        part = Path(name)
        if fcntl is None:
            return handle, part
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if part.stat().st_ino == os.fstat(handle).st_ino:
                return handle, part
        except (BlockingIOError, FileNotFoundError):  # cleared away before it was locked
            pass
        except BaseException:
            os.close(handle)
            part.unlink(missing_ok=True)
            raise
        os.close(handle)


def _forsaken(part: Path) -> bool:
    """Delete a part whose writer is gone; whether it was deleted."""
    try:
        if fcntl is None:
            if time.time() - part.stat().st_mtime < SPARED:
                return False
            part.unlink()
            return True
        handle = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable; for folders Windows cannot, and need not."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def told(error: OSError, what: str) -> FileError:
    """An error of the system as one for people; ``what``: what could not be done."""
    if isinstance(error, FileError):
        return error
    if error.errno in _FULL:
        return StorageFullError(f"{what}: the disk is full; free some space, then it works again")
    return FileError(f"{what}: {error.strerror or error}")
