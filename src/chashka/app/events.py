"""What happens to jobs, for whoever listens: workers publish from their threads, the server listens in its event loop.

Of each name (and of each picture) the newest happening is kept, and no more: a listener that is slow, or comes later, sees where a
job is now and not every step on the way. What is kept is therefore bounded by the number of pictures of a job. A job's place in the
queue is nobody's happening, since it changes with other jobs: streams look for it themselves (``routes/jobs.py``).

========  ==========================================================================================================
name      data, all of it JSON
========  ==========================================================================================================
state     :func:`told`: {state, done, total, attempts, stop, problem, notes, result}; an ended state is the last happening
progress  {done, total}: steps
preview   {index, media_type, b64}: a small picture of what is being drawn, base64
picture   {index, id, width, height, media_type}: published
========  ==========================================================================================================
"""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chashka.app.jobs import ENDED, Job

KEEP = 300.0
"""Seconds that an ended job is remembered; then the store alone knows it."""
FORGET = 3600.0
"""Seconds after which a job that nothing happens to, and nobody listens to, is forgotten: another process may have ended it."""
SWEEP = 10.0
REMEMBERED = 200
"""So many ended jobs are remembered at most; of older ones the store knows the end."""


@dataclass(frozen=True, slots=True)
class Happening:
    """number: grows within a job, from one start of the server to the next as well."""

    number: int
    name: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class _Story:
    """What is known of one job. newest: by name and picture. listeners: called from any thread when something is new."""

    newest: dict[tuple[str, Any], Happening] = field(default_factory=dict)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    last: int = 0
    touched: float = 0.0
    ended: bool = False


def told(job: Job) -> dict[str, Any]:
    """The data of a ``state``."""
    problem = None if job.problem is None else {"code": job.problem.code, "message": job.problem.message}
    return {
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "attempts": job.attempts,
        "stop": job.stop,
        "problem": problem,
        "notes": list(job.notes),
        "result": None if job.result is None else dict(job.result),
    }


def preview(index: int, webp: bytes) -> dict[str, Any]:
    """The data of a ``preview``."""
    return {"index": index, "media_type": "image/webp", "b64": base64.b64encode(webp).decode("ascii")}


class Hub:
    """Thread safe. clock: seconds, for tests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._stories: dict[str, _Story] = {}
        self._swept = clock()
        self._work = threading.Condition()
        self._woken = 0
        self._seen = threading.local()

    def publish(self, job_id: str, name: str, data: Mapping[str, Any]) -> int:
        """Tell all listeners; the happening's number. After the end of a job nothing is told any more, and the answer is 0."""
        now = self._clock()
        with self._lock:
            self._sweep(now)
            story = self._stories.setdefault(job_id, _Story())
            if story.ended:
                return 0
            # milliseconds: a client that comes back after a restart of the server knows a smaller number than any new one
            story.last = max(story.last + 1, time.time_ns() // 1_000_000)
            story.touched = now
            story.newest[name, data.get("index")] = Happening(story.last, name, dict(data))
            if name == "picture":
                story.newest.pop(("preview", data.get("index")), None)
            if name == "state" and data.get("state") in ENDED:
                story.ended = True
                for key in [key for key in story.newest if key[0] in ("preview", "progress")]:
                    del story.newest[key]
            number, listeners = story.last, list(story.listeners)
        for listener in listeners:
            listener()
        return number

    def newest(self, job_id: str, after: int = 0) -> list[Happening]:
        """What is kept of a job, in order, of those with a number above ``after``."""
        with self._lock:
            story = self._stories.get(job_id)
            found = [] if story is None else [one for one in story.newest.values() if one.number > after]
        return sorted(found, key=lambda one: one.number)

    def asked(self, job_id: str) -> str:
        """The ``stop`` of the newest state that was told: a hint, the store knows."""
        with self._lock:
            story = self._stories.get(job_id)
            state = None if story is None else story.newest.get(("state", None))
        return "" if state is None else str(state.data.get("stop", ""))

    async def listen(self, job_id: str, after: int = 0) -> AsyncIterator[Happening]:
        """The newest of each name above ``after``, then what happens, in order; ends behind an ended state.

        Nothing comes of a job that this process knows nothing of: look into the store before and beside it. An ``after`` that is
        newer than everything (a client that missed nothing) still gets an ended state, so that listening always ends.
        """
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(news.set)
            except RuntimeError:  # the loop is closed: nobody listens any more
                return

        with self._lock:
            story = self._stories.setdefault(job_id, _Story(touched=self._clock()))
            story.listeners.append(tell)
        try:
            while True:
                news.clear()
                with self._lock:
                    ended = story.ended
                found = self.newest(job_id, after)
                if ended and not found:
                    found = [one for one in self.newest(job_id) if one.name == "state"]
                for one in found:
                    after = one.number
                    yield one
                if ended:
                    return
                await news.wait()
        finally:
            with self._lock:
                story.listeners.remove(tell)
                story.touched = self._clock()

    def wake(self) -> None:
        """There is work: whoever waits for it looks now."""
        with self._work:
            self._woken += 1
            self._work.notify_all()

    def wait_for_work(self, timeout: float) -> bool:
        """Wait until :meth:`wake`, at most ``timeout`` seconds. A call between two waits of a thread is not missed."""
        with self._work:
            before = getattr(self._seen, "number", self._woken)
            woken = self._work.wait_for(lambda: self._woken != before, timeout)
            self._seen.number = self._woken
            return woken

    def forget(self, job_id: str) -> None:
        """Drop what is kept of a job, if nobody listens."""
        with self._lock:
            story = self._stories.get(job_id)
            if story is not None and not story.listeners:
                del self._stories[job_id]

    @property
    def known(self) -> int:
        """How many jobs something is kept of."""
        return len(self._stories)

    def _sweep(self, now: float) -> None:
        """Forget what ended minutes ago or is one of too many, and what nothing happened to for an hour."""
        if now - self._swept < SWEEP:
            return
        self._swept = now
        for job_id, story in list(self._stories.items()):
            age = now - story.touched
            if not story.listeners and age > (KEEP if story.ended else FORGET):
                del self._stories[job_id]
        ended = [
            (story.touched, job_id) for job_id, story in self._stories.items() if story.ended and not story.listeners
        ]
        for _, job_id in sorted(ended)[:-REMEMBERED]:
            del self._stories[job_id]
