"""The gallery: pictures, what they were made from, collections, and the log of files that went out.

Files are not here but among the blobs; a row knows their sha256. Methods are one transaction each. The functions that take a
connection are for those who have a transaction already: the one that publishes a job's result, above all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update

from chashka.app.ids import new_id
from chashka.app.jobs import NewPicture, Picture
from chashka.app.store.collections import Collections
from chashka.app.store.database import Database, storable
from chashka.app.store.finding import Wanted, numbers
from chashka.app.store.schema import collected, jobs, parents, pictures, sent, words
from chashka.app.store.words import index_terms, search_terms

MOST = 200
"""Pictures of one page."""
RELATIVES = 1_000
"""Pictures of a lineage that are looked at."""
DRAWN = "drawn"


@dataclass(frozen=True, slots=True)
class Link:
    """``child`` was made from ``parent``, as its ``use`` ("init", "mask", "picture 0", …). Both are ids of pictures."""

    child: str
    parent: str
    use: str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a picture comes from and what came of it: ids, the nearest first, and the links between all of them.

    An id whose picture was deleted for good stays, so that the rest keeps together.
    """

    id: str
    ancestors: tuple[str, ...]
    descendants: tuple[str, ...]
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that was saved or sent: what it looked like, its picture if that is still there, when (seconds since 1970)."""

    sha256: str
    dhash: str
    picture: str | None
    privacy: str
    at: float


class Pictures:
    """The pictures of one database, and its ``collections``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.collections = Collections(database)

    def add(
        self, new: NewPicture, owner: str, job: str | None = None, parents: Mapping[str, str] | None = None
    ) -> Picture:
        """Enter a picture whose file is among the blobs. parents: ids of the pictures it was made from, by their use."""
        id = new_id("pic")

        def work(connection: Connection, again: bool) -> Picture:
            if not again or _found(connection, pictures.c.id == id) is None:
                insert_picture(connection, self._database, id, new, owner, job, parents or {})
            return _one(connection, id)

        return self._database.transact(work)

    def get(self, id: str) -> Picture | None:
        """A picture, deleted or not; None if there is none of this id."""
        return self._database.fetch(lambda connection: _found(connection, pictures.c.id == id))

    def of_job(self, job: str) -> list[Picture]:
        """What a job published, in order, without what was deleted since."""
        statement = select(pictures).where(pictures.c.job == job, pictures.c.deleted.is_(None))
        rows = self._all(statement.order_by(pictures.c.index))
        return [_picture(row) for row in rows]

    def of_file(self, sha256: str, owner: str | None = None) -> Picture | None:
        """The first picture with exactly this file; one that is deleted only if there is no other."""
        statement = select(pictures).where(pictures.c.sha256 == sha256)
        if owner is not None:
            statement = statement.where(pictures.c.owner == owner)
        rows = self._all(statement.order_by(pictures.c.deleted.is_not(None), pictures.c.number).limit(1))
        return _picture(rows[0]) if rows else None

    def search(
        self,
        words: str = "",
        *,
        model: str | None = None,
        since: float | None = None,
        until: float | None = None,
        favourite: bool | None = None,
        collection: str | None = None,
        owner: str | None = None,
        source: str | None = None,
        deleted: bool = False,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Picture]:
        """Pictures that fulfil everything, newest first; None does not matter.

        words: all of them, in any language; the last may be the beginning of one. since, until: seconds since 1970, both
        included. deleted: those that wait for their end instead. before: the ``number`` of the last picture of the page before.
        limit: 1 to ``MOST``. A search of signs that are in no word (``?!``) finds nothing.
        """
        terms = search_terms(words)
        if words.strip() and not terms:
            return []
        limit = max(1, min(limit, MOST))
        wanted = Wanted(
            terms, model, since, until, favourite, collection, owner, source, deleted, before=before, limit=limit
        )

        def work(connection: Connection) -> list[Picture]:
            found = numbers(connection, wanted)
            rows = connection.execute(select(pictures).where(pictures.c.number.in_(found))) if found else ()
            return sorted((_picture(row) for row in rows), key=lambda picture: -picture.number)

        return self._database.fetch(work)

    def lineage(self, id: str) -> Lineage:
        """The picture's family, up and down. Pictures cannot be their own ancestors, but nothing here relies on it."""

        def work(connection: Connection) -> Lineage:
            up, above = _relatives(connection, id, upwards=True)
            down, below = _relatives(connection, id, upwards=False)
            return Lineage(id, tuple(up), tuple(down), tuple(dict.fromkeys([*above, *below])))

        return self._database.fetch(work)

    def favourite(self, id: str, on: bool = True) -> Picture | None:
        """Mark a picture, or take the mark away; None if there is none."""
        return self._change(id, favourite=on)

    def delete(self, id: str) -> Picture | None:
        """Take a picture out of every list; :meth:`restore` brings it back until :meth:`purge` comes by."""
        return self._change(id, deleted=self._database.now)

    def restore(self, id: str) -> Picture | None:
        """Undo :meth:`delete`."""
        return self._change(id, deleted=None)

    def purge(self, older: float) -> set[str]:
        """End what was deleted more than ``older`` seconds ago, and tell the sha256 of files that nothing needs any more.

        What still needs a file: another picture, or a job that has not ended and begins with it.
        """
        sums: set[str] = set()

        def work(connection: Connection, _: bool) -> set[str]:
            names = ("number", "id", "sha256", "thumbnail", "source")
            statement = select(*(pictures.c[name] for name in names))
            ended = connection.execute(statement.where(pictures.c.deleted <= self._database.now - older)).all()
            sums.update(sum for row in ended for sum in (row.sha256, row.thumbnail))
            for some in _parts([row.number for row in ended]):
                connection.execute(delete(words).where(words.c.picture.in_(some)))
                connection.execute(delete(collected).where(collected.c.picture.in_(some)))
                connection.execute(delete(pictures).where(pictures.c.number.in_(some)))
            for some in _parts([row.id for row in ended if row.source == DRAWN]):
                connection.execute(update(sent).where(sent.c.picture.in_(some)).values(picture=None))
            for some in _parts([row.id for row in ended if row.source != DRAWN]):  # not ours: nothing of it stays
                connection.execute(delete(sent).where(sent.c.picture.in_(some)))
            return unneeded(connection, sums)

        return self._database.transact(work)

    def log(self, sha256: str, dhash: str, picture: str | None, privacy: str) -> None:
        """Remember a file that is saved or sent, so that it is known again; the same file twice is one row."""
        self._database.transact(
            lambda connection, _: log_sent(connection, self._database, sha256, dhash, picture, privacy)
        )

    def sent(self, sha256: str) -> Sent | None:
        """The logged file with exactly this sum."""
        rows = self._all(select(sent).where(sent.c.sha256 == sha256))
        return _sent(rows[0]) if rows else None

    def alike(self, dhash: str, within: int) -> list[tuple[Sent, int]]:
        """Logged files that look like this: at most ``within`` of the 64 bits differ; the nearest first, at most ten."""
        wanted = int(dhash, 16)
        known = self._all(select(sent.c.dhash).distinct())
        near = {row[0]: bits for row in known if (bits := (int(row[0], 16) ^ wanted).bit_count()) <= within}
        best = sorted(near, key=lambda other: near[other])[:10]
        rows = self._all(select(sent).where(sent.c.dhash.in_(best)).order_by(sent.c.at)) if best else ()
        return sorted(((_sent(row), near[row.dhash]) for row in rows), key=lambda one: one[1])[:10]

    def count(self, owner: str | None = None) -> int:
        """How many pictures there are that are not deleted."""
        statement = select(func.count()).select_from(pictures).where(pictures.c.deleted.is_(None))
        if owner is not None:
            statement = statement.where(pictures.c.owner == owner)
        return int(self._all(statement)[0][0])

    def _change(self, id: str, **values: Any) -> Picture | None:
        def work(connection: Connection, _: bool) -> Picture | None:
            connection.execute(update(pictures).where(pictures.c.id == id).values(**values))
            return _found(connection, pictures.c.id == id)

        return self._database.transact(work)

    def _all(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        return self._database.fetch(lambda connection: connection.execute(statement).all())


def insert_picture(
    connection: Connection,
    database: Database,
    id: str,
    new: NewPicture,
    owner: str,
    job: str | None,
    made_from: Mapping[str, str],
) -> None:
    """Enter a picture, its words, its parents, and, if it was drawn here, its two files into the log of files."""
    values = {field.name: getattr(new, field.name) for field in fields(NewPicture)}
    values |= {"metadata": dict(new.metadata), "id": id, "job": job, "owner": owner, "created": database.now}
    if new.seed is not None and not 0 <= new.seed < 2**63:
        values["seed"] = None  # other programs' may have 64 bits; it stays in the metadata
    values |= {name: storable(values[name]) for name in ("prompt", "negative_prompt", "model", "family")}
    number = connection.execute(insert(pictures).values(values).returning(pictures.c.number)).scalar_one()
    index_words(connection, number, (new.prompt,))
    if made_from:
        rows = [{"child": id, "parent": parent, "use": use} for use, parent in made_from.items()]
        connection.execute(insert(parents), rows)
    if new.source == DRAWN:
        log_sent(connection, database, new.sha256, new.dhash, id, "full")
        log_sent(connection, database, new.thumbnail, new.dhash, id, "none")


def index_words(connection: Connection, number: int, texts: Iterable[str]) -> None:
    """Make a picture findable by the words of some texts, in any language."""
    rows = [{"word": word, "picture": number} for word in sorted(index_terms(texts))]
    if rows:
        connection.execute(insert(words), rows)


def log_sent(
    connection: Connection, database: Database, sha256: str, dhash: str, picture: str | None, privacy: str
) -> None:
    """:meth:`Pictures.log` inside a transaction."""
    values = {"sha256": sha256, "dhash": dhash, "picture": picture, "privacy": privacy, "at": database.now}
    connection.execute(database.insert_new(sent).values(values))


def unneeded(connection: Connection, sums: set[str]) -> set[str]:
    """Those of some files that no picture and no job that goes on needs."""
    needed: set[str] = set()
    for some in _parts(sorted(sums)):
        for column in (pictures.c.sha256, pictures.c.thumbnail):
            needed.update(connection.execute(select(column).where(column.in_(some))).scalars())
    waiting = connection.execute(select(jobs.c.inputs).where(jobs.c.state.in_(("queued", "running"))))
    needed.update(sum for inputs in waiting.scalars() for sum in inputs.values())
    return sums - needed


def _relatives(connection: Connection, id: str, upwards: bool) -> tuple[list[str], list[Link]]:
    """Ids level by level in one direction, and the links on the way."""
    known, links, level = {id: None}, list[Link](), [id]
    near = parents.c.child if upwards else parents.c.parent
    while level and len(known) <= RELATIVES:
        statement = select(parents).where(near.in_(level)).order_by(parents.c.child, parents.c.use).limit(RELATIVES)
        found = [Link(row.child, row.parent, row.use) for row in connection.execute(statement)]
        links += found
        further = [link.parent if upwards else link.child for link in found]
        level = [one for one in dict.fromkeys(further) if one not in known]
        known.update(dict.fromkeys(level))
    return list(known)[1:], links


def _one(connection: Connection, id: str) -> Picture:
    return _picture(connection.execute(select(pictures).where(pictures.c.id == id)).one())


def _found(connection: Connection, condition: ColumnElement[bool]) -> Picture | None:
    row = connection.execute(select(pictures).where(condition)).first()
    return None if row is None else _picture(row)


def _picture(row: Row[Any]) -> Picture:
    values = row._mapping
    new = NewPicture(**{field.name: values[field.name] for field in fields(NewPicture)})
    names = ("id", "number", "job", "owner", "created", "favourite", "deleted")
    return Picture(new=new, **{name: values[name] for name in names})


def _sent(row: Row[Any]) -> Sent:
    return Sent(row.sha256, row.dhash, row.picture, row.privacy, row.at)


def _parts(values: Sequence[Any], size: int = 500) -> Iterable[Sequence[Any]]:
    """The values in pieces that a statement can hold."""
    return (values[i : i + size] for i in range(0, len(values), size))
