"""Rows of jobs as :class:`Job`, and what is asked of them within a transaction; ``jobs.py`` says what may happen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, bindparam, exists, func, or_, select, update

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


_ONE = select(jobs).where(jobs.c.id == bindparam("id"))
_LOCKED = _ONE.with_for_update()
"""Made once, like the others below: to build a statement takes longer than to run it."""


def one(connection: Connection, job_id: str) -> Row[Any] | None:
    """The row of a job as it is seen now."""
    return connection.execute(_ONE, {"id": job_id}).first()


def held(connection: Connection, job_id: str) -> Row[Any] | None:
    """The row of a job that nobody else changes until the transaction ends; None if there is none."""
    return connection.execute(_LOCKED, {"id": job_id}).first()


def locked(connection: Connection, job_id: str) -> Row[Any]:
    """The same. Raises InputError if there is none."""
    row = held(connection, job_id)
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


def of_key(connection: Connection, owner: str, key: str) -> Row[Any] | None:
    """The job that came before with this owner and Idempotency-Key."""
    return connection.execute(select(jobs).where(jobs.c.owner == owner, jobs.c.key == key)).first()


def of_body(connection: Connection, owner: str, body: str, since: ColumnElement[float]) -> list[Row[Any]]:
    """Jobs of what this owner sent, but for those that came to nothing, the oldest first."""
    sent = and_(jobs.c.owner == owner, jobs.c.created > since, jobs.c.body == body)
    good = jobs.c.state.not_in(("failed", "canceled"))
    return list(connection.execute(select(jobs).where(sent, good).order_by(jobs.c.created, jobs.c.id)).all())


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
_MINE = jobs.alias("mine")
_BEFORE = or_(jobs.c.place < _MINE.c.place, and_(jobs.c.place == _MINE.c.place, jobs.c.id < _MINE.c.id))
_PLACE = select(
    _MINE.c.owner,
    select(func.count()).where(_QUEUED, jobs.c.owner == _MINE.c.owner, _BEFORE).scalar_subquery().label("own"),
    or_(
        exists().where(_QUEUED, jobs.c.owner < _MINE.c.owner),
        exists().where(_QUEUED, jobs.c.owner > _MINE.c.owner),
    ).label("others"),
).where(_MINE.c.id == bindparam("id"), _MINE.c.state == "queued")
"""Two looks into an index say whether somebody else waits."""


def position(connection: Connection, job_id: str) -> int | None:
    """Owners take turns, so of each other owner as many go first as of one's own, and one more if its turn is before."""
    mine = connection.execute(_PLACE, {"id": job_id}).first()
    if mine is None or not mine.others:
        return None if mine is None else int(mine.own)
    before, seen = mine.own, False
    for turn in connection.execute(_TURNS).all():
        if turn.owner == mine.owner:
            seen = True
        else:
            before += min(turn.waiting, mine.own + (0 if seen else 1))
    return int(before)
