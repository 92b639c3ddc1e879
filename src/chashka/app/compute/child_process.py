"""``python -m chashka.app.compute.child_process PARENT KINDS``: the process that computes, for ``child.Child``.

It reads frames from its input, {run, task, …} and {stop, task, how}, and writes to its output what ``runner.Runner.run`` gives,
each with the number of its task; {slots, number} once it was found how many tasks at a time are worth it; and {bug, error, where}
before a task fails of a mistake of ours: the exception's message, which may quote a prompt, stays here. It ends when its input
does. Opened models stay open from one task to the next.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, BinaryIO

from chashka.app.compute import frames
from chashka.app.compute.models import Models
from chashka.app.compute.processes import peak, settle_down
from chashka.app.compute.runner import DiedError, TaskError
from chashka.app.jobs import Problem


class Computing:
    """Does the tasks that come, each in its thread."""

    def __init__(self, given: BinaryIO, out: BinaryIO, kinds: ModuleType, models: Models) -> None:
        self._given, self._out, self._kinds, self._models = given, out, kinds, models
        self._writing = threading.Lock()
        self._stops: dict[int, str] = {}
        self._slots = models.slots

    def serve(self) -> None:
        """Until the input ends."""
        self._send(0, {"what": "ready"})
        while (frame := frames.read(self._given)) is not None:
            header, _ = frame
            number = int(header["task"])
            if header["what"] == "run":
                self._stops[number] = ""
                threading.Thread(target=self._do, args=(number, header["said"]), daemon=True).start()
            elif number in self._stops:
                self._stops[number] = str(header["how"])

    def _do(self, number: int, said: Mapping[str, Any]) -> None:
        try:
            for event in self._kinds.run(frames.to_task(said), self._models, lambda: self._stops[number]):
                self._send(number, *frames.of_event(event))
                self._tell_slots()
            self._send(number, {"what": "end"})
        except (TaskError, DiedError) as error:
            self._send(number, frames.of_error(error))
        except MemoryError:
            self._models.close()
            message = f"memory ran out at {peak() / 1e6:,.0f} MB; ask for less"
            self._send(number, frames.of_error(DiedError(Problem("out_of_memory", message))))
        except BaseException as error:
            self._send(number, frames.of_bug(error))
            problem = Problem(
                "internal", f"an error of chashka's own ({type(error).__name__}); the server's log has more"
            )
            self._send(number, frames.of_error(TaskError(problem)))
        finally:
            del self._stops[number]

    def _tell_slots(self) -> None:
        """That more tasks at the same time are worth it, once that was found."""
        if self._models.slots != self._slots:
            self._slots = self._models.slots
            self._send(0, {"what": "slots", "number": self._slots})

    def _send(self, number: int, header: Mapping[str, Any], bodies: Sequence[bytes] = ()) -> None:
        with self._writing:
            try:
                frames.write(self._out, {**header, "task": number}, bodies)
            except OSError:  # nobody reads any more
                leave()


def leave() -> None:
    """End this process at once, and what it started."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        with contextlib.suppress(OSError):
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the parent, out of reach of whatever prints: standard output goes where errors go."""
    given, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return given, out


def main(arguments: Sequence[str]) -> None:
    """arguments: the parent's process id, and the module whose ``run`` does tasks."""
    settle_down(int(arguments[0]))
    given, out = own_pipes()
    first = frames.read(given)
    if first is None:
        return
    try:
        models = Models(frames.to_settings(first[0]["settings"]))
        computing = Computing(given, out, importlib.import_module(arguments[1]), models)
    except Exception as error:
        frames.write(out, {**frames.of_bug(error), "task": 0})
        raise
    computing.serve()
    leave()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    main(sys.argv[1:])
