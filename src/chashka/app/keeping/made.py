"""The log of files that commands made, for ``verify``: beside the database, because a server may own that.

    DATA/made.jsonl    a line for each file: {"sha256", "dhash", "at"}; nothing of what it was made from

Lines are appended in one write each, so that several commands may do so at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from chashka.errors import FileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "made.jsonl"


class Made:
    """The log in the data folder ``folder``, which is made with the first line."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def add(self, data: bytes, pixels: NDArray[np.uint8]) -> None:
        """Remember a file's bytes, whose picture is ``pixels`` (H, W, 3 or 4). Raises FileError."""
        from chashka.app.keeping.marks import dhash

        row = {"sha256": hashlib.sha256(data).hexdigest(), "dhash": dhash(pixels), "at": round(time.time(), 3)}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, json.dumps(row).encode() + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            raise FileError(f"cannot write {str(self._path)!r}: {error.strerror or error}") from error

    def holds(self, sha256: str) -> bool:
        """Whether exactly this file was made here."""
        return any(known == sha256 for known, _ in self._rows())

    def nearest(self, dhash: str) -> int | None:
        """How many of 64 bits differ from what looks most like this; None if nothing was made."""
        wanted = int(dhash, 16)
        return min(
            ((known ^ wanted).bit_count() for known in {int(look, 16) for _, look in self._rows()}), default=None
        )

    def _rows(self) -> Iterator[tuple[str, str]]:
        """(sha256, dhash) of every whole line."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            try:
                row = json.loads(line)
                int(row["dhash"], 16)
                yield row["sha256"], row["dhash"]
            except (ValueError, KeyError, TypeError):  # a full disk may have cut it
                continue
