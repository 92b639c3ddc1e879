"""What A1111's clients see of requests that are being answered: their progress, and the settings that they changed.

In memory, for each owner apart: nobody sees or stops what somebody else draws. A task is a request of txt2img or img2img; each of
its pictures is a job.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chashka.app.dialects.calls import Call
from chashka.app.dialects.pictures import forming, to_text
from chashka.app.guard.access import Who
from chashka.app.jobs import Job

_ENDED = 100
_OWNERS = 1_000


@dataclass(slots=True)
class Task:
    """A request that is being answered. jobs: ids, one for each picture."""

    id: str
    owner: str
    kind: str
    jobs: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.time)
    interrupted: bool = False
    skipped: bool = False


class Tasks:
    """Those of all owners. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[Task] = []
        self._ended: deque[tuple[str, str]] = deque(maxlen=_ENDED)
        self._settings: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @contextmanager
    def answering(self, who: Who, kind: str, id: str | None) -> Iterator[Task]:
        """A task while its request is answered. id: the client's name for it."""
        task = Task(id or f"task({secrets.token_hex(8)})", who.id, kind)
        with self._lock:
            self._running.append(task)
        try:
            yield task
        finally:
            with self._lock:
                self._running.remove(task)
                self._ended.append((who.id, task.id))

    def of(self, who: Who) -> list[Task]:
        """Those of one owner, the oldest first."""
        with self._lock:
            return [task for task in self._running if task.owner == who.id]

    def ended(self, who: Who, id: str) -> bool:
        """Whether this task was answered a short while ago."""
        with self._lock:
            return (who.id, id) in self._ended

    def settings(self, who: Who) -> dict[str, Any]:
        """What an owner changed with POST /options."""
        with self._lock:
            return dict(self._settings.get(who.id, {}))

    def change(self, who: Who, values: dict[str, Any]) -> None:
        """Change some, until the server stops."""
        with self._lock:
            self._settings[who.id] = self._settings.pop(who.id, {}) | values
            while len(self._settings) > _OWNERS:
                self._settings.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a task is. share: 0 to 1. number, done, total: of the job that is drawn now. running: whether any was begun."""

    share: float
    number: int
    job: Job | None
    done: int
    total: int
    running: bool

    def remaining(self, task: Task) -> float:
        """About so many seconds until it ends, from those that passed; 0 when nothing is known."""
        return max(0.0, (time.time() - task.began) * (1 / self.share - 1)) if self.share else 0.0


def standing(call: Call, task: Task) -> Standing:
    """Where a task is now."""
    jobs = [call.service.job(call.who, id) for id in list(task.jobs)]
    if not jobs:
        return Standing(0.0, 0, None, 0, 0, False)
    steps = [_steps(call, job) for job in jobs]
    shares = [
        1.0 if job.ended else done / total if total else 0.0 for job, (done, total) in zip(jobs, steps, strict=True)
    ]
    number = next((i for i, job in enumerate(jobs) if not job.ended), len(jobs) - 1)
    running = any(job.state != "queued" for job in jobs)
    return Standing(min(sum(shares) / len(jobs), 0.999), number, jobs[number], *steps[number], running)


def _steps(call: Call, job: Job) -> tuple[int, int]:
    """(done, total) steps: as the worker told them last, which is newer than what is stored."""
    told = [one.data for one in call.service.hub.newest(job.id) if one.name == "progress"]
    return (told[-1]["done"], told[-1]["total"]) if told else (job.done, job.total)


def preview(call: Call, job: Job | None, file_format: str = "png") -> str | None:
    """The newest small picture of a job that is being drawn, in base64."""
    if job is None:
        return None
    seen = [one for one in call.service.hub.newest(job.id) if one.name == "preview"]
    if not seen:
        return None
    small = base64.b64decode(str(seen[-1].data["b64"]))
    return to_text(call.service.sent(forming(small, file_format, bool(job.inputs), call.service.settings.privacy)))


def idle() -> dict[str, Any]:
    """What GET /progress says when nothing is drawn: clients wait for exactly this."""
    return {"progress": 0.0, "eta_relative": 0.0, "state": state(None, None), "current_image": None, "textinfo": None}


def state(task: Task | None, now: Standing | None) -> dict[str, Any]:
    """A1111's state of what it draws."""
    began = time.gmtime(0 if task is None else task.began)
    return {
        "skipped": task is not None and task.skipped,
        "interrupted": task is not None and task.interrupted,
        "stopping_generation": task is not None and task.interrupted,
        "job": "" if task is None else task.id,
        "job_count": 0 if task is None else max(len(task.jobs), 1),
        "job_timestamp": "0" if task is None else time.strftime("%Y%m%d%H%M%S", began),
        "job_no": 0 if now is None else now.number,
        "sampling_step": 0 if now is None else now.done,
        "sampling_steps": 0 if now is None else now.total,
    }
