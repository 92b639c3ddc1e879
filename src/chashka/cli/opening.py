"""The application's data for commands: read beside a running server, changed by it if one runs, and by the command if none does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode

import click

from chashka.cli.places import data_dir
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.store import Store
    from chashka.cli.remote import Remote

DATA = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="CHASHKA_DATA",
    show_envvar=True,
    help="The data folder.",
)
DATABASE = click.option(
    "--database", default="", envvar="CHASHKA_DATABASE", help="postgresql://USER@HOST/NAME instead."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
LOCAL = "local"
"""The owner of what is made on this machine without a key."""


@contextmanager
def reading(data: Path | None, database: str) -> Iterator[Store]:
    """The store, to look at; a server may run. Raises FileError where nothing was kept yet."""
    with _store(data, database, read_only=True) as store:
        yield store


@contextmanager
def owning(data: Path | None, database: str) -> Iterator[Store]:
    """The store, to change; raises FileError if another process owns it."""
    with _store(data, database, read_only=False) as store:
        yield store


@contextmanager
def _store(data: Path | None, database: str, read_only: bool) -> Iterator[Store]:
    from chashka.app.settings import Settings
    from chashka.app.store import Store

    store = Store.open(Settings(data=data or data_dir(), database=database), read_only=read_only)
    try:
        yield store
    finally:
        store.close()


class Gallery(Protocol):
    """What can be changed in the gallery. Ids and names that do not exist raise InputError."""

    def favourite(self, id: str, on: bool) -> None: ...
    def delete(self, id: str) -> None: ...
    def restore(self, id: str) -> None: ...
    def collect(self, name: str, ids: Iterable[str], out: bool) -> None: ...
    def rename(self, name: str, to: str) -> None: ...
    def forget(self, name: str) -> None: ...
    def bring(self, data: bytes, consent: bool) -> tuple[str, bool]: ...
    def file(self, id: str, privacy: str | None, format: str | None) -> tuple[bytes, str]: ...


@contextmanager
def gallery(data: Path | None, database: str) -> Iterator[Gallery]:
    """The gallery, to change: through the server that runs, or by ourselves."""
    from chashka.cli import remote

    folder = data or data_dir()
    server = None if database else remote.running(folder)
    if server is not None:
        with reading(data, database) as store:
            yield _There(server, store)
        return
    from chashka.app.keeping.blobs import FOLDER, Blobs

    with owning(data, database) as store:
        yield _Here(store, Blobs(folder / FOLDER), folder)


@dataclass(frozen=True, slots=True)
class _Here:
    """In this process, which owns the data."""

    store: Store
    blobs: Blobs
    folder: Path

    def favourite(self, id: str, on: bool) -> None:
        _known(id, self.store.pictures.favourite(id, on))

    def delete(self, id: str) -> None:
        _known(id, self.store.pictures.delete(id))

    def restore(self, id: str) -> None:
        _known(id, self.store.pictures.restore(id))

    def collect(self, name: str, ids: Iterable[str], out: bool) -> None:
        kept, wanted = self.store.pictures.collections, list(ids)
        for id in wanted:
            _known(id, self.store.pictures.get(id))
        if out:
            kept.take_out(_collection(self.store, name), wanted)
        else:
            kept.put((kept.named(LOCAL, name) or kept.create(LOCAL, name)).id, wanted)

    def rename(self, name: str, to: str) -> None:
        self.store.pictures.collections.rename(_collection(self.store, name), to)

    def forget(self, name: str) -> None:
        self.store.pictures.collections.delete(_collection(self.store, name))

    def bring(self, data: bytes, consent: bool) -> tuple[str, bool]:
        from chashka.app.keeping.importing import bring_in

        picture, fresh = bring_in(self.store, self.blobs, data, LOCAL)
        return picture.id, fresh

    def file(self, id: str, privacy: str | None, format: str | None) -> tuple[bytes, str]:
        from chashka.app.keeping.files import Files
        from chashka.app.settings import Settings

        picture = self.store.pictures.get(id)
        _known(id, picture)
        assert picture is not None
        return Files(Settings(data=self.folder), self.store, self.blobs).give(picture, privacy or "full", format)


@dataclass(frozen=True, slots=True)
class _There:
    """By the server that runs. store: the same data, to look at."""

    server: Remote
    store: Store

    def favourite(self, id: str, on: bool) -> None:
        self.server.ask("PATCH", _address(id), {"favourite": on})

    def delete(self, id: str) -> None:
        self.server.ask("DELETE", _address(id))

    def restore(self, id: str) -> None:
        self.server.ask("POST", f"{_address(id)}/restore")

    def collect(self, name: str, ids: Iterable[str], out: bool) -> None:
        known = self.store.pictures.collections.named(LOCAL, name)
        if known is None and not out:
            collection = str(self.server.ask("POST", "/v1/collections", {"name": name})["id"])
        else:
            collection = _collection(self.store, name)
        for id in ids:
            self.server.ask("PATCH", _address(id), {"uncollect" if out else "collect": [collection]})

    def rename(self, name: str, to: str) -> None:
        self.server.ask("PATCH", f"/v1/collections/{_collection(self.store, name)}", {"name": to})

    def forget(self, name: str) -> None:
        self.server.ask("DELETE", f"/v1/collections/{_collection(self.store, name)}")

    def bring(self, data: bytes, consent: bool) -> tuple[str, bool]:
        import hashlib

        known = self.store.pictures.of_file(hashlib.sha256(data).hexdigest(), LOCAL)
        if known is None:
            said = {"source": "imported"} | ({"consent": "true"} if consent else {})
            return str(self.server.upload("/v1/images", data, **said)["id"]), True
        if known.deleted is not None:
            self.restore(known.id)
        return known.id, False

    def file(self, id: str, privacy: str | None, format: str | None) -> tuple[bytes, str]:
        asked: Mapping[str, str | None] = {"privacy": privacy, "format": format}
        said = urlencode({name: value for name, value in asked.items() if value is not None})
        return self.server.file(f"{_address(id)}?{said}")


def _known(id: str, found: object) -> None:
    if found is None:
        raise InputError(f"picture: there is no {id[:60]!r}; chashka gallery list shows those there are")


def _collection(store: Store, name: str) -> str:
    """The id of a collection by its name."""
    found = store.pictures.collections.named(LOCAL, name)
    if found is None:
        names = ", ".join(one.name for one in store.pictures.collections.list(LOCAL)[:20]) or "there is none yet"
        raise InputError(f"collection: there is no {name[:60]!r}; allowed: {names}")
    return found.id


def _address(id: str) -> str:
    """A picture's address at the server. Raises InputError for what is no id."""
    from chashka.app.ids import ID

    if not ID.fullmatch(id):
        _known(id, None)
    return f"/v1/images/{quote(id)}"
