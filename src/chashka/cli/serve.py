"""``chashka serve`` and ``chashka studio``: the server, and the server with its page in a browser."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.places import cache_dir, data_dir, models_dir

if TYPE_CHECKING:
    from chashka.app.settings import Settings


class WithSettings(click.Command):
    """A command with a flag for every setting; the table of settings is looked at when the command is used, not before."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Those of the table, then the command's own."""
        return [*_flags(), *super().get_params(ctx)]


def _flags() -> list[click.Parameter]:
    from dataclasses import fields

    from chashka.app.settings import PREFIX, Settings

    return [
        click.Option(
            [f"--{one.name.replace('_', '-')}", one.name],
            metavar="VALUE",
            help=f"{one.metadata['help']}  [{PREFIX}{one.name.upper()}; {_default(one.default)}]",
        )
        for one in fields(Settings)
    ]


def _default(value: Any) -> str:
    """A default as it would be written."""
    if isinstance(value, Path) or value is None:
        return "default: the user's own"
    if isinstance(value, bool):
        return f"default: {str(value).lower()}"
    text = (
        f"{value:.12g}" if isinstance(value, float) else str(value or "none" if not isinstance(value, int) else value)
    )
    return f"default: {text}" if value != () else "default: none"


def settings_of(said: dict[str, Any], **base: Any) -> Settings:
    """Flags before the environment before the defaults. Raises InputError that names the setting."""
    from chashka.app.settings import Settings, from_environment, from_mapping

    start = Settings(**{"data": data_dir(), "models": models_dir(None), "cache": cache_dir(), **base})
    given = {name: value for name, value in said.items() if value is not None}
    return from_mapping(given, from_environment(os.environ, start))


def shown(settings: Settings) -> str:
    """All settings, one a line; a database's password is not shown."""
    from dataclasses import asdict

    rows = asdict(settings)
    if rows["database"]:
        from sqlalchemy.engine import make_url

        rows["database"] = make_url(rows["database"]).render_as_string(hide_password=True)
    return json.dumps(rows, ensure_ascii=False, indent=1, default=str)


@click.command(cls=WithSettings)
@click.option("--print-settings", is_flag=True, help="Print every setting as it would be used, and end.")
def serve(print_settings: bool, **said: Any) -> None:
    """Serve the API and the studio until SIGTERM or Ctrl-C.

    Each setting can be given as a flag, or as a variable of the environment; flags come first. Prints the address once it can be
    reached; the log is on stderr, a JSON object a line.
    """
    settings = settings_of(said)
    if print_settings:
        click.echo(shown(settings))
        return
    _serve(settings, click.echo)


@click.command(cls=WithSettings)
@click.option("--no-browser", is_flag=True, help="Print the address only.")
def studio(no_browser: bool, **said: Any) -> None:
    """Serve on a free port and open the studio in the browser, until Ctrl-C.

    If a server runs on this data folder already, its page is opened.
    """
    settings = settings_of(said, port=0)
    from chashka.cli import remote

    running = remote.running(settings.data)
    if running is not None:
        _open(running.url, no_browser)
        return
    _serve(settings, lambda url: _open(url, no_browser))


def _open(url: str, no_browser: bool) -> None:
    """Tell the address and show it; a browser may take its time to start."""
    import webbrowser

    click.echo(url)
    if not no_browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _serve(settings: Settings, started: Callable[[str], object]) -> None:
    from chashka.app import server

    def told(url: str) -> None:
        started(url)
        sys.stdout.flush()

    if not server.serve(settings, started=told):
        os._exit(0)  # a step that cannot be interrupted holds a thread; its job is taken back at the next start
