"""The server that runs on a data folder, asked by commands of the same user: over loopback, with its own token.

It writes ``server.json`` {url, token, pid} into the folder while it runs, readable by the user alone. A file that a dead server
left is no server.
"""

from __future__ import annotations

import json
import os
import secrets
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chashka.errors import ChashkaError, FileError, InputError

INFO = "server.json"
PATIENCE = 60.0
"""Seconds for one answer."""
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


@dataclass(frozen=True, slots=True)
class Remote:
    """A server that runs. url: how it is reached from this machine."""

    url: str
    token: str = field(repr=False)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers, as JSON (None: nothing). Raises InputError with the server's own words, FileError if it is gone."""
        data = None if method == "GET" else json.dumps({} if body is None else body).encode()
        answer = self._send(method, path, data, "application/json")[0]
        return json.loads(answer) if answer else None

    def file(self, path: str) -> tuple[bytes, str]:
        """A file's bytes and media type. Raises as :meth:`ask`."""
        return self._send("GET", path, None, "")

    def upload(self, path: str, data: bytes, **values: str) -> Any:
        """Send a file as the field ``file`` of a form, with some other ``values``. Raises as :meth:`ask`."""
        border = secrets.token_hex(16)
        parts = [
            f'--{border}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in values.items()
        ]
        head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        whole = "".join(parts).encode() + head.encode() + data + f"\r\n--{border}--\r\n".encode()
        return json.loads(self._send("POST", path, whole, f"multipart/form-data; boundary={border}")[0])

    def _send(self, method: str, path: str, data: bytes | None, kind: str) -> tuple[bytes, str]:
        request = urllib.request.Request(self.url + path, data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("X-Chashka", "cli")
        if data is not None:
            request.add_header("Content-Type", kind)
        # no proxy: the server is on this machine, and its token is for nobody else
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=PATIENCE) as answer:
                return answer.read(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            raise _told(error) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise FileError(
                f"the server at {self.url} does not answer: {reason}; is it still starting or stopping?"
            ) from error


def running(data: Path) -> Remote | None:
    """The server that runs on this data folder, or None. Raises FileError if ``server.json`` cannot be read or is no such file."""
    path = data / INFO
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except ValueError:
        return None  # half written: it is starting, and the database's lock says so
    if not isinstance(said, dict) or not _alive(said.get("pid")):
        return None
    url, token = said.get("url"), said.get("token")
    if not isinstance(url, str) or not isinstance(token, str):
        return None
    return Remote(_loopback(url), token)


def _alive(pid: Any) -> bool:
    """Whether this process exists."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    if os.name == "nt":  # there a signal would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _loopback(url: str) -> str:
    """The address for this machine: a server that listens everywhere is asked on loopback."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if host in _LOOPBACK or host not in _ANY:
        return url.rstrip("/")
    return f"{parts.scheme}://{_ANY[host]}:{parts.port}"


def _told(error: urllib.error.HTTPError) -> ChashkaError:
    """A server's refusal in its own words."""
    try:
        message = json.loads(error.read(100_000))["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the server says {error.code} {error.reason}"
    return InputError(str(message)) if error.code < 500 else FileError(str(message))
