"""Pictures that are drawn while somebody types: at once, by whatever computes jobs, and kept by nobody. Jobs go first."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from chashka.app.compute.runner import DiedError, Made, Task, TaskError
from chashka.app.ids import new_id
from chashka.app.store.database import UnavailableError
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.app.compute.runner import Runner

WAITING = 2
"""Sketches that may wait for the one that is being drawn; a thread of the server waits with each."""
PATIENCE = 5.0
"""Seconds that one waits at most."""
MOMENT = 0.3
"""Seconds that a sketch waits for a job to end before it is refused: one that is just done takes some to be put away."""
_MOST = 1000


class BusyError(Exception):
    """There is no room for sketches now; a job would get it."""


class SupersededError(Exception):
    """The same person asked for another one meanwhile, which is the one that is wanted."""


class Sketches:
    """One at a time. busy: whether jobs are being drawn; a sketch is not begun beside one, and ends when one comes."""

    def __init__(self, runner: Runner, busy: Callable[[], bool]) -> None:
        self._runner, self._busy = runner, busy
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._inside = 0
        self._newest: OrderedDict[str, str] = OrderedDict()

    def draw(self, owner: str, fields: Mapping[str, Any]) -> Made:
        """The picture that the checked ``fields`` of a job of the kind draw stand for.

        Raises BusyError, SupersededError, InputError for what only drawing can tell, UnavailableError if what draws has died.
        """
        id = new_id("sketch")
        with self._lock:
            self._newest[owner] = id
            self._newest.move_to_end(owner)
            while len(self._newest) > _MOST:
                self._newest.popitem(last=False)
            if self._inside > WAITING:
                raise BusyError("other sketches are being drawn; try again")
            self._inside += 1
        try:
            if not self._turn.acquire(timeout=PATIENCE):
                raise BusyError("another sketch takes long; try again")
            try:
                return self._drawn(id, owner, fields)
            finally:
                self._turn.release()
        finally:
            with self._lock:
                self._inside -= 1

    def _drawn(self, id: str, owner: str, fields: Mapping[str, Any]) -> Made:
        self._go_on(id, owner)
        found = self._runner.run(Task(id, "draw", fields), lambda: "now" if self._unwanted(id, owner) else "")
        with contextlib.closing(found) as events:  # type: ignore[type-var]  # runners are generators
            try:
                for event in events:
                    if isinstance(event, Made):
                        return event
            except TaskError as error:
                raise InputError(error.problem.message) from error
            except DiedError as error:
                raise UnavailableError(f"{error.problem.message}; try again") from error
        self._go_on(id, owner)
        raise BusyError("nothing was drawn; try again")

    def _unwanted(self, id: str, owner: str) -> bool:
        return self._busy() or self._newest.get(owner, id) != id

    def _go_on(self, id: str, owner: str) -> None:
        """Raises what keeps a sketch from being drawn, if it does so for more than a moment."""
        until = time.monotonic() + MOMENT
        while self._busy() and time.monotonic() < until:
            time.sleep(0.02)
        if self._newest.get(owner, id) != id:
            raise SupersededError("another sketch was asked for meanwhile")
        if self._busy():
            raise BusyError("jobs are being drawn; sketches wait until they are done")
