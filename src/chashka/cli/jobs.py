"""``chashka jobs``: what a server has to do, looked at and changed from the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli import remote
from chashka.cli.numbers import Finite
from chashka.cli.opening import DATA, DATABASE, JSON, owning, reading
from chashka.cli.places import data_dir
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.app.jobs import Job
    from chashka.app.store import Store

LOOK = 0.5
"""Seconds between two looks at a job that is waited for."""


@click.group()
def jobs() -> None:
    """List jobs, look at one, cancel, stop, move, wait."""


@jobs.command("list")
@DATA
@DATABASE
@click.option("--state", help="Only those in this state: queued, running, done, failed, canceled.")
@click.option(
    "-n", "limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, the newest first."
)
@JSON
def list_jobs(data: Path | None, database: str, state: str | None, limit: int, as_json: bool) -> None:
    """List jobs, the newest first."""
    with reading(data, database) as store:
        found = store.jobs.list(state=state, limit=limit)
    if as_json:
        click.echo(json.dumps([_row(job) for job in found], ensure_ascii=False, indent=1))
        return
    for job in found:
        click.echo(_line(job))


@jobs.command("show")
@click.argument("job")
@DATA
@DATABASE
def show(job: str, data: Path | None, database: str) -> None:
    """Show JOB with its pictures, as JSON."""
    with reading(data, database) as store:
        found = _found(store, job)
        pictures = [picture.id for picture in store.pictures.of_job(job)]
    click.echo(json.dumps({**_row(found), "pictures": pictures}, ensure_ascii=False, indent=1))


@jobs.command("cancel")
@click.argument("job")
@DATA
@DATABASE
def cancel(job: str, data: Path | None, database: str) -> None:
    """End JOB now; nothing more of it is published."""
    _stop(job, "now", data, database)


@jobs.command("stop")
@click.argument("job")
@DATA
@DATABASE
def stop(job: str, data: Path | None, database: str) -> None:
    """End JOB after the pictures that are being drawn."""
    _stop(job, "after", data, database)


@jobs.command("move")
@click.argument("job")
@click.option("--before", metavar="JOB", help="The job to stand before.  [default: at the end]")
@DATA
@DATABASE
def move(job: str, before: str | None, data: Path | None, database: str) -> None:
    """Move JOB, which waits, before another one or to the end."""
    running = None if database else remote.running(data or data_dir())
    if running is not None:
        running.ask("POST", f"/v1/jobs/{_id(job)}/move", {"before": before})
    else:
        with owning(data, database) as store:
            _found(store, job)
            store.jobs.move(job, before)
    click.echo(f"{job} moved")


@jobs.command("wait")
@click.argument("job")
@click.option("--timeout", type=Finite(0), help="Seconds after which to give up.")
@DATA
@DATABASE
def wait(job: str, timeout: float | None, data: Path | None, database: str) -> int:
    """Wait until JOB has ended, and tell how; the exit code is 0 if it is done, 1 if not."""
    until = None if timeout is None else time.monotonic() + timeout
    with reading(data, database) as store:
        while not (found := _found(store, job)).ended:
            if until is not None and time.monotonic() > until:
                break
            time.sleep(LOOK)
    click.echo(_line(found))
    return 0 if found.state == "done" else 1


def _stop(job: str, how: str, data: Path | None, database: str) -> None:
    """Through the server that runs, or with the database as its owner."""
    running = None if database else remote.running(data or data_dir())
    if running is not None:
        state = running.ask("POST", f"/v1/jobs/{_id(job)}/{'cancel' if how == 'now' else 'stop'}", {})["state"]
    else:
        with owning(data, database) as store:
            _found(store, job)
            state = store.jobs.cancel(job, how).state
    click.echo(f"{job} {state}" if state != "running" else f"{job} was asked to stop")


def _found(store: Store, id: str) -> Job:
    job = store.jobs.get(_id(id))
    if job is None:
        raise InputError(f"job: there is no {id[:60]!r}; chashka jobs list shows those there are")
    return job


def _id(text: str) -> str:
    """The text, if it is an id: it becomes a part of an address."""
    from chashka.app.ids import ID

    if not ID.fullmatch(text):
        raise InputError(
            f"job: {text[:60]!r} is no id of a job; allowed: job_ and 26 letters and digits (chashka jobs list)"
        )
    return text


def _row(job: Job) -> dict[str, Any]:
    from dataclasses import asdict

    return {key: value for key, value in asdict(job).items() if key not in ("fence", "lease_until", "worker")}


def _line(job: Job) -> str:
    """One job in one line."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.created))
    steps = f" {job.done}/{job.total}" if job.state == "running" and job.total else ""
    why = f"  {job.problem.code}: {job.problem.message}" if job.problem and job.state == "failed" else ""
    prompt = " ".join(str(job.fields.get("prompt", "")).split())[:60]
    return f"{job.id}  {when}  {job.kind}  {job.state}{steps}  {prompt}{why}"
