"""The one that pulls: claims jobs, has them computed, publishes what comes, and ends them (docs/server.md, the contract).

Threads: one for each slot, which claims a job and goes with it to its end; and a keeper, which renews the leases of all jobs that
are being drawn, and takes back those that other workers left. A slot never ends because of a job or of the database: what it cannot
write it tries again, and what it loses comes back when its lease is over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from chashka.app import events
from chashka.app.compute.runner import DiedError, Event, Made, Progress, Remark, Runner, Task, TaskError
from chashka.app.jobs import Job, Problem, StaleError
from chashka.app.keeping.blobs import StorageFullError
from chashka.errors import ChashkaError

if TYPE_CHECKING:
    from chashka.app.events import Hub
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.settings import Settings
    from chashka.app.store import Store

LEASE = 30.0
"""Seconds of a lease at least; three steps of the job where they are longer."""
POLL = 0.5
"""Seconds after which an idle slot looks again: another process may have submitted."""
LOOK = 0.1
"""Seconds between two looks at whether a job shall stop."""
TICK = 0.1
RENEW = 0.5
"""Seconds between two renewals of a job that gets on, at least."""
EXPIRE = 5.0
AGAIN = 0.5
"""Seconds until what the disk had no room for is tried again."""
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class _GivenBackError(Exception):
    """The server stops, and so does the job: it goes back to the queue."""


@dataclass(slots=True)
class _Held:
    """A job that a slot holds. heard: last sign of life of its runner. renewed: when its lease was, and with how many steps.

    stop: what the store says; asked: what the runner was told. giving: the worker wants it back in the queue.
    """

    job: Job
    lease: float
    done: int = 0
    total: int = 0
    step: float = 0.0
    heard: float = field(default_factory=time.monotonic)
    renewed: float = field(default_factory=time.monotonic)
    renewed_done: int = 0
    looked: float = 0.0
    stop: str = ""
    asked: str = ""
    giving: bool = False
    stale: bool = False
    published: int = 0
    notes: dict[str, None] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


class Worker:
    """Draws what waits in ``store``, with ``runner``, in as many threads as that has slots. name: who it is in the jobs' rows."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        runner: Runner,
        hub: Hub,
        settings: Settings,
        name: str = "",
        *,
        lease: float = LEASE,
    ) -> None:
        self._store, self._blobs, self._runner, self._hub, self._settings = store, blobs, runner, hub, settings
        self.name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._lease = lease
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._draining, self._closing = threading.Event(), threading.Event()
        self._slots: list[threading.Thread] = []
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to pull."""
        self._grow()
        self._keeper.start()

    def _grow(self) -> None:
        """As many slots as the runner has."""
        while len(self._slots) < self._runner.slots and not self._draining.is_set():
            slot = threading.Thread(target=self._pull, name=f"slot {len(self._slots)}", daemon=True)
            self._slots.append(slot)
            slot.start()

    @property
    def working(self) -> list[str]:
        """Ids of the jobs that are being drawn."""
        with self._lock:
            return list(self._held)

    def drain(self, seconds: float) -> bool:
        """Claim nothing more; wait for what is drawn, then give it back to the queue; whether all of it ended in time.

        Whatever happens, the runner is closed and at most ``seconds`` pass, or one more.
        """
        until = time.monotonic() + seconds
        self._draining.set()
        self._hub.wake()
        self._join(until - min(5.0, seconds / 3))
        with self._lock:
            for held in self._held.values():
                held.giving = True
        self._join(until - min(1.0, seconds / 10))
        self._runner.close()  # a step that takes too long: its process goes, and the slot notices
        self._join(max(until, time.monotonic() + 0.5))
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join(2.0)
        return not any(slot.is_alive() for slot in self._slots)

    def _join(self, until: float) -> None:
        for slot in list(self._slots):
            if slot.is_alive():
                slot.join(max(until - time.monotonic(), 0.0))

    # --- a slot ------------------------------------------------------------------------------------------------------

    def _pull(self) -> None:
        while not self._draining.is_set():
            try:
                job = self._store.jobs.claim(self.name, self._lease)
                if job is None:
                    self._hub.wait_for_work(POLL)
                else:
                    self._work(job)
            except StorageFullError:
                self._closing.wait(AGAIN)
            except Exception:  # the database is away: the job comes back when its lease is over
                log.exception("a slot could not go on; it tries again")
                self._closing.wait(2 * AGAIN)

    def _work(self, job: Job) -> None:
        """From a claim to the end of the attempt."""
        held = _Held(job, self._lease)
        with self._lock:
            self._held[job.id] = held
        self._tell(job)
        try:
            self._attempt(held)
        except StaleError:
            log.warning("job %s is not ours any more; what was drawn is dropped", job.id)
        finally:
            with self._lock:
                del self._held[job.id]

    def _attempt(self, held: _Held) -> None:
        """Compute, and write into the store what came of it."""
        job, jobs = held.job, self._store.jobs
        try:
            self._compute(held)
        except _GivenBackError:
            ended = self._lasting(held, lambda: jobs.release(job.id, job.fence))
        except DiedError as error:
            problem = error.problem
            log.warning("attempt %d at job %s: %s", job.attempts, job.id, problem.code)
            if held.giving:  # we ended it ourselves
                ended = self._lasting(held, lambda: jobs.release(job.id, job.fence))
            else:
                ended = self._lasting(held, lambda: jobs.fail_attempt(job.id, job.fence, problem))
        except TaskError as error:
            problem = error.problem
            ended = self._finish(held, "failed", problem)
        except StaleError:
            if self._stop_of(held) != "now" or held.stale:
                raise
            ended = self._finish(held, "canceled")
        else:
            ended = self._finish(held, self._end_of(held))
        self._tell(ended)
        if not ended.ended:
            self._hub.wake()

    def _end_of(self, held: _Held) -> str:
        """What a job has become whose runner came to its end."""
        if held.stale:
            raise StaleError(held.job.id)
        if held.asked == "now":
            return "canceled"
        if held.asked == "after":
            held.notes["stopped on request after the pictures that were being drawn"] = None
            return "done" if held.published else "canceled"
        return "done"

    def _finish(self, held: _Held, state: str, problem: Problem | None = None) -> Job:
        job = held.job
        result = held.result or None
        progress = (held.done, held.total) if held.total else None
        return self._lasting(
            held,
            lambda: self._store.jobs.finish(job.id, job.fence, state, problem, tuple(held.notes), result, progress),
        )

    def _compute(self, held: _Held) -> None:
        """Run the task and publish. Raises _GivenBackError, StaleError, TaskError, DiedError."""
        running = self._runner.run(self._task(held), lambda: self._asked(held))
        with contextlib.closing(running):  # type: ignore[type-var]  # runners are generators
            while True:
                try:
                    event = next(running)
                except StopIteration:
                    break
                except (TaskError, DiedError):
                    raise
                except Exception as error:
                    log.exception("job %s: an error of chashka's own", held.job.id)
                    message = f"an error of chashka's own ({type(error).__name__}); the server's log has more"
                    raise TaskError(Problem("internal", message)) from error
                self._heard(held, event)
        if held.giving and held.asked == "now" and held.stop != "now":
            raise _GivenBackError

    def _task(self, held: _Held) -> Task:
        job = held.job
        before = frozenset[int]()
        if job.fence > 1:
            before = frozenset(picture.new.index for picture in self._store.pictures.of_job(job.id))
            held.published = len(before)
        try:
            inputs = {use: self._blobs.path(name) for use, name in job.inputs.items()}
        except ChashkaError as error:
            raise TaskError(Problem("input", str(error))) from error
        ran_out = job.problem is not None and job.problem.code == "out_of_memory"
        cautious = min(job.attempts - 1, 2) if ran_out else 0  # the second attempt; the third and last
        return Task(job.id, job.kind, job.fields, inputs, cautious, before)

    def _heard(self, held: _Held, event: Event) -> None:
        """One event of the runner's."""
        now = time.monotonic()
        job = held.job
        if isinstance(event, Progress):
            with self._lock:
                if event.done > held.done:
                    held.step = max((now - held.heard) / (event.done - held.done), 0.5 * held.step)
                    held.lease = max(self._lease, 3 * held.step)
                held.done, held.total = event.done, event.total
            if event.total:
                self._hub.publish(job.id, "progress", {"done": event.done, "total": event.total})
            for index, webp in event.previews.items():
                self._hub.publish(job.id, "preview", events.preview(index, webp))
        elif isinstance(event, Made):
            self._publish(held, event)
        elif isinstance(event, Remark):
            if event.note:
                held.notes[event.note] = None
            held.result |= event.result
        held.heard = time.monotonic()

    def _publish(self, held: _Held, made: Made) -> None:
        """Contract point 4: the files, then the row under the fence."""
        job = held.job

        def work() -> tuple[str, Any]:
            sums = self._blobs.put(made.data), self._blobs.put(made.thumbnail)
            picture = replace(made.picture, sha256=sums[0], thumbnail=sums[1], bytes=len(made.data))
            return self._store.jobs.publish(job.id, job.fence, picture), picture

        id, picture = self._lasting(held, work, stoppable=True)
        held.published += 1
        shown = {name: getattr(picture, name) for name in ("index", "width", "height", "media_type")}
        self._hub.publish(job.id, "picture", {"id": id, **shown})

    def _lasting(self, held: _Held, work: Callable[[], Result], *, stoppable: bool = False) -> Result:
        """Write; while the disk is full, wait for room and try again, so that nothing that was drawn is lost.

        stoppable: not beyond a request to stop or to give the job back.
        """
        told = False
        while True:
            try:
                return work()
            except StorageFullError as error:
                if not told:
                    log.warning("job %s waits for room on the disk: %s", held.job.id, error)
                    told = True
            if stoppable and self._asked(held) == "now":
                if held.giving:
                    raise _GivenBackError
                raise StaleError(held.job.id)
            if self._closing.wait(AGAIN):  # the next start of the server finds the job running, and takes it back
                raise StaleError(held.job.id)
            held.heard = time.monotonic()

    # --- whether to stop ---------------------------------------------------------------------------------------------

    def _asked(self, held: _Held) -> str:
        """What the runner is told. The store is asked now and then, and at once when somebody in this process asked to stop."""
        if held.asked == "now":
            return "now"
        if held.giving or held.stale:
            held.asked = "now"
        elif time.monotonic() - held.looked >= LOOK or self._hub.asked(held.job.id) not in ("", held.stop):
            held.looked = time.monotonic()
            held.asked = self._stop_of(held) or held.asked
        return held.asked

    def _stop_of(self, held: _Held) -> str:
        """What the store asks of a job; "now" too if it is not ours any more."""
        try:
            job = self._store.jobs.get(held.job.id)
        except Exception:  # the database is away: the runner goes on
            return held.stop
        if job is None or job.fence != held.job.fence or job.state != "running":
            held.stale = True
            return "now"
        held.stop = job.stop
        return job.stop

    # --- the keeper --------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Renew, and take back what others left."""
        expired = time.monotonic()
        while not self._closing.wait(TICK):
            self._grow()
            with self._lock:
                held = list(self._held.values())
            try:
                for one in held:
                    self._renew(one)
                if time.monotonic() - expired >= EXPIRE:
                    expired = time.monotonic()
                    for job in self._store.jobs.expire():
                        self._tell(job)
                        self._hub.wake()
            except StorageFullError:
                expired = time.monotonic()  # ours could not be renewed: nothing is taken back before that works again
                self._closing.wait(AGAIN)
            except Exception:
                log.exception("leases could not be renewed; the keeper tries again")
                expired = time.monotonic()
                self._closing.wait(2 * AGAIN)

    def _renew(self, held: _Held) -> None:
        """Renew a lease if the job got on, or if a quarter of it is over; not if its runner is silent for too long."""
        now = time.monotonic()
        since = now - held.renewed
        if held.stale or not (since >= held.lease / 4 or (held.done != held.renewed_done and since >= RENEW)):
            return
        if now - held.heard > self._settings.hang + self._lease:
            return
        done, total = held.done, held.total
        try:
            held.stop = self._store.jobs.renew(held.job.id, held.job.fence, held.lease, done, total)
        except StaleError:
            with self._lock:
                held.stale = held.job.id in self._held  # else it has just ended
        held.renewed, held.renewed_done = now, done

    def _tell(self, job: Job) -> None:
        self._hub.publish(job.id, "state", events.told(job))
