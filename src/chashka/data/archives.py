"""Reading npm tarballs and Debian packages with the standard library alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from chashka.errors import FileError

_AR_MAGIC = b"!<arch>\n"


def members(path: Path, suffixes: tuple[str, ...] = ("",)) -> Iterator[tuple[str, bytes]]:
    """(name, contents) of the regular files of a ``.tgz`` or ``.deb`` whose names end in one of ``suffixes``.

    Names have no leading ``./`` and no npm ``package/``. Raises FileError for a file that is no such archive.
    """
    try:
        with path.open("rb") as file:
            stream = _debian_data(file.read(), path) if path.suffix == ".deb" else io.BytesIO(file.read())
        with tarfile.open(fileobj=stream, mode="r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./").removeprefix("package/")
                if member.isfile() and name.endswith(suffixes):
                    contents = tar.extractfile(member)
                    assert contents is not None  # it is a regular file
                    yield name, contents.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise FileError(f"{path}: not a readable package ({error})") from error


def _debian_data(archive: bytes, path: Path) -> io.BytesIO:
    """The ``data.tar.*`` member of a Debian package: an ``ar`` archive of 60-byte headers and even-sized contents."""
    if not archive.startswith(_AR_MAGIC):
        raise FileError(f"{path}: not a Debian package")
    place = len(_AR_MAGIC)
    while place + 60 <= len(archive):
        name = archive[place : place + 16].decode("ascii", "replace").strip().rstrip("/")
        size = int(archive[place + 48 : place + 58])
        place += 60
        if name.startswith("data.tar"):
            return io.BytesIO(archive[place : place + size])
        place += size + size % 2
    raise FileError(f"{path}: a Debian package without data.tar")
