"""Which pictures a search wants, newest first, without looking at the others.

Every filter is an index that gives picture numbers in order. The rarest one (counted up to ``COUNTED``) is walked from the
newest picture on, the others are asked about each number it gives, and the walk ends as soon as a page is full. So a page costs
about the same whether a word is rare or common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BinaryExpression, ColumnElement, Connection, Select, and_, exists, false, func, select, true
from sqlalchemy.sql.expression import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from chashka.app.store.schema import collected, pictures, words
from chashka.app.store.words import Terms

COUNTED = 4_000
LAST = 2**62
"""Greater than the number of any picture."""
_SLACK = 60.0
"""Seconds by which numbers and times may disagree: transactions that overlap, a clock that was set back a little."""
_HIGHEST = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for; None does not matter. since and until: seconds since 1970. before: only smaller numbers."""

    terms: Terms
    model: str | None = None
    since: float | None = None
    until: float | None = None
    favourite: bool | None = None
    collection: str | None = None
    owner: str | None = None
    source: str | None = None
    deleted: bool = False
    before: int | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class _Filter:
    """A condition with an index that gives the numbers of pictures. ordered: by number, so that it can be walked."""

    condition: ColumnElement[bool]
    number: ColumnElement[int]
    ordered: bool = True

    @property
    def of_pictures(self) -> bool:
        """Whether it is a column of the pictures themselves."""
        return self.number is pictures.c.number

    def within(self, connection: Connection, low: int, high: int) -> list[ColumnElement[bool]]:
        """The range of numbers, which is no index to walk where this one gives them in another order."""
        ends = [self.number >= low, self.number < high]
        return ends if self.ordered else [_unindexed(connection, end) for end in ends]

    def asked(self, number: ColumnElement[int]) -> ColumnElement[bool]:
        """The condition about one number that something else gives."""
        return self.condition if self.of_pictures else exists().where(self.number == number, self.condition)


def numbers(connection: Connection, wanted: Wanted) -> list[int]:
    """At most ``limit`` numbers of pictures, the greatest first."""
    return [row[0] for row in connection.execute(query(connection, wanted))]


def query(connection: Connection, wanted: Wanted) -> Select[Any]:
    """The statement that gives them."""
    low, high = _range(connection, wanted)
    filters = _filters(wanted)
    # the indices of columns are for pictures that are there; of deleted ones there are few
    walkable = [one for one in filters if not (one.of_pictures and wanted.deleted)]
    driver = _rarest(connection, walkable, low, high)
    there = pictures.c.deleted.is_not(None) if wanted.deleted else pictures.c.deleted.is_(None)
    here = [_unindexed(connection, one.condition) for one in filters if one.of_pictures and one is not driver]
    here += _columns(wanted)
    if driver is None or driver.of_pictures:
        number: ColumnElement[int] = pictures.c.number
        conditions = [there] if driver is None else [driver.condition, there]
    elif driver.ordered:
        number = driver.number
        conditions = [driver.condition]
        here = [exists().where(pictures.c.number == number, there, *here)]
    else:
        number = pictures.c.number
        rows = select(driver.number).where(driver.condition, *driver.within(connection, low, high))
        # the range is said already: once more, and SQLite would walk that instead
        conditions = [number.in_(rows), _unindexed(connection, there)]
        low, high = 0, LAST
    conditions += [number >= low] if low else []
    conditions += [number < high] if high < LAST or driver is None else []
    others = [one for one in filters if not one.of_pictures and one is not driver]
    statement = select(number).where(*conditions, *(one.asked(number) for one in others), *here)
    return statement.order_by(number.desc()).limit(wanted.limit)


def _range(connection: Connection, wanted: Wanted) -> tuple[int, int]:
    """Numbers that can be meant, from the first to before the second: times grow with numbers, but for ``_SLACK``."""
    low, high = 0, LAST if wanted.before is None else wanted.before
    number, created = pictures.c.number, pictures.c.created
    if wanted.since is not None:
        first = select(number).where(created >= wanted.since - _SLACK).order_by(created, number).limit(1)
        low = connection.execute(first).scalar() or LAST
    if wanted.until is not None:
        last = select(number).where(created <= wanted.until + _SLACK).order_by(created.desc(), number.desc()).limit(1)
        high = min(high, (connection.execute(last).scalar() or 0) + 1)
    return low, high


def _filters(wanted: Wanted) -> list[_Filter]:
    """Everything that can be walked."""
    found = []
    for term in wanted.terms.exact:
        table = words.alias()
        found.append(_Filter(table.c.word == term, table.c.picture))
    if wanted.terms.beginning:
        table, start = words.alias(), wanted.terms.beginning
        found.append(_Filter(and_(table.c.word >= start, table.c.word < start + _HIGHEST), table.c.picture, False))
    if wanted.collection is not None:
        found.append(_Filter(collected.c.collection == wanted.collection, collected.c.picture))
    for name in ("owner", "model", "source"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(_Filter(pictures.c[name] == value, pictures.c.number))
    if wanted.favourite:
        found.append(_Filter(pictures.c.favourite == true(), pictures.c.number))
    return found


def _columns(wanted: Wanted) -> list[ColumnElement[bool]]:
    """Conditions that are never walked: most pictures fulfil the first, and the others are a range of numbers already."""
    found = []
    if wanted.favourite is False:
        found.append(pictures.c.favourite == false())
    if wanted.since is not None:
        found.append(pictures.c.created >= wanted.since)
    if wanted.until is not None:
        found.append(pictures.c.created <= wanted.until)
    return found


def _rarest(connection: Connection, filters: Sequence[_Filter], low: int, high: int) -> _Filter | None:
    """The filter to walk; None: all pictures. One out of order would be sorted whole, so it must give little."""
    best, least = None, COUNTED + 1
    for one in filters:
        there = [pictures.c.deleted.is_(None)] if one.of_pictures else []
        rows = select(one.number).where(one.condition, *one.within(connection, low, high), *there)
        some = rows.limit(min(least, COUNTED)).subquery()
        count = connection.execute(select(func.count()).select_from(some)).scalar_one()
        if count < least and (one.ordered or count < COUNTED):
            best, least = one, count
        if not count:
            break
    return best


def _unindexed(connection: Connection, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The condition so that SQLite does not walk its index instead of the chosen one; PostgreSQL counts for itself."""
    if connection.dialect.name != "sqlite":
        return condition
    assert isinstance(condition, BinaryExpression)
    column = UnaryExpression(condition.left, operator=custom_op("+"), type_=condition.left.type)
    return BinaryExpression(column, condition.right, condition.operator)
