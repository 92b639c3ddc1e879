"""What a job is: its states and their legal changes, and the records that store, worker and routes hand each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CHANGES: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "canceled", "failed"}),
    "running": frozenset({"queued", "done", "failed", "canceled"}),
    "done": frozenset(),
    "failed": frozenset(),
    "canceled": frozenset(),
}
"""What a state may become. A state without changes is the end and never changes again."""

ENDED = frozenset(state for state, after in CHANGES.items() if not after)
ATTEMPTS = 3
"""So often a job is begun; a worker that dies with it costs one."""
STOPS = ("", "now", "after")
"""What a running job is asked: nothing, to stop within a step, to stop after the pictures that are being drawn."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something failed. code: for programs (``worker_died``, ``out_of_memory``, ``input``, …). message: one line for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is submitted: checked, with its seed. inputs: sha256 of blobs by their use ("init", "mask", "picture 0", …).

    key, body: the client's Idempotency-Key and the sha256 of what it sent; parents: pictures of the gallery by their use.
    """

    id: str
    kind: str
    owner: str
    fields: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    body: str | None = None
    consent: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is stored. Times are the database's, in seconds since 1970. stop: see ``STOPS``.

    fields: what to draw with, complete but for the model's own defaults. done and total: steps. result: what is not a picture.
    """

    id: str
    kind: str
    owner: str
    state: str
    fields: Mapping[str, Any]
    inputs: Mapping[str, str]
    parents: Mapping[str, str]
    created: float
    started: float | None = None
    finished: float | None = None
    attempts: int = 0
    fence: int = 0
    lease_until: float | None = None
    worker: str | None = None
    done: int = 0
    total: int = 0
    stop: str = ""
    problem: Problem | None = None
    notes: tuple[str, ...] = ()
    result: Mapping[str, Any] | None = None
    consent: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A finished picture whose file is in the blobs. index: its number in the job. metadata: as ``images.describe`` gives it.

    sha256, thumbnail: of the file, and of its small WebP. media_type: image/png, image/svg+xml, … dhash: 16 hexadecimal digits
    of what it looks like, for finding it again when its metadata are gone. source: "drawn", "uploaded", "imported".
    """

    index: int
    sha256: str
    thumbnail: str
    media_type: str
    width: int
    height: int
    bytes: int
    dhash: str
    prompt: str = ""
    negative_prompt: str = ""
    model: str = ""
    family: str = ""
    seed: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: str = "drawn"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the gallery: what :class:`NewPicture` says, and what became of it since. number: grows with time."""

    id: str
    number: int
    job: str | None
    owner: str
    new: NewPicture
    created: float
    favourite: bool = False
    deleted: float | None = None


class StaleError(Exception):
    """A worker that lost its lease wanted to change the job; what it has is to be dropped."""


class QueueFullError(Exception):
    """As many jobs wait as may."""


class KeyReusedError(Exception):
    """The same Idempotency-Key came with another body."""
