"""``chashka backup`` and ``chashka restore``: everything that a server has, copied while it runs, and put back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from chashka.cli.opening import DATA, DATABASE, reading
from chashka.cli.places import data_dir

if TYPE_CHECKING:
    from chashka.app.store.backup import Copied

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("target", type=FOLDER)
@DATA
@DATABASE
def backup(target: Path, data: Path | None, database: str) -> None:
    """Copy all jobs, pictures, keys, logs of files and styles into the folder TARGET, which must be new or empty.

    A server may go on meanwhile. Every file is read again and compared before TARGET has its name. It is nice to the server
    (niceness 10). What else is in the data folder, such as training, is left out and named.
    """
    from chashka.app.compute.processes import step_back
    from chashka.app.keeping.blobs import FOLDER, Blobs
    from chashka.app.store.backup import backup as copy

    step_back()
    with reading(data, database) as store:
        copied = copy(store, Blobs((data or data_dir()) / FOLDER), target)
    _tell(copied, target)
    if copied.left:
        click.echo(f"left out: {', '.join(copied.left)}; copy these yourself if you need them", err=True)


@click.command()
@click.argument("source", type=FOLDER)
@click.argument("target", type=FOLDER)
@DATABASE
def restore(source: Path, target: Path, database: str) -> None:
    """Put the backup SOURCE into the data folder TARGET, which must be new or empty.

    Every file is compared with the backup's list. With --database the rows go into that database, which must be empty.
    """
    from chashka.app.store.backup import restore as put_back

    _tell(put_back(source, target, database), target)


def _tell(copied: Copied, target: Path) -> None:
    beside = "".join(f", {name}" for name in copied.beside)
    click.echo(f"{copied.rows} rows and {copied.blobs} files{beside}, {copied.size / 1e6:.1f} MB in {target}")
