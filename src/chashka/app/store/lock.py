"""Who owns a SQLite database: a lock on a file beside it, which the system takes back when the process ends, however it ends."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from chashka.errors import FileError

SUFFIX = ".lock"
_FAR = 1 << 20
"""The locked byte on Windows, where a locked one cannot be read: behind what is written."""


class Ownership:
    """The lock of the database at ``path``, held until ``release``. Raises FileError that names the process that has it."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + SUFFIX)
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise FileError(f"cannot write {str(self.path)!r}: {error.strerror or error}") from error
        try:
            _take(handle)
        except OSError:
            pid = _pid(handle)
            os.close(handle)
            who = f"process {pid}" if pid else "another process"
            raise FileError(
                f"the database {str(path)!r} belongs to {who}; stop it, or let the server that it is make the change"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle: int | None = handle

    def release(self) -> None:
        """Let others have it. The file stays: deleting it would let two processes lock two files of one name."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _pid(handle: int) -> int | None:
    """What the owner wrote; it may be about to."""
    for _ in range(20):
        os.lseek(handle, 0, os.SEEK_SET)
        text = os.read(handle, 20).strip()
        if text.isdigit():
            return int(text)
        time.sleep(0.01)
    return None
