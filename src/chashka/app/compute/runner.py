"""Where a task is computed, as the worker sees it: something that takes a :class:`Task` and says what happens.

``InProcess`` computes in the calling thread; ``child.Child`` in another process that can be ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from chashka.app.jobs import NewPicture, Problem

Stop: TypeAlias = Callable[[], str]
"""Asked at every step: "" go on, "now" stop at once, "after" begin no more pictures."""


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at a job. inputs: files by their use. skip: numbers of pictures that an earlier attempt published already.

    cautious: memory ran out before. 1: one picture at a time; 2: decoded in small tiles too, where the model's codec can.
    """

    job: str
    kind: str
    fields: Mapping[str, Any]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    cautious: int = 0
    skip: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Progress:
    """After a step: ``done`` of ``total``. previews: a small WebP for each picture being drawn, by its number."""

    done: int
    total: int
    previews: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """A finished picture: what is known of it, the file's bytes, and the thumbnail's (WebP, at most 256 pixels a side)."""

    picture: NewPicture
    data: bytes
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person should know of the result, one sentence; and values that are no pictures (``result`` of the job)."""

    note: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


Event: TypeAlias = Progress | Made | Remark


class TaskError(Exception):
    """The task cannot be done, and trying again would not help."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class DiedError(Exception):
    """What computed the task is gone: crashed, hung, or over its memory. problem.code: worker_died, hung, out_of_memory."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Runner(Protocol):
    """Computes tasks, one at a time for each caller's thread."""

    @property
    def slots(self) -> int:
        """How many threads should call; it may grow once, when the first model is open."""

    def run(self, task: Task, stop: Stop) -> Iterator[Event]:
        """What happens, in order; ends when the task is done or was stopped. Raises TaskError, DiedError."""

    def close(self) -> None:
        """Let go of models and processes."""
