"""Rows of jobs as :class:`Job`, and what is asked of them within a transaction; ``jobs.py`` says what may happen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, func, or_, select, update

from chashka.app.jobs import Job, NewJob, Problem
from chashka.app.store.database import storable
from chashka.app.store.schema import jobs
from chashka.errors import InputError


def values(new: NewJob) -> dict[str, Any]:
    """What a new job's row says, but for its times and its place."""
    return {
        "id": new.id,
        "kind": new.kind,
        "owner": new.owner,
        "state": "queued",
        "fields": dict(new.fields),
        "inputs": dict(new.inputs),
        "parents": dict(new.parents),
        "consent": new.consent,
        "key": new.key,
        "body": new.body,
    }


def job(row: Row[Any]) -> Job:
    """The job of a row. worker: without the sign of its claim, see ``JobStore.claim``."""
    return Job(
        id=row.id,
        kind=row.kind,
        owner=row.owner,
        state=row.state,
        fields=row.fields,
        inputs=row.inputs,
        parents=row.parents,
        created=row.created,
        started=row.started,
        finished=row.finished,
        attempts=row.attempts,
        fence=row.fence,
        lease_until=row.lease_until,
        worker=None if row.worker is None else row.worker.rpartition("/")[0],
        done=row.done,
        total=row.total,
        stop=row.stop,
        problem=None if row.problem_code is None else Problem(row.problem_code, row.problem),
        notes=tuple(row.notes),
        result=row.result,
        consent=row.consent,
    )


def one(connection: Connection, job_id: str) -> Row[Any] | None:
    """The row of a job as it is seen now."""
    return connection.execute(select(jobs).where(jobs.c.id == job_id)).first()


def locked(connection: Connection, job_id: str) -> Row[Any]:
    """The row of a job that nobody else changes until the transaction ends. Raises InputError if there is none."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id).with_for_update()).first()
    if row is None:
        raise InputError(f"there is no job {job_id[:60]!r}")
    return row


def change(connection: Connection, job_id: str, **values: Any) -> Job:
    """Change one job and return it."""
    return job(connection.execute(update(jobs).where(jobs.c.id == job_id).values(values).returning(jobs)).one())


def problem(problem: Problem | None) -> dict[str, Any]:
    """A problem, or none, as columns."""
    if problem is None:
        return {"problem_code": None, "problem": None}
    return {"problem_code": problem.code, "problem": storable(problem.message)}


def of_key(connection: Connection, new: NewJob) -> Row[Any] | None:
    """The job that came before with this owner and Idempotency-Key."""
    return connection.execute(select(jobs).where(jobs.c.owner == new.owner, jobs.c.key == new.key)).first()


def page(connection: Connection, owner: str | None, state: str | None, after: str | None, limit: int) -> list[Row[Any]]:
    """Rows of a list, in the order of an index whatever is asked for."""
    statement = select(jobs)
    if owner is not None:
        statement = statement.where(jobs.c.owner == owner)
    if state is not None:
        statement = statement.where(jobs.c.state == state)
    if after is not None:
        last = one(connection, after)
        if last is None:
            raise InputError(f"after: there is no job {after[:60]!r}")
        earlier = and_(jobs.c.created == last.created, jobs.c.id < last.id)
        statement = statement.where(jobs.c.created <= last.created, or_(jobs.c.created < last.created, earlier))
    return list(connection.execute(statement.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit)).all())


def turns(ready: ColumnElement[bool]) -> Select[Any]:
    """Owners who have jobs that are ready, in the order of their turns: (owner, last, first, waiting)."""
    groups = select(jobs.c.owner, func.min(jobs.c.place).label("first"), func.count().label("waiting"))
    waiting = groups.where(ready).group_by(jobs.c.owner).subquery("waiting")
    others = jobs.alias("others")
    last = select(func.max(others.c.started)).where(others.c.owner == waiting.c.owner).scalar_subquery()
    turn = func.coalesce(last, 0.0).label("last")
    return select(waiting, turn).order_by(turn, waiting.c.first, waiting.c.owner)


_QUEUED = jobs.c.state == "queued"
_TURNS = turns(_QUEUED)
_SAME_PLACE = and_(jobs.c.place == bindparam("place"), jobs.c.id < bindparam("id"))
_OWN_BEFORE = select(func.count()).where(
    _QUEUED, jobs.c.owner == bindparam("owner"), or_(jobs.c.place < bindparam("place"), _SAME_PLACE)
)
"""Made once: to build a statement takes longer than to run it."""


def position(connection: Connection, job_id: str) -> int | None:
    """Owners take turns, so of each other owner as many go first as of one's own, and one more if its turn is before."""
    row = one(connection, job_id)
    if row is None or row.state != "queued":
        return None
    own = connection.execute(_OWN_BEFORE, {"owner": row.owner, "place": row.place, "id": row.id}).scalar_one()
    before, seen = own, False
    for turn in connection.execute(_TURNS).all():
        if turn.owner == row.owner:
            seen = True
        else:
            before += min(turn.waiting, own + (0 if seen else 1))
    return int(before)
