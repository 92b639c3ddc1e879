"""A queue of thirty lines beside the real one: whatever is done to both, they must agree.

The model knows nothing of SQL, fences of claims are counted by hand, and turns follow from the times the store itself told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from sqlalchemy import delete

from chashka.app.jobs import ATTEMPTS, ENDED, Job, KeyReusedError, QueueFullError, StaleError
from chashka.app.store import Store
from chashka.app.store.schema import TABLES
from store_jobs import BROKEN, LONG, OVER, new_job, new_picture

LIMIT = 6
OWNERS = strategies.sampled_from(["anna", "boris", "vera"])


@dataclass
class Known:
    """What the model knows of a job."""

    id: str
    owner: str
    state: str = "queued"
    fence: int = 0
    attempts: int = 0
    stop: str = ""
    over: bool = False
    pictures: dict[int, str] = field(default_factory=dict)


class QueueMachine(RuleBasedStateMachine):
    """Subclasses set ``store``."""

    store: Store
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        with self.store.database.write() as connection:
            for table in reversed(TABLES.sorted_tables):
                connection.execute(delete(table))
        self.jobs: dict[str, Known] = {}
        self.queue: list[str] = []  # ids, in the order of their places
        self.last: dict[str, float] = {}  # owner → time of the last claim
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}  # (owner, key) → (id, body)

    @initialize()
    def begin(self) -> None:
        assert self.store.jobs.list() == []

    # --- those who ask

    @rule(owner=OWNERS, key=strategies.sampled_from([None, "a", "b"]), body=strategies.sampled_from(["1", "2"]))
    def submit(self, owner: str, key: str | None, body: str) -> None:
        new = new_job(owner, key=key, body=body)
        known = self.keys.get((owner, key)) if key else None
        if known and known[1] != body:
            with pytest.raises(KeyReusedError):
                self.store.jobs.submit(new, LIMIT)
        elif known:
            job, fresh = self.store.jobs.submit(new, LIMIT)
            assert (job.id, fresh) == (known[0], False)
        elif len(self.queue) >= LIMIT:
            with pytest.raises(QueueFullError):
                self.store.jobs.submit(new, LIMIT)
        else:
            job, fresh = self.store.jobs.submit(new, LIMIT)
            assert (job.id, fresh) == (new.id, True)
            self.jobs[new.id] = Known(new.id, owner)
            self.queue.append(new.id)
            if key:
                self.keys[owner, key] = (new.id, body)

    @rule(which=strategies.integers(0, 50), how=strategies.sampled_from(["now", "after"]))
    def cancel(self, which: int, how: str) -> None:
        if not self.jobs:
            return
        known = list(self.jobs.values())[which % len(self.jobs)]
        self.store.jobs.cancel(known.id, how)
        if known.state == "queued":
            self.end(known, "canceled")
        elif known.state == "running" and known.stop != "now":
            known.stop = how

    @rule(which=strategies.integers(0, 50), before=strategies.none() | strategies.integers(0, 50))
    def move(self, which: int, before: int | None) -> None:
        if not self.queue:
            return
        id = self.queue[which % len(self.queue)]
        other = None if before is None else self.queue[before % len(self.queue)]
        self.store.jobs.move(id, other)
        if id != other:
            self.queue.remove(id)
            self.queue.insert(len(self.queue) if other is None else self.queue.index(other), id)

    # --- workers

    @rule(target=held, over=strategies.booleans())
    def claim(self, over: bool) -> Any:
        expected = {id: self.store.jobs.position(id) for id in self.queue}
        job = self.store.jobs.claim("w", OVER if over else LONG)
        if not self.queue:
            assert job is None
            return multiple()
        assert job is not None
        known = self.jobs[job.id]
        turns = {owner: self.last.get(owner, 0.0) for owner in (self.jobs[id].owner for id in self.queue)}
        assert turns[known.owner] == min(turns.values())
        assert job.id == next(id for id in self.queue if self.jobs[id].owner == known.owner)
        assert expected[job.id] == 0
        assert sorted(expected.values()) == list(range(len(self.queue)))  # type: ignore[type-var]
        assert job.started is not None
        self.last[known.owner] = job.started
        self.queue.remove(job.id)
        known.state, known.over = "running", over
        known.fence += 1
        known.attempts += 1
        return job

    def holds(self, job: Job) -> Known | None:
        known = self.jobs[job.id]
        return known if known.state == "running" and known.fence == job.fence else None

    @rule(job=held)
    def renew(self, job: Job) -> None:
        known = self.holds(job)
        if known is None:
            with pytest.raises(StaleError):
                self.store.jobs.renew(job.id, job.fence, LONG, 1, 2)
        else:
            assert self.store.jobs.renew(job.id, job.fence, LONG, 1, 2) == known.stop
            known.over = False

    @rule(job=held, index=strategies.integers(0, 2))
    def publish(self, job: Job, index: int) -> None:
        known = self.holds(job)
        if known is None or known.stop == "now":
            with pytest.raises(StaleError):
                self.store.jobs.publish(job.id, job.fence, new_picture(index))
        else:
            id = self.store.jobs.publish(job.id, job.fence, new_picture(index))
            assert known.pictures.setdefault(index, id) == id

    @rule(job=consumes(held), state=strategies.sampled_from(sorted(ENDED)))
    def finish(self, job: Job, state: str) -> None:
        known = self.holds(job)
        if known is None:
            with pytest.raises(StaleError):
                self.store.jobs.finish(job.id, job.fence, state)
        else:
            assert self.store.jobs.finish(job.id, job.fence, state).state == state
            self.end(known, state)

    @rule(job=held)
    def release(self, job: Job) -> None:
        known = self.holds(job)
        if known is None:
            with pytest.raises(StaleError):
                self.store.jobs.release(job.id, job.fence)
        else:
            known.attempts -= 1
            self.left(known, self.store.jobs.release(job.id, job.fence), costs=False)

    @rule(job=held)
    def fail_attempt(self, job: Job) -> None:
        known = self.holds(job)
        if known is None:
            with pytest.raises(StaleError):
                self.store.jobs.fail_attempt(job.id, job.fence, BROKEN)
        else:
            self.left(known, self.store.jobs.fail_attempt(job.id, job.fence, BROKEN))

    @rule()
    def expire(self) -> None:
        over = {id for id, known in self.jobs.items() if known.state == "running" and known.over}
        found = self.store.jobs.expire()
        assert {job.id for job in found} == over
        for job in found:
            self.left(self.jobs[job.id], job)

    @rule()
    def owner_starts_again(self) -> None:
        running = {id for id, known in self.jobs.items() if known.state == "running"}
        found = self.store.jobs.requeue_all_running()
        assert {job.id for job in found} == running
        for job in found:
            self.left(self.jobs[job.id], job)

    def left(self, known: Known, job: Job, costs: bool = True) -> None:
        """An attempt ended without an end: back to its old place in the queue, unless it was the last or unwanted."""
        state = "failed" if costs and known.attempts >= ATTEMPTS else "canceled" if known.stop else "queued"
        assert (job.id, job.state, job.attempts) == (known.id, state, known.attempts)
        known.state = state
        if state == "queued":
            self.queue = [id for id in self.by_place() if id in self.queue or id == known.id]

    def by_place(self) -> list[str]:
        """The queue as the database orders it; what is checked of it is that others did not change their order."""
        jobs = TABLES.tables["jobs"]
        with self.store.database.read() as connection:
            rows = connection.execute(
                jobs.select().where(jobs.c.state == "queued").order_by(jobs.c.place, jobs.c.id)
            ).all()
        found = [row.id for row in rows]
        assert [id for id in found if id in self.queue] == self.queue
        return found

    def end(self, known: Known, state: str) -> None:
        if known.state == "queued":
            self.queue.remove(known.id)
        known.state = state

    # --- always

    @invariant()
    def they_agree(self) -> None:
        found = {job.id: job for job in self.store.jobs.list(limit=1000)}
        assert found.keys() == self.jobs.keys()
        for id, known in self.jobs.items():
            job = found[id]
            assert (job.state, job.fence, job.attempts, job.stop) == (
                known.state,
                known.fence,
                known.attempts,
                known.stop,
            )
            assert (job.finished is not None) == (job.state in ENDED) == job.ended
        counts = dict.fromkeys(("queued", "running", "done", "failed", "canceled"), 0)
        for known in self.jobs.values():
            counts[known.state] += 1
        assert self.store.jobs.counts() == counts

    @invariant()
    def pictures_agree(self) -> None:
        published = {id for known in self.jobs.values() for id in known.pictures.values()}
        assert {picture.id for picture in self.store.pictures.search(limit=200)} == published


def thoroughness(examples: int, steps: int) -> settings:
    """The same examples every time: what fails in one run fails in the next. A failure is not made smaller, which takes long."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
