"""A real PostgreSQL for tests, from the wheel ``pgserver``: one server for a whole run, a new database for every test."""

from __future__ import annotations

import atexit
import re
import subprocess
import tempfile
import warnings
from functools import cache
from itertools import count
from pathlib import Path

import psycopg

with warnings.catch_warnings():  # it asks for the user's runtime folder while it is imported, which not everybody has
    warnings.simplefilter("ignore")
    import pgserver
    from pgserver.postgres_server import POSTGRES_BIN_PATH


class Server:
    """A server that stops when the tests end. It listens on a socket in its own folder, on no network."""

    def __init__(self) -> None:
        # a short path that the server's own user may reach: the one of a socket has room for about a hundred bytes
        self.folder = Path(tempfile.mkdtemp(prefix="chashka-pg-"))
        self._server = pgserver.get_server(self.folder, cleanup_mode="delete")
        self._numbers = count(1)
        atexit.register(self._stop)  # before pgserver's own, which does not know what was restarted

    def new(self) -> str:
        """The address of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self._command(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(database=name))

    def cut(self) -> int:
        """End every connection, as a network that fails does; how many there were."""
        return self._command(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )

    def restart(self) -> None:
        """Stop at once, without saying goodbye to anybody, and start again: it has to recover from its log."""
        self._control("restart", "-l", str(self.folder / "log"))

    def _stop(self) -> None:
        self._control("stop")

    def _control(self, *what: str) -> None:
        command = [str(POSTGRES_BIN_PATH / "pg_ctl"), "-D", str(self.folder), "-w", "-m", "immediate", *what]
        subprocess.run(command, check=True, user=self._server.system_user, timeout=60, stdout=subprocess.DEVNULL)

    def _command(self, text: str) -> int:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            done = connection.execute(text.encode())
            return int(done.fetchone()[0]) if done.description else 0  # type: ignore[index]


@cache
def server() -> Server:
    """The one of this run."""
    return Server()


def name_of(url: str) -> str:
    """The database that an address names."""
    found = re.search(r"/(\w+)\?", url)
    assert found is not None
    return found[1]
