"""API keys and the page's sessions: only the sha256 of a secret is kept, so that a stolen database opens nothing.

A key is ``chk_`` and 256 bits of chance, and is shown once. With so much chance a plain sha256 is enough: nothing can be guessed
offline, and a request is checked in microseconds. Here too: what was refused and administered, without prompts.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from chashka.app.ids import new_id
from chashka.app.store.database import Database
from chashka.app.store.schema import audit, keys, sessions
from chashka.errors import InputError

SCOPES = ("generate", "read", "train", "admin")
PREFIX = "chk_"
_LONGEST_NAME = 200
_LONGEST_SECRET = 200


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Times are in seconds since 1970; revoked: since when it opens nothing any more."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: float
    revoked: float | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """A row of the audit: who did ``what`` when, and about what (an id, a rule, a sha256). number: it grows from row to row."""

    number: int
    at: float
    owner: str
    what: str
    about: str


class Keys:
    """The keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, scopes: Iterable[str] = ("generate", "read")) -> tuple[Key, str]:
        """A new key and its secret, which nobody can learn again. Raises InputError for its name or scopes."""
        name = " ".join(name.split())
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise InputError(f"name: {name[:40]!r} is not possible; allowed: 1 to {_LONGEST_NAME} printable characters")
        id, chosen = new_id("key"), _checked(scopes)
        secret = PREFIX + secrets.token_urlsafe(32)

        def work(connection: Connection, _: bool) -> Key:
            row = {
                "id": id,
                "name": name,
                "scopes": list(chosen),
                "secret": _sum(secret),
                "created": self._database.now,
            }
            if connection.execute(self._database.insert_new(keys).values(row)).rowcount:
                self._note(connection, id, "key added", ",".join(chosen))
            return _key(connection.execute(select(keys).where(keys.c.id == id)).one())

        return self._database.transact(work), secret

    def check(self, secret: str) -> Key | None:
        """The key of a secret, unless it is unknown or revoked."""
        if not secret.startswith(PREFIX) or len(secret) > _LONGEST_SECRET:
            return None
        sum = _sum(secret)
        row = self._first(select(keys).where(keys.c.secret == sum, keys.c.revoked.is_(None)))
        return _key(row) if row is not None and hmac.compare_digest(row.secret, sum) else None

    def list(self) -> tuple[Key, ...]:
        """Every key there was, the oldest first."""
        statement = select(keys).order_by(keys.c.created, keys.c.id)
        return self._database.fetch(lambda connection: tuple(map(_key, connection.execute(statement))))

    def revoke(self, which: str) -> Key:
        """End the key of this id, or the only one of this name; its sessions end too. Raises InputError if there is none."""

        def work(connection: Connection, again: bool) -> Key:
            found = connection.execute(select(keys).where((keys.c.id == which) | (keys.c.name == which))).all()
            left = [row for row in found if row.revoked is None]
            if len(left) > 1:
                raise InputError(f"key: {len(left)} keys are called {which[:60]!r}; give the id (chashka keys list)")
            if not left:
                if again and found:  # the first time it was done, and the connection lost then
                    return _key(found[-1])
                why = "is revoked already" if found else "does not exist"
                raise InputError(f"key: {which[:60]!r} {why}; chashka keys list shows those there are")
            id = left[0].id
            connection.execute(update(keys).where(keys.c.id == id).values(revoked=self._database.now))
            connection.execute(delete(sessions).where(sessions.c.key == id))
            self._note(connection, id, "key revoked")
            return _key(connection.execute(select(keys).where(keys.c.id == id)).one())

        return self._database.transact(work)

    def open_session(self, key: Key, seconds: float) -> str:
        """The secret of a new session that speaks for ``key`` for so long; sessions that are over are cleared away."""
        secret = secrets.token_urlsafe(32)
        values = {"secret": _sum(secret), "key": key.id, "until": self._database.now + seconds}

        def work(connection: Connection, _: bool) -> None:
            connection.execute(delete(sessions).where(sessions.c.until <= self._database.now))
            connection.execute(self._database.insert_new(sessions).values(values))

        self._database.transact(work)
        return secret

    def session(self, secret: str) -> Key | None:
        """The key that a session speaks for, unless either is over."""
        if not 0 < len(secret) <= _LONGEST_SECRET:
            return None
        sum = _sum(secret)
        both = select(keys, sessions.c.secret.label("session")).join(sessions, sessions.c.key == keys.c.id)
        valid = (sessions.c.secret == sum, sessions.c.until > self._database.now, keys.c.revoked.is_(None))
        row = self._first(both.where(*valid))
        return _key(row) if row is not None and hmac.compare_digest(row.session, sum) else None

    def close_session(self, secret: str) -> None:
        """End a session."""
        statement = delete(sessions).where(sessions.c.secret == _sum(secret))
        self._database.transact(lambda connection, _: connection.execute(statement))

    def note(self, owner: str, what: str, about: str = "") -> None:
        """Write a row of the audit. about: an id, a rule, a sha256; never what somebody wrote."""
        self._database.transact(lambda connection, _: self._note(connection, owner, what, about))

    def notes(self, limit: int = 100, before: int | None = None) -> tuple[Note, ...]:
        """The newest rows of the audit, the newest first. before: only those with a smaller number."""
        statement = select(audit).order_by(audit.c.number.desc()).limit(limit)
        if before is not None:
            statement = statement.where(audit.c.number < before)

        def work(connection: Connection) -> tuple[Note, ...]:
            rows = connection.execute(statement)
            return tuple(Note(row.number, row.at, row.owner, row.what, row.about) for row in rows)

        return self._database.fetch(work)

    def _first(self, statement: Select[Any]) -> Row[Any] | None:
        return self._database.fetch(lambda connection: connection.execute(statement).first())

    def _note(self, connection: Connection, owner: str, what: str, about: str = "") -> None:
        values = {"at": self._database.now, "owner": owner[:40], "what": what[:40], "about": about[:120]}
        connection.execute(insert(audit).values(values))


def _checked(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes in their usual order."""
    wanted = set(scopes)
    wrong = sorted(wanted - set(SCOPES))
    if wrong or not wanted:
        given = wrong[0] if wrong else ""
        raise InputError(f"scopes: {given[:40]!r} is not possible; allowed: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in wanted)


def _sum(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _key(row: Row[Any]) -> Key:
    return Key(row.id, row.name, tuple(row.scopes), row.created, row.revoked)
