"""Kinds for tests of the worker and the child: tasks that take no model, some of which behave badly.

fields: n pictures of ``steps`` steps, each ``pause`` seconds long; ``do``: what happens in step ``at`` of each picture.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from chashka.app.compute.runner import Event, Made, Progress, Remark, Stop, Task, TaskError
from chashka.app.jobs import NewPicture, Problem


def run(task: Task, models: Any, stop: Stop) -> Iterator[Event]:
    """See ``chashka.app.kinds.run``."""
    fields = {"n": 1, "steps": 2, "pause": 0.0, "do": "", "at": 1} | dict(task.fields)
    n, steps = int(fields["n"]), int(fields["steps"])
    misbehave = {
        "exit": lambda: os._exit(3),
        "crash": lambda: ctypes.string_at(0),
        "hang": lambda: time.sleep(600),
        "eat": eat,
        "memory": lambda: _raise(MemoryError()),
        "memory once": lambda: None if task.cautious else _raise(MemoryError()),
        "memory twice": lambda: None if task.cautious > 1 else _raise(MemoryError()),
        "bug": lambda: _raise(ZeroDivisionError("a bug")),
        "quote": lambda: _raise(ValueError(f"cannot draw {fields['prompt']!r}")),
        "say": lambda: (print(fields["prompt"], file=sys.stderr, flush=True), os._exit(3)),
        "impossible": lambda: _raise(TaskError(Problem("input", "steps: impossible"))),
        "room": lambda: setattr(models, "slots", 3),
        "print": lambda: print("to standard output", flush=True),
        "": lambda: None,
    }[str(fields["do"])]
    yield Remark("a remark")
    for number in range(n):
        if number in task.skip:
            continue
        for step in range(steps):
            if stop() == "now":
                return
            time.sleep(float(fields["pause"]))
            if step == fields["at"] % steps:
                misbehave()
            yield Progress(number * steps + step + 1, n * steps, {number: f"preview {step}".encode()})
        if stop() == "now":
            return
        yield made(str(fields.get("text", task.job)), number)
        if stop():
            return
    yield Remark(result={"pid": os.getpid(), "cautious": task.cautious, "skipped": len(task.skip)})


def made(text: str, number: int) -> Made:
    """A picture whose bytes the text and the number decide."""
    data = hashlib.sha256(f"{text} {number}".encode()).digest() * 40
    thumbnail = f"{text} {number}".encode()
    sums = hashlib.sha256(data).hexdigest(), hashlib.sha256(thumbnail).hexdigest()
    return Made(NewPicture(number, *sums, "image/png", 8, 8, len(data), "0" * 16, prompt=text), data, thumbnail)


def eat() -> None:
    """Takes memory until it is ended, or for ten seconds."""
    taken = []
    for _ in range(1000):
        taken.append(bytearray(b"x") * 4_000_000)
        time.sleep(0.01)


def _raise(error: Exception) -> None:
    raise error
