"""``chashka backup`` and ``chashka restore``: everything that a server has, copied while it runs, and put back."""

from __future__ import annotations

from pathlib import Path

import click

from chashka.cli.opening import DATA, DATABASE, reading
from chashka.cli.places import data_dir

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("target", type=FOLDER)
@DATA
@DATABASE
def backup(target: Path, data: Path | None, database: str) -> None:
    """Copy all jobs, pictures and keys into the folder TARGET, which must be new or empty. A server may go on meanwhile.

    Every file is read again and compared before TARGET has its name. It is nice to the server (niceness 10).
    """
    from chashka.app.compute.processes import step_back
    from chashka.app.keeping.blobs import FOLDER, Blobs
    from chashka.app.store.backup import backup as copy

    step_back()
    with reading(data, database) as store:
        copied = copy(store, Blobs((data or data_dir()) / FOLDER), target)
    click.echo(f"{copied.rows} rows and {copied.blobs} files, {copied.size / 1e6:.1f} MB in {target}")


@click.command()
@click.argument("source", type=FOLDER)
@click.argument("target", type=FOLDER)
@DATABASE
def restore(source: Path, target: Path, database: str) -> None:
    """Put the backup SOURCE into the data folder TARGET, which must be new or empty.

    Every file is compared with the backup's list. With --database the rows go into that database, which must be empty.
    """
    from chashka.app.store.backup import restore as put_back

    copied = put_back(source, target, database)
    click.echo(f"{copied.rows} rows and {copied.blobs} files, {copied.size / 1e6:.1f} MB in {target}")
