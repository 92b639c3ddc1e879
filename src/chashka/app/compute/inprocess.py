"""Tasks computed in the caller's own process: for tests, and for servers that are themselves watched by something."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from chashka.app.compute.models import Models
from chashka.app.compute.runner import Event, Stop, Task

KINDS = "chashka.app.kinds"


class InProcess:
    """A ``Runner``. kinds: the module whose ``run(task, models, stop)`` does tasks. A crash or a hang is the whole process's."""

    def __init__(self, models: Models, kinds: str = KINDS) -> None:
        self._models, self._kinds = models, importlib.import_module(kinds)

    @property
    def slots(self) -> int:
        return self._models.slots

    def run(self, task: Task, stop: Stop) -> Iterator[Event]:
        yield from self._kinds.run(task, self._models, stop)

    def close(self) -> None:
        self._models.close()
