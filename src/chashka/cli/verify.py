"""``chashka verify``: where a picture file comes from, offline."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.opening import DATA, JSON, reading
from chashka.cli.places import data_dir
from chashka.errors import ChashkaError, FileError

if TYPE_CHECKING:
    from chashka.app.keeping.made import Made
    from chashka.app.keeping.marks import Verdict
    from chashka.app.store import Store

LARGEST = 100_000_000


@click.command(no_args_is_help=True)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@DATA
@JSON
def verify(files: tuple[Path, ...], data: Path | None, as_json: bool) -> None:
    """Tell where each FILE comes from: made here, with which model; marked by whom; another program's; or unknown.

    It looks at the file's own metadata and marks, and into the logs of files that were made here, by their sha256 and by what they
    look like. Nothing is sent anywhere.
    """
    with ExitStack() as stack:
        from chashka.app.keeping.made import Made

        folder = data or data_dir()
        store, made = _log(stack, folder), Made(folder)
        found = [(path, _verdict(path, store, made)) for path in files]
    if as_json:
        rows: list[dict[str, Any]] = [{"file": str(path), **asdict(verdict)} for path, verdict in found]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for path, verdict in found:
        where = f" ({verdict.picture})" if verdict.picture else ""
        click.echo(f"{path}: {verdict.kind}: {verdict.message}{where}")


def _log(stack: ExitStack, folder: Path) -> Store | None:
    """The log of files, if there is one that can be read."""
    if not folder.is_dir():
        return None
    from chashka.app.store import NAME

    if not (folder / NAME).is_file():
        return None
    try:
        return stack.enter_context(reading(folder, ""))
    except ChashkaError as error:
        click.echo(f"note: the log of files is not asked: {error}", err=True)
        return None


def _verdict(path: Path, store: Store | None, made: Made) -> Verdict:
    from chashka.app.keeping.marks import verify as verdict

    try:
        if path.stat().st_size > LARGEST:
            raise FileError(f"{str(path)!r} has more than {LARGEST:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    try:
        return verdict(data, store, made)
    except ChashkaError as error:
        raise FileError(f"{path}: {error}") from error
