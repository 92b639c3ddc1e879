"""Collections: pictures that somebody put together under a name. A picture may be in any number of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select, update

from chashka.app.ids import new_id
from chashka.app.store.database import Database, storable
from chashka.app.store.schema import collected, collections, pictures
from chashka.errors import InputError

LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Collection:
    """created: seconds since 1970. count: its pictures that are not deleted."""

    id: str
    owner: str
    name: str
    created: float
    count: int


class Collections:
    """The collections of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, owner: str | None = None) -> tuple[Collection, ...]:
        """Those of one owner, or all, by name."""
        statement = _counted().order_by(collections.c.name, collections.c.id)
        if owner is not None:
            statement = statement.where(collections.c.owner == owner)
        return self._database.fetch(lambda connection: tuple(map(_collection, connection.execute(statement))))

    def get(self, id: str) -> Collection | None:
        """One; None if there is none of this id."""
        return self._database.fetch(lambda connection: _one(connection, id))

    def named(self, owner: str, name: str) -> Collection | None:
        """An owner's collection of this name."""
        statement = _counted().where(collections.c.owner == owner, collections.c.name == _name(name))
        row = self._database.fetch(lambda connection: connection.execute(statement).first())
        return None if row is None else _collection(row)

    def create(self, owner: str, name: str) -> Collection:
        """A new, empty one. Raises InputError for a name that is not possible or that the owner has given already."""
        values = {"id": new_id("col"), "owner": owner, "name": _name(name)}

        def work(connection: Connection, _: bool) -> Collection:
            row = values | {"created": self._database.now}
            connection.execute(self._database.insert_new(collections).values(row))
            made = _one(connection, values["id"])
            if made is None:
                raise _taken(values["name"])
            return made

        return self._database.transact(work)

    def rename(self, id: str, name: str) -> Collection | None:
        """Give it another name; None if there is no such collection. Raises InputError as :meth:`create`."""
        wanted = _name(name)

        def work(connection: Connection, _: bool) -> Collection | None:
            now = _one(connection, id)
            if now is None:
                return None
            same = (collections.c.owner == now.owner) & (collections.c.name == wanted) & (collections.c.id != id)
            if connection.execute(select(collections.c.id).where(same)).first():
                raise _taken(wanted)
            connection.execute(update(collections).where(collections.c.id == id).values(name=wanted))
            return _one(connection, id)

        return self._database.transact(work)

    def delete(self, id: str) -> bool:
        """Forget it; its pictures stay. Whether there was one."""

        def work(connection: Connection, again: bool) -> bool:
            connection.execute(delete(collected).where(collected.c.collection == id))
            gone = connection.execute(delete(collections).where(collections.c.id == id))
            return again or gone.rowcount > 0

        return self._database.transact(work)

    def put(self, id: str, of: Iterable[str]) -> None:
        """Put pictures, by their ids, into it; those that are in it already, or do not exist, change nothing."""
        wanted = list(of)

        def work(connection: Connection, _: bool) -> None:
            numbers = connection.execute(select(pictures.c.number).where(pictures.c.id.in_(wanted))).scalars().all()
            rows = [{"collection": id, "picture": number} for number in numbers]
            if rows and _one(connection, id) is not None:
                connection.execute(self._database.insert_new(collected), rows)

        self._database.transact(work)

    def take_out(self, id: str, of: Iterable[str]) -> None:
        """Take pictures, by their ids, out of it."""
        numbers = select(pictures.c.number).where(pictures.c.id.in_(list(of)))
        statement = delete(collected).where(collected.c.collection == id, collected.c.picture.in_(numbers))
        self._database.transact(lambda connection, _: connection.execute(statement))

    def of_picture(self, id: str) -> tuple[Collection, ...]:
        """Those that a picture is in."""
        mine = select(collected.c.collection).join(pictures, pictures.c.number == collected.c.picture)
        statement = _counted().where(collections.c.id.in_(mine.where(pictures.c.id == id)))
        ordered = statement.order_by(collections.c.name)
        return self._database.fetch(lambda connection: tuple(map(_collection, connection.execute(ordered))))


def _name(name: str) -> str:
    """The name without blanks too many."""
    plain = " ".join(storable(name).split())
    if not 0 < len(plain) <= LONGEST_NAME or not plain.isprintable():
        raise InputError(f"name: {name[:40]!r} is not possible; allowed: 1 to {LONGEST_NAME} printable characters")
    return plain


def _taken(name: str) -> InputError:
    return InputError(f"name: there is a collection {name[:60]!r} already; choose another name")


def _counted() -> Select[Any]:
    """Collections with the number of their pictures."""
    inside = select(func.count()).select_from(collected.join(pictures, pictures.c.number == collected.c.picture))
    mine = inside.where(collected.c.collection == collections.c.id, pictures.c.deleted.is_(None))
    return select(collections, mine.correlate(collections).scalar_subquery().label("count"))


def _one(connection: Connection, id: str) -> Collection | None:
    row = connection.execute(_counted().where(collections.c.id == id)).first()
    return None if row is None else _collection(row)


def _collection(row: Row[Any]) -> Collection:
    values = row._mapping
    return Collection(values["id"], values["owner"], values["name"], values["created"], values["count"])
