"""What the serving process and the computing one say to each other: frames of JSON and bytes, over a pipe.

A frame is the length of its JSON (4 bytes, big endian), the JSON, and the bytes that its ``sizes`` announce, one after the other.
Both ends are ours and of one version. Nothing that comes over the pipe is ever code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO

from chashka.app.compute.runner import DiedError, Event, Made, Progress, Remark, Task, TaskError
from chashka.app.jobs import NewPicture, Problem
from chashka.app.logs import where
from chashka.app.settings import Settings

LENGTH = struct.Struct(">I")
LONGEST_HEADER = 32_000_000
LONGEST_BODY = 2_000_000_000


def write(file: BinaryIO, header: Mapping[str, Any], bodies: Sequence[bytes] = ()) -> None:
    """Send one frame, whole. Raises OSError where nobody reads any more."""
    text = json.dumps({**header, "sizes": [len(body) for body in bodies]}).encode()
    file.write(b"".join((LENGTH.pack(len(text)), text, *bodies)))
    file.flush()


def read(file: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next frame; None at the end. Raises ValueError for what is no frame."""
    start = file.read(LENGTH.size)
    if len(start) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(start)
    if length > LONGEST_HEADER:
        raise ValueError(f"a frame's header cannot have {length} bytes")
    text = file.read(length)
    if len(text) < length:
        return None
    header: dict[str, Any] = json.loads(text)
    bodies = []
    for size in header.pop("sizes"):
        if not 0 <= size <= LONGEST_BODY:
            raise ValueError(f"a frame's body cannot have {size} bytes")
        body = file.read(size)
        if len(body) < size:
            return None
        bodies.append(body)
    return header, bodies


def of_settings(settings: Settings) -> dict[str, Any]:
    """As JSON. The database's address, which may hold a password, stays here."""
    values = asdict(settings) | {"database": ""}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def to_settings(values: Mapping[str, Any]) -> Settings:
    """From :func:`of_settings`."""
    known: dict[str, Any] = {}
    for one in fields(Settings):
        value, kind = values[one.name], str(one.type)
        if kind.startswith("Path") and value is not None:
            value = Path(value)
        known[one.name] = tuple(value) if kind.startswith("tuple") else value
    return Settings(**known)


def of_task(task: Task) -> dict[str, Any]:
    """As JSON."""
    return {
        "job": task.job,
        "kind": task.kind,
        "fields": dict(task.fields),
        "inputs": {use: str(path) for use, path in task.inputs.items()},
        "cautious": task.cautious,
        "skip": sorted(task.skip),
    }


def to_task(values: Mapping[str, Any]) -> Task:
    """From :func:`of_task`."""
    inputs = {use: Path(path) for use, path in values["inputs"].items()}
    return Task(values["job"], values["kind"], values["fields"], inputs, values["cautious"], frozenset(values["skip"]))


def of_event(event: Event) -> tuple[dict[str, Any], list[bytes]]:
    """Header and bodies."""
    if isinstance(event, Progress):
        header = {"what": "progress", "done": event.done, "total": event.total, "numbers": list(event.previews)}
        return header, list(event.previews.values())
    if isinstance(event, Made):
        picture = asdict(event.picture)
        return {"what": "made", "picture": picture}, [event.data, event.thumbnail]
    return {"what": "remark", "note": event.note, "result": dict(event.result)}, []


def of_error(error: TaskError | DiedError) -> dict[str, Any]:
    """A header."""
    what = "failed" if isinstance(error, TaskError) else "died"
    return {"what": what, "code": error.problem.code, "message": error.problem.message}


def of_bug(error: BaseException) -> dict[str, Any]:
    """A header for the log: the exception's type and places, without its message, which may quote what somebody wrote."""
    return {"what": "bug", **where(error)}


def to_event(header: Mapping[str, Any], bodies: Sequence[bytes]) -> Event | None:
    """From :func:`of_event`; None for the end of a task. Raises the error of :func:`of_error`."""
    what = header["what"]
    if what == "progress":
        return Progress(header["done"], header["total"], dict(zip(header["numbers"], bodies, strict=True)))
    if what == "made":
        data, thumbnail = bodies
        return Made(NewPicture(**header["picture"]), data, thumbnail)
    if what == "remark":
        return Remark(header["note"], header["result"])
    if what == "end":
        return None
    raise {"failed": TaskError, "died": DiedError}[what](Problem(header["code"], header["message"]))
