"""The server's log: one JSON object a line on stderr. Never a prompt, never a key, no control characters.

What goes in are names, numbers and ids that this program made; of an exception its type and where it happened, not its message,
which may quote what a person sent. Of what other libraries log, and of Python's warnings, their names and places alone go in.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

LOG = logging.getLogger("chashka.app")
_LONGEST = 200
_OURS = ("chashka", "uvicorn")
"""Loggers whose words are known: uvicorn quotes nothing that was sent."""
_WARNED = re.compile(r"(.{1,500}?):(\d+): (\w+): ")


class Lines(logging.Formatter):
    """A record as one line of JSON; letters of every script stay, anything that moves a terminal's cursor is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """{time, level, event} and what the record carries in ``said``."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        ours = record.name.partition(".")[0] in _OURS
        event = record.getMessage()[:_LONGEST] if ours else "a library's message"
        values: dict[str, Any] = {"time": at, "level": record.levelname.lower(), "event": event}
        values |= getattr(record, "said", {}) if ours else _foreign(record)
        if record.exc_info and record.exc_info[1] is not None:
            values |= where(record.exc_info[1])
        return _escaped(json.dumps(values, ensure_ascii=False, default=str))


def where(error: BaseException) -> dict[str, Any]:
    """Type of an exception and the last places it went through, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": type(error).__name__, "where": places}


def _foreign(record: logging.LogRecord) -> dict[str, Any]:
    """Who said something, and where; its words may quote anything (asyncio's show the exceptions and calls that they are about)."""
    warned = _WARNED.match(record.getMessage()) if record.name == "py.warnings" else None
    if warned is not None:
        file, line, category = warned.groups()
        return {"event": "a warning", "error": category, "where": [f"{Path(file).name}:{line}"]}
    return {"logger": record.name[:_LONGEST], "where": [f"{record.filename}:{record.lineno} {record.funcName}"]}


def start(stream: IO[str] | None = None, level: int = logging.INFO) -> None:
    """Send this program's records to ``stream`` (stderr), one line each, and everybody's warnings; called by the server."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines())
    root = logging.getLogger()
    for known in [one for one in root.handlers if isinstance(one.formatter, Lines)]:
        root.removeHandler(known)
    root.addHandler(handler)
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed
    for name in ("chashka", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = ([handler] if name != "uvicorn.error" else []), name == "uvicorn.error"
        logger.setLevel(level if name == "chashka" else logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """In place of a traceback on stderr."""
    name = None if failed.thread is None else failed.thread.name
    log("a thread failed", level=logging.ERROR, error=failed.exc_value, thread=name)


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **said: Any) -> None:
    """Write one line: ``event`` and its values, texts cut to 200 characters."""
    short = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in said.items()}
    info = (type(error), error, error.__traceback__) if error is not None else None
    LOG.log(level, event, exc_info=info, extra={"said": short})


_MOVING = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def _escaped(text: str) -> str:
    """Control characters that JSON leaves as they are (DEL, C1, line separators, direction marks) as \\uXXXX."""
    return _MOVING.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)
