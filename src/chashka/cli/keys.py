"""``chashka keys``: API keys of the server: made, listed, revoked; and the audit."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.opening import DATA, DATABASE, JSON, owning, reading
from chashka.cli.places import data_dir
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.cli.remote import Remote


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of the server, and read its audit. As soon as there is a key, every request needs one."""


@keys.command("add")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="What it may do: generate, read, train, admin; repeatable.  [default: generate, read]",
)
@DATA
@DATABASE
@JSON
def add(name: str, scopes: tuple[str, ...], data: Path | None, database: str, as_json: bool) -> None:
    """Make a key called NAME and print it. It is shown this once: only its sha256 is kept."""
    chosen = scopes or ("generate", "read")
    server = _server(data, database)
    if server is not None:
        made = server.ask("POST", "/v1/keys", {"name": name, "scopes": list(chosen)})
    else:
        with owning(data, database) as store:
            key, secret = store.keys.add(name, chosen)
        made = {"id": key.id, "name": key.name, "scopes": list(key.scopes), "secret": secret}
    if as_json:
        told = {field: made[field] for field in ("id", "name", "scopes", "secret")}
        click.echo(json.dumps(told, ensure_ascii=False, indent=1))
        return
    click.echo(made["secret"])
    click.echo(f"{made['id']}  {made['name']}: {', '.join(made['scopes'])}; it is not shown again", err=True)


@keys.command("list")
@DATA
@DATABASE
@JSON
def list_keys(data: Path | None, database: str, as_json: bool) -> None:
    """List the keys, without their secrets."""
    with reading(data, database) as store:
        found = store.keys.list()
    if as_json:
        rows: list[dict[str, Any]] = [
            {"id": key.id, "name": key.name, "scopes": list(key.scopes), "created": key.created, "revoked": key.revoked}
            for key in found
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for key in found:
        when = time.strftime("%Y-%m-%d", time.localtime(key.created))
        state = "" if key.revoked is None else "  revoked " + time.strftime("%Y-%m-%d", time.localtime(key.revoked))
        click.echo(f"{key.id}  {when}  {', '.join(key.scopes)}  {key.name}{state}")


@keys.command("revoke")
@click.argument("key")
@DATA
@DATABASE
def revoke(key: str, data: Path | None, database: str) -> None:
    """End KEY, an id or a name, at once and for good; sessions that were opened with it end too."""
    server = _server(data, database)
    if server is None:
        with owning(data, database) as store:
            ended = store.keys.revoke(key).id
    else:
        ended = _one(data, database, key)
        server.ask("DELETE", f"/v1/keys/{ended}")
    click.echo(f"{ended} revoked")


@keys.command("audit")
@click.option("-n", "limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many.")
@DATA
@DATABASE
@JSON
def audit(limit: int, data: Path | None, database: str, as_json: bool) -> None:
    """Show what was noted, the newest first: keys that were made and revoked; of a shared server refusals and consent ticks too.

    A note has the sha256 of what was asked or uploaded, and never the words.
    """
    with reading(data, database) as store:
        found = store.keys.notes(limit)
        names = {key.id: key.name for key in store.keys.list()}
    if as_json:
        rows = [{**asdict(note), "name": names.get(note.owner)} for note in found]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for note in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(note.at))
        name = f" ({names[note.owner]})" if note.owner in names else ""
        click.echo(f"{when}  {note.owner}{name}  {note.what}  {note.about}".rstrip())


def _server(data: Path | None, database: str) -> Remote | None:
    from chashka.cli import remote

    return None if database else remote.running(data or data_dir())


def _one(data: Path | None, database: str, which: str) -> str:
    """The id of a valid key, by its id or name."""
    with reading(data, database) as store:
        found = [key for key in store.keys.list() if which in (key.id, key.name) and key.revoked is None]
    if len(found) != 1:
        why = f"{len(found)} keys are called so; give the id" if found else "there is no such key that is still valid"
        raise InputError(f"key: {which[:60]!r}: {why} (chashka keys list)")
    return found[0].id
