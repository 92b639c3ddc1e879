"""API keys and sessions: shown once, kept as sums, ended at once; and the audit, which knows no prompts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from chashka.app.guard.access import SCOPES as ACCESS_SCOPES
from chashka.app.store import Store
from chashka.app.store.keys import SCOPES
from chashka.app.store.schema import keys, sessions
from chashka.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.at(tmp_path / "keys.sqlite3")
    yield made
    made.close()


def test_a_key_opens_and_its_secret_is_nowhere(store: Store, tmp_path: Path) -> None:
    key, secret = store.keys.add("ноутбук", ["train", "generate"])
    assert re.fullmatch(r"chk_[A-Za-z0-9_-]{43}", secret)  # 256 bits
    assert key.scopes == ("generate", "train") and key.revoked is None
    assert store.keys.check(secret) == key
    assert store.keys.list() == (key,)
    with store.database.read() as connection:
        assert connection.execute(select(keys.c.secret)).scalar_one() == hashlib.sha256(secret.encode()).hexdigest()
    store.close()
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes() and secret[4:].encode() not in file.read_bytes()


@pytest.mark.parametrize(
    "wrong", ["", "chk_", "chk_" + "A" * 43, "key_x", "Bearer", "chk_" + "x" * 100_000, "chk_\udc80"]
)
def test_other_secrets_open_nothing(store: Store, wrong: str) -> None:
    _, secret = store.keys.add("a")
    assert store.keys.check(wrong) is None
    assert store.keys.check(secret[:-1]) is None and store.keys.check(secret + "A") is None
    assert store.keys.check(secret.swapcase()) is None


def test_two_keys_are_never_the_same(store: Store) -> None:
    assert len({store.keys.add("same")[1] for _ in range(20)}) == 20


def test_a_revoked_key_and_its_sessions_end(store: Store) -> None:
    key, secret = store.keys.add("ноутбук")
    session = store.keys.open_session(key, 60)
    assert store.keys.session(session) == key
    ended = store.keys.revoke("ноутбук")
    assert ended.id == key.id and ended.revoked is not None
    assert store.keys.check(secret) is None and store.keys.session(session) is None
    with pytest.raises(InputError, match="is revoked already"):
        store.keys.revoke(key.id)
    with pytest.raises(InputError, match="does not exist"):
        store.keys.revoke("key_none")
    assert [one.id for one in store.keys.list()] == [key.id]


def test_a_name_that_two_keys_have_is_not_enough(store: Store) -> None:
    first, _ = store.keys.add("a")
    second, secret = store.keys.add("a")
    with pytest.raises(InputError, match="2 keys are called 'a'"):
        store.keys.revoke("a")
    store.keys.revoke(first.id)
    assert store.keys.revoke("a").id == second.id and store.keys.check(secret) is None


def test_sessions_are_over_after_their_time(store: Store) -> None:
    key, _ = store.keys.add("a")
    session = store.keys.open_session(key, 60)
    with store.database.write() as connection:
        connection.execute(update(sessions).values(until=1.0))
    assert store.keys.session(session) is None
    other = store.keys.open_session(key, 60)  # clears the one away that is over
    with store.database.read() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1
    assert store.keys.session(other) == key
    store.keys.close_session(other)
    assert store.keys.session(other) is None and store.keys.session("") is None


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x1b[31m"])
def test_names_that_are_not_possible(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="name: "):
        store.keys.add(name)


@pytest.mark.parametrize("scopes", [[], ["root"], ["read", "write"]])
def test_scopes_that_do_not_exist(store: Store, scopes: list[str]) -> None:
    with pytest.raises(InputError, match="allowed: generate, read, train, admin"):
        store.keys.add("a", scopes)


def test_the_scopes_are_those_of_the_server() -> None:
    assert SCOPES == ACCESS_SCOPES


def test_the_audit_knows_who_and_what(store: Store) -> None:
    key, _ = store.keys.add("a", ["read"])
    store.keys.revoke(key.id)
    store.keys.note("local", "refused", "minors 0123")
    assert [(note.owner, note.what, note.about) for note in store.keys.notes()] == [
        ("local", "refused", "minors 0123"),
        (key.id, "key revoked", ""),
        (key.id, "key added", "read"),
    ]
    assert len(store.keys.notes(limit=1)) == 1
