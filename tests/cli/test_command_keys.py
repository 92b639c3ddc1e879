"""``chashka keys``: made and shown once, listed without secrets, revoked; by the server if one runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chashka.app.settings import Settings
from chashka.app.store import Store

Call = Callable[..., Any]


@pytest.fixture
def data(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHASHKA_DATA", str(here / "data"))
    return here / "data"


def test_a_key_is_shown_once(call: Call, data: Path) -> None:
    made = call("keys", "add", "ноутбук", "--scope", "read", "--scope", "generate")
    secret = made.out.strip()
    assert (made.code, made.out.count("\n")) == (0, 1) and secret.startswith("chk_")
    assert "not shown again" in made.err and secret not in made.err
    listed = call("keys", "list").out
    assert "ноутбук" in listed and "generate, read" in listed and secret not in listed
    store = Store.open(Settings(data=data), read_only=True)
    key = store.keys.check(secret)
    store.close()
    assert key is not None and key.scopes == ("generate", "read")
    (row,) = json.loads(call("keys", "list", "--json").out)
    assert row["id"] == key.id and row["revoked"] is None


def test_a_revoked_key_is_listed_as_such(call: Call, data: Path) -> None:
    made = json.loads(call("keys", "add", "a", "--json").out)
    assert set(made) == {"id", "name", "scopes", "secret"}
    assert call("keys", "revoke", "a").out == f"{made['id']} revoked\n"
    assert "revoked" in call("keys", "list").out
    assert "revoked already" in call("keys", "revoke", made["id"]).error


def test_wrong_values(call: Call, data: Path) -> None:
    assert "allowed: generate, read, train, admin" in call("keys", "add", "a", "--scope", "root").error
    assert "name: ''" in call("keys", "add", "").error
    assert "does not exist" in call("keys", "revoke", "nobody").error


def test_the_server_that_runs_makes_and_ends_them(call: Call, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is the server's; what it is asked is what matters here."""
    from chashka.cli import remote

    asked: list[tuple[Any, ...]] = []
    answer = {"id": "key_1", "name": "a", "scopes": ["read"], "secret": "chk_shown", "created": 1.0, "revoked": None}

    def ask(self: Any, method: str, path: str, body: Any = None) -> Any:
        asked.append((method, path, body))
        return answer

    store = Store.open(Settings(data=data))
    key, _ = store.keys.add("old")
    monkeypatch.setattr(remote, "running", lambda folder: remote.Remote("http://127.0.0.1:1", "t"))
    monkeypatch.setattr(remote.Remote, "ask", ask)
    assert call("keys", "add", "a", "--scope", "read").out == "chk_shown\n"
    assert call("keys", "revoke", "old").out == f"{key.id} revoked\n"
    assert "no such key" in call("keys", "revoke", "nobody").error
    store.close()
    assert asked == [("POST", "/v1/keys", {"name": "a", "scopes": ["read"]}), ("DELETE", f"/v1/keys/{key.id}", None)]


def test_the_audit_can_be_read(call: Call, data: Path) -> None:
    made = json.loads(call("keys", "add", "планшет", "--json").out)
    store = Store.open(Settings(data=data))
    store.keys.note(made["id"], "refused: minors", "ab" * 32)
    store.keys.note("local", "consent", "cd" * 32)
    store.close()
    lines = call("keys", "audit").out.splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(f"  local  consent  {'cd' * 32}")
    assert lines[1].endswith(f"  {made['id']} (планшет)  refused: minors  {'ab' * 32}")
    assert lines[2].endswith("  key added  generate,read")
    (row,) = json.loads(call("keys", "audit", "-n", 1, "--json").out)
    assert (row["owner"], row["what"], row["name"]) == ("local", "consent", None)
