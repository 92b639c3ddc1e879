"""``chashka data``: the pictures and captions that the embedded models are trained on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from chashka.errors import MissingExtraError

FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group()
def data() -> None:
    """Build the training data from openly licensed packages."""


@data.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for the shards, the captions and the manifest.")
@click.option("--cache", type=FOLDER, required=True, help="Folder where fetched packages are kept.")
@click.option("--source", "sources", multiple=True, help="Only this source; may be given several times.")
@click.option("--limit", type=click.IntRange(1), help="Only so many drawings of each source.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes that render.")
def build(out: Path, cache: Path, sources: tuple[str, ...], limit: int | None, jobs: int) -> None:
    """Fetch the named packages by version and sha256, admit pictures by licence, render, caption and pack them."""
    if importlib.util.find_spec("resvg_py") is None:
        raise MissingExtraError("train", "chashka data build")
    from chashka.data.build import build as build_data

    build_data(out, cache, sources=sources or None, limit=limit, jobs=jobs, say=lambda line: click.echo(line, err=True))
    click.echo(str(out))
