"""The queue: what may happen to a job, each as one transaction that checks the fence (docs/server.md, the contract).

Order: owners take turns. Of those who have waiting jobs, the one whose last claim is longest ago is served next, with its job of
the least ``place``; so a thousand jobs of one person delay another's first one by a single job. Times are the database's.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, Update, and_, func, insert, select, true, update

from chashka.app.ids import new_id
from chashka.app.jobs import (
    ATTEMPTS,
    CHANGES,
    Job,
    KeyReusedError,
    NewJob,
    NewPicture,
    Problem,
    QueueFullError,
    StaleError,
)
from chashka.app.store import job_rows as rows
from chashka.app.store.database import Database, storable
from chashka.app.store.pictures import insert_picture
from chashka.app.store.schema import jobs, pictures
from chashka.errors import InputError

STEP = 0.001
"""Seconds between the places of jobs that are submitted at once."""
_SUBMITTING = 0x6A6F6273  # the key of PostgreSQL's lock that makes the limit and the places exact
_INSERT = insert(jobs).returning(jobs)
_Jobs: TypeAlias = list[Job]


class JobStore:
    """The jobs of a database. Unknown ids raise InputError; a worker whose fence is not the job's any more gets StaleError."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._queue = select(database.now, func.count(), func.max(jobs.c.place)).where(jobs.c.state == "queued")

    # --- those who ask -----------------------------------------------------------------------------------------------

    def submit(self, new: NewJob, limit: int) -> tuple[Job, bool]:
        """Keep a job: on the disk when this returns. False with the job of the same owner and key, if there is one.

        Raises QueueFullError if ``limit`` jobs wait already, KeyReusedError if that job's body is another one.
        """

        def work(connection: Connection, again: bool) -> tuple[Job, bool]:
            if again and (row := rows.one(connection, new.id)):
                return rows.job(row), True
            self._alone(connection)
            if new.key is not None and (row := rows.of_key(connection, new.owner, new.key)):
                return _same(row, new.key, new.body), False
            at, waiting, last = connection.execute(self._queue).one()
            if waiting >= limit:
                raise QueueFullError(f"{waiting} jobs wait; allowed: {limit}; try again later")
            values = rows.values(new) | {"created": at, "place": at if last is None else max(at, last + STEP)}
            return rows.job(connection.execute(_INSERT, values).one()), True

        return self.database.transact(work)

    def of_key(self, owner: str, key: str, body: str | None) -> Job | None:
        """The job that ``submit`` would find for this key. Raises KeyReusedError."""
        row = self.database.fetch(lambda connection: rows.of_key(connection, owner, key))
        return None if row is None else _same(row, key, body)

    def of_body(self, owner: str, body: str, window: float) -> _Jobs:
        """What this owner began with the same body in the last ``window`` seconds, but for what failed or was canceled.

        The oldest first.
        """
        since = self.database.now - window
        return [rows.job(row) for row in self.database.fetch(lambda one: rows.of_body(one, owner, body, since))]

    def get(self, job_id: str) -> Job | None:
        """One job."""
        row = self.database.fetch(lambda connection: rows.one(connection, job_id))
        return None if row is None else rows.job(row)

    def list(
        self, owner: str | None = None, state: str | None = None, after: str | None = None, limit: int = 50
    ) -> _Jobs:
        """The newest first, from behind the job ``after`` on. Raises InputError if there is no such job or state."""
        if state is not None and state not in CHANGES:
            raise InputError(f"state: {state[:40]!r} is not possible; allowed: {', '.join(CHANGES)}")
        return [
            rows.job(row)
            for row in self.database.fetch(lambda connection: rows.page(connection, owner, state, after, limit))
        ]

    def counts(self) -> dict[str, int]:
        """How many jobs there are, by state."""
        statement = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        found = self.database.fetch(lambda connection: connection.execute(statement).all())
        return dict.fromkeys(CHANGES, 0) | {row[0]: row[1] for row in found}

    def position(self, job_id: str) -> int | None:
        """How many jobs are drawn before this one if nothing else comes, 0 for the next; None if it does not wait."""
        return self.database.fetch(lambda connection: rows.position(connection, job_id))

    def throughput(self, window: float = 600.0) -> float:
        """Jobs that ended in a second, of the last ``window`` seconds (or since the first of these was begun); 0: none."""
        now = self.database.now
        statement = select(func.count(), func.min(jobs.c.started), now).where(
            jobs.c.finished > now - window, jobs.c.started.is_not(None)
        )
        number, first, at = self.database.fetch(lambda connection: connection.execute(statement).one())
        return number / max(min(window, at - first), 0.001) if number else 0.0

    def cancel(self, job_id: str, how: str = "now") -> Job:
        """A waiting job is canceled; a running one's worker is asked to stop, "now" or "after" the pictures it draws.

        "now" is not taken back by "after"; a job that has ended stays as it is.
        """
        if how not in ("now", "after"):
            raise InputError(f"how: {how[:40]!r} is not possible; allowed: now, after")

        def work(connection: Connection, _: bool) -> Job:
            row = rows.locked(connection, job_id)
            if row.state == "queued":
                return rows.change(connection, job_id, state="canceled", finished=self.database.now)
            if row.state == "running" and row.stop != "now":
                return rows.change(connection, job_id, stop=how)
            return rows.job(row)

        return self.database.transact(work)

    def move(self, job_id: str, before: str | None) -> Job:
        """Put a waiting job before another one, or behind all. Raises InputError if one of them does not wait.

        The places of the queue stay the same; whose job has which changes.
        """

        def work(connection: Connection, _: bool) -> Job:
            self._alone(connection)
            waiting = select(jobs.c.id, jobs.c.place).where(jobs.c.state == "queued").with_for_update()
            found = connection.execute(waiting.order_by(jobs.c.place, jobs.c.id)).all()
            order = [row.id for row in found]
            for one in (job_id, before):
                if one is not None and one not in order:
                    raise InputError(f"job {one[:60]!r} does not wait; only jobs that wait can be moved")
            if job_id != before:
                order.remove(job_id)
                order.insert(len(order) if before is None else order.index(before), job_id)
            place = float("-inf")
            for row, one in zip(found, order, strict=True):
                place = max(row.place, place + STEP)
                if (one, place) != (row.id, row.place):
                    connection.execute(update(jobs).where(jobs.c.id == one).values(place=place))
            return rows.job(rows.locked(connection, job_id))

        return self.database.transact(work)

    # --- workers -----------------------------------------------------------------------------------------------------

    def claim(self, worker: str, lease: float, kinds: Collection[str] | None = None) -> Job | None:
        """The next job, for ``lease`` seconds; None if nothing waits. Its ``problem`` is the last attempt's."""
        mark = f"{storable(worker)[:60]}/{secrets.token_hex(6)}"  # of this call, so that it can be asked for again
        ready = and_(jobs.c.state == "queued", true() if kinds is None else jobs.c.kind.in_(list(kinds)))

        def work(connection: Connection, again: bool) -> Job | None:
            if again:
                mine = select(jobs).where(jobs.c.state == "running", jobs.c.worker == mark)
                if row := connection.execute(mine).first():
                    return rows.job(row)
            for turn in connection.execute(rows.turns(ready)).all():
                first = select(jobs.c.id).where(ready, jobs.c.owner == turn.owner).order_by(jobs.c.place, jobs.c.id)
                found = connection.execute(first.limit(1).with_for_update(skip_locked=True)).scalar()
                if found is not None:
                    now = self.database.now
                    return rows.change(
                        connection,
                        found,
                        state="running",
                        started=now,
                        lease_until=now + lease,
                        worker=mark,
                        fence=jobs.c.fence + 1,
                        attempts=jobs.c.attempts + 1,
                        done=0,
                    )
            return None

        return self.database.transact(work)

    def renew(self, job_id: str, fence: int, lease: float, done: int, total: int) -> str:
        """Keep a job for ``lease`` seconds more and say how far it is; what the worker is asked: see ``jobs.STOPS``."""
        change = _held(job_id, fence).values(lease_until=self.database.now + lease, done=done, total=total)

        def work(connection: Connection, _: bool) -> str:
            stop = connection.execute(change.returning(jobs.c.stop)).scalar()
            if stop is None:
                raise _stale(job_id, fence)
            return str(stop)

        return self.database.transact(work)

    def publish(self, job_id: str, fence: int, new: NewPicture) -> str:
        """Put a picture, whose files are kept, into the gallery; its id. The same number again gives the first one's id.

        Raises StaleError, also once the job was asked to stop "now".
        """

        picture = new_id("pic")

        def work(connection: Connection, _: bool) -> str:
            row = self._running(connection, job_id, fence)
            if row.stop == "now":
                raise StaleError(f"{job_id} was asked to stop; nothing of it is published any more")
            there = select(pictures.c.id).where(pictures.c.job == job_id, pictures.c.index == new.index)
            if found := connection.execute(there).scalar():
                return str(found)
            insert_picture(connection, self.database, picture, new, row.owner, job_id, row.parents)
            return picture

        return self.database.transact(work)

    def finish(
        self,
        job_id: str,
        fence: int,
        state: str,
        problem: Problem | None = None,
        notes: Sequence[str] = (),
        result: dict[str, Any] | None = None,
        progress: tuple[int, int] | None = None,
    ) -> Job:
        """End a job that one holds: "done", "failed" or "canceled". progress: (done, total) as it was last, if it was told."""
        if state not in CHANGES["running"] or CHANGES[state]:
            raise InputError(f"state: {state[:40]!r} is no end; allowed: done, failed, canceled")
        values = rows.problem(problem) | {"state": state, "notes": list(notes), "result": result, "lease_until": None}
        if progress is not None:
            values |= {"done": progress[0], "total": progress[1]}

        def work(connection: Connection, again: bool) -> Job:
            row = self._running(connection, job_id, fence, state if again else None)
            if row.state != "running":
                return rows.job(row)
            return rows.change(connection, job_id, finished=self.database.now, **values)

        return self.database.transact(work)

    def release(self, job_id: str, fence: int) -> Job:
        """Give a job back that the worker has to leave; the attempt does not count."""

        def work(connection: Connection, again: bool) -> Job:
            row = self._running(connection, job_id, fence, "queued" if again else None)
            return rows.job(row) if row.state != "running" else self._left(connection, row, None)

        return self.database.transact(work)

    def fail_attempt(self, job_id: str, fence: int, problem: Problem) -> Job:
        """The attempt came to nothing: the job waits again, or has failed if it was the last one."""

        def work(connection: Connection, again: bool) -> Job:
            row = self._running(connection, job_id, fence, *(("queued", "failed") if again else ()))
            return rows.job(row) if row.state != "running" else self._left(connection, row, problem)

        return self.database.transact(work)

    def expire(self) -> _Jobs:
        """Take back jobs whose lease is over, as ``fail_attempt`` with ``worker_died``; these jobs as they are now."""
        return self._take_back(jobs.c.lease_until < self.database.now)

    def requeue_all_running(self) -> _Jobs:
        """The same for every running job: for the owner of the whole database as it starts, when nobody can be drawing."""
        return self._take_back(true())

    # --- within a transaction ----------------------------------------------------------------------------------------

    def _take_back(self, condition: ColumnElement[bool]) -> _Jobs:
        over = select(jobs).where(jobs.c.state == "running", condition).with_for_update(skip_locked=True)

        def work(connection: Connection, _: bool) -> _Jobs:
            return [self._left(connection, row, _died(row.attempts)) for row in connection.execute(over).all()]

        return self.database.transact(work)

    def _left(self, connection: Connection, row: Row[Any], problem: Problem | None) -> Job:
        """Where a job goes whose attempt has ended without an end of the job. problem None: the attempt does not count."""
        values: dict[str, Any] = {"state": "queued", "lease_until": None, "worker": None}
        if problem is None:
            values |= {"attempts": jobs.c.attempts - 1}
        elif row.attempts >= ATTEMPTS:
            values |= rows.problem(problem) | {"state": "failed", "finished": self.database.now}
        else:
            values |= rows.problem(problem)
        if row.stop and values["state"] == "queued":
            values |= rows.problem(None) | {"state": "canceled", "finished": self.database.now}
        return rows.change(connection, row.id, **values)

    def _running(self, connection: Connection, job_id: str, fence: int, *or_already: str | None) -> Row[Any]:
        """The row of a job that one holds, locked. or_already: states that a first try of the same may have left it in."""
        row = rows.held(connection, job_id)
        if row is None or row.fence != fence or row.state not in ("running", *or_already):
            raise _stale(job_id, fence)
        return row

    def _alone(self, connection: Connection) -> None:
        """Nobody else submits or moves until this transaction ends; SQLite writes one at a time anyway."""
        if self.database.kind == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_SUBMITTING)))


def _held(job_id: str, fence: int) -> Update:
    return update(jobs).where(jobs.c.id == job_id, jobs.c.fence == fence, jobs.c.state == "running")


def _stale(job_id: str, fence: int) -> StaleError:
    return StaleError(f"{job_id} is not held with fence {fence} any more")


def _same(row: Row[Any], key: str, body: str | None) -> Job:
    """The job of the key, if what was sent is the same."""
    if row.body != body:
        raise KeyReusedError(f"the Idempotency-Key {key[:60]!r} was used for another request; use a new one")
    return rows.job(row)


def _died(attempts: int) -> Problem:
    return Problem("worker_died", f"what drew it ended without a result, at attempt {attempts} of {ATTEMPTS}")
