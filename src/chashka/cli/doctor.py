"""``chashka doctor``: what is installed, what this machine can do, and whether the weights are whole."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator

import click

from chashka.errors import ChashkaError, WeightsError

PACKAGES = ("numpy", "openvino", "pillow", "pydantic", "safetensors", "torch", "resvg_py")


@click.command()
def doctor() -> None:
    """Print versions, the engine's self-test and the state of every model's files; exit code 4 if a file is damaged."""
    for line in _machine():
        click.echo(line)
    damaged = []
    for name, state in _models():
        click.echo(f"model {name}: {state or 'whole'}")
        damaged += [name] if state else []
    if damaged:
        raise WeightsError(f"not whole: {', '.join(damaged)}; install chashka again")


def _machine() -> Iterator[str]:
    from chashka import __version__
    from chashka.cli.places import cache_dir
    from chashka.engines.selftest import best_precision

    yield f"chashka {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    for package in PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} not installed"
    yield f"cache {cache_dir()}"
    yield f"openvino computes in {best_precision(cache_dir())} here"


def _models() -> Iterator[tuple[str, str]]:
    """(name, what is wrong or an empty string) of every model; opening one checks the sha256 of all its files."""
    from chashka import families

    for name, _, _ in families.models():
        try:
            families.load(name, engine="openvino")
            yield name, ""
        except ChashkaError as error:
            yield name, str(error)
