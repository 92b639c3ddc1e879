"""The worker on a real store: what it publishes, what it does with jobs that fail, are stopped, lost or given back."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import stub_kinds

from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.runner import DiedError, Event, Stop, Task
from chashka.app.compute.worker import Worker
from chashka.app.events import Happening, Hub
from chashka.app.ids import new_id
from chashka.app.jobs import Job, NewJob, Problem
from chashka.app.keeping.blobs import Blobs, StorageFullError
from chashka.app.settings import Settings
from chashka.app.store import Store


@dataclass
class Place:
    """A store, its blobs and a hub; workers are made as they are needed."""

    settings: Settings
    store: Store
    blobs: Blobs
    hub: Hub
    workers: list[Worker]

    def worker(self, runner: Any = None, **options: Any) -> Worker:
        made = Worker(
            self.store,
            self.blobs,
            runner or InProcess(Models(self.settings), "stub_kinds"),
            self.hub,
            self.settings,
            **options,
        )
        made.start()
        self.workers.append(made)
        return made

    def submit(self, **fields: Any) -> str:
        job, _ = self.store.jobs.submit(NewJob(new_id("job"), "draw", "me", fields), 10_000)
        self.hub.wake()
        return job.id

    def job(self, id: str) -> Job:
        job = self.store.jobs.get(id)
        assert job is not None
        return job

    def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come about"
            time.sleep(0.005)

    def ended(self, id: str) -> Job:
        self.until(lambda: self.job(id).ended)
        return self.job(id)

    def pictures(self, id: str) -> list[int]:
        return [picture.new.index for picture in self.store.pictures.of_job(id)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    settings = Settings(data=tmp_path, memory=8_000_000_000)
    made = Place(settings, Store.open(settings), Blobs(tmp_path / "blobs"), Hub(), [])
    yield made
    for worker in made.workers:
        worker.drain(5.0)
    made.store.close()


def test_a_job_from_start_to_end(place: Place) -> None:
    id = place.submit(n=3, steps=4, text="чашка")
    place.worker()
    job = place.ended(id)
    assert (job.state, job.problem, job.notes, job.attempts) == ("done", None, ("a remark",), 1)
    assert job.result is not None and job.result["skipped"] == 0
    for picture in place.store.pictures.of_job(id):
        data = place.blobs.read(picture.new.sha256)
        assert hashlib.sha256(data).hexdigest() == picture.new.sha256
        assert data == stub_kinds.made("чашка", picture.new.index).data
        assert place.blobs.read(picture.new.thumbnail) == stub_kinds.made("чашка", picture.new.index).thumbnail
    assert place.pictures(id) == [0, 1, 2]
    told = [(one.name, one.data.get("state")) for one in place.hub.newest(id)]
    assert told == [("picture", None)] * 3 + [("state", "done")]


def test_everything_is_told_as_it_happens(place: Place) -> None:
    id = place.submit(n=2, steps=3, pause=0.02)

    async def listen() -> list[Happening]:
        listening = asyncio.ensure_future(_all(place.hub, id))
        await asyncio.sleep(0.01)
        place.worker()
        return await asyncio.wait_for(listening, 20)

    found = asyncio.run(listen())
    assert [one.data["state"] for one in found if one.name == "state"] == ["running", "done"]
    assert {one.name for one in found} == {"state", "progress", "preview", "picture"}
    assert [one.data["index"] for one in found if one.name == "picture"] == [0, 1]
    assert found[-1].data["notes"] == ["a remark"]


async def _all(hub: Hub, id: str) -> list[Happening]:
    return [one async for one in hub.listen(id)]


def test_progress_is_in_the_store_while_it_draws(place: Place) -> None:
    id = place.submit(steps=40, pause=0.05)
    place.worker()
    place.until(lambda: place.job(id).done > 2)
    assert place.job(id).total == 40 and place.job(id).state == "running"


@pytest.mark.parametrize(("do", "code"), [("impossible", "input"), ("bug", "internal")])
def test_what_cannot_be_done_fails_at_once(place: Place, do: str, code: str) -> None:
    bad, good = place.submit(do=do), place.submit()
    place.worker()
    job = place.ended(bad)
    assert job.state == "failed" and job.attempts == 1 and job.problem is not None and job.problem.code == code
    assert place.ended(good).state == "done"


@pytest.mark.parametrize(("do", "attempts"), [("memory once", 2), ("memory twice", 3)])
def test_memory_that_ran_out_makes_every_attempt_more_cautious(place: Place, do: str, attempts: int) -> None:
    id = place.submit(do=do)
    place.worker(_Dying())
    job = place.ended(id)
    assert (job.state, job.attempts) == ("done", attempts) and job.result is not None
    assert job.result["cautious"] == attempts - 1


class _Dying:
    """In this process, but memory that ran out is a death, as kinds.run has it."""

    slots = 1

    def run(self, task: Task, stop: Stop) -> Iterator[Event]:
        try:
            yield from stub_kinds.run(task, None, stop)
        except MemoryError as error:
            raise DiedError(Problem("out_of_memory", "memory ran out")) from error

    def close(self) -> None:
        """Nothing is held."""


def test_a_job_that_always_kills_fails_after_three(place: Place) -> None:
    bad, good = place.submit(do="memory"), place.submit()
    place.worker(_Dying())
    job = place.ended(bad)
    assert (job.state, job.attempts) == ("failed", 3) and job.problem is not None
    assert job.problem.code == "out_of_memory"
    assert place.ended(good).state == "done"


def test_a_second_attempt_draws_what_is_missing(place: Place) -> None:
    id = place.submit(n=3)
    job = place.store.jobs.claim("another", 30.0)
    assert job is not None
    first = stub_kinds.made(id, 1)
    place.blobs.put(first.data)
    place.blobs.put(first.thumbnail)
    picture = place.store.jobs.publish(id, job.fence, first.picture)
    place.store.jobs.requeue_all_running()
    place.worker()
    ended = place.ended(id)
    assert ended.state == "done" and ended.result is not None and ended.result["skipped"] == 1
    assert place.pictures(id) == [0, 1, 2]
    assert place.store.pictures.of_job(id)[1].id == picture


@pytest.mark.parametrize(("how", "state", "pictures"), [("now", "canceled", 0), ("after", "done", 1)])
def test_stopping(place: Place, how: str, state: str, pictures: int) -> None:
    id = place.submit(n=5, steps=20, pause=0.05)
    place.worker()
    place.until(lambda: any(one.name == "progress" for one in place.hub.newest(id)))
    place.store.jobs.cancel(id, how)
    job = place.ended(id)
    assert (job.state, len(place.pictures(id))) == (state, pictures)
    assert 0 < job.done < job.total == 100
    assert ("stopped on request" in " ".join(job.notes)) is (how == "after")


def test_nothing_of_a_canceled_job_is_published(place: Place) -> None:
    """Canceled between the last step and the publication."""
    id = place.submit(n=1)
    made = threading.Event()

    class Late(_Dying):
        def run(self, task: Task, stop: Stop) -> Iterator[Event]:
            yield from list(stub_kinds.run(task, None, lambda: ""))[:-1]
            made.set()

        def close(self) -> None:
            made.set()

    put, place.blobs.put = place.blobs.put, lambda data: (place.store.jobs.cancel(id, "now"), put(data))[1]  # type: ignore[method-assign]
    place.worker(Late())
    assert place.ended(id).state == "canceled"
    assert place.pictures(id) == []


def test_a_worker_that_lost_its_job_drops_it(place: Place) -> None:
    id = place.submit(steps=100, pause=0.02)
    place.worker()
    place.until(lambda: place.job(id).done > 0)
    place.store.jobs.requeue_all_running()  # as if its lease were over
    place.until(lambda: place.job(id).fence == 2)  # it is free again soon, and takes the job anew
    assert place.ended(id).state == "done"
    assert place.pictures(id) == [0] and place.job(id).attempts == 2


def test_leases_are_renewed_while_nothing_is_said(place: Place) -> None:
    id = place.submit(steps=1, pause=2.0)
    place.worker(lease=0.8)
    other = threading.Thread(target=lambda: [(time.sleep(0.2), place.store.jobs.expire()) for _ in range(9)])
    other.start()
    job = place.ended(id)
    other.join()
    assert (job.state, job.attempts, job.fence) == ("done", 1, 1)


def test_a_silent_runner_is_not_renewed_for_ever(place: Place) -> None:
    place.settings = replace(place.settings, hang=0.3)
    id = place.submit(steps=1, pause=3.0)
    place.worker(lease=0.5)
    place.until(lambda: bool(place.store.jobs.expire()) or place.job(id).state == "queued", 5.0)


def test_a_full_disk_loses_nothing(place: Place) -> None:
    put, room = place.blobs.put, threading.Event()

    def full(data: bytes) -> str:
        if not room.is_set():
            raise StorageFullError("the disk is full")
        return put(data)

    place.blobs.put = full  # type: ignore[method-assign]
    id = place.submit(n=2)
    place.worker(lease=1.0)
    time.sleep(2.5)
    assert place.job(id).state == "running" and place.job(id).attempts == 1
    room.set()
    begun = time.monotonic()
    assert place.ended(id).state == "done" and time.monotonic() - begun < 5
    assert place.pictures(id) == [0, 1]


def test_a_job_that_waits_for_room_can_be_canceled(place: Place) -> None:
    def full(data: bytes) -> str:
        raise StorageFullError("the disk is full")

    place.blobs.put = full  # type: ignore[method-assign]
    id = place.submit()
    place.worker()
    time.sleep(0.2)
    place.store.jobs.cancel(id, "now")
    assert place.ended(id).state == "canceled"


def test_draining_lets_jobs_finish(place: Place) -> None:
    first, second = place.submit(steps=10, pause=0.03), place.submit()
    worker = place.worker()
    place.until(lambda: place.job(first).state == "running")
    assert worker.drain(20.0)
    assert place.job(first).state == "done" and place.job(second).state == "queued"


def test_draining_gives_back_what_takes_too_long(place: Place) -> None:
    id = place.submit(n=2, steps=30, pause=0.02)
    worker = place.worker()
    place.until(lambda: place.pictures(id) == [0])
    begun = time.monotonic()
    assert worker.drain(0.3)
    assert time.monotonic() - begun < 3
    job = place.job(id)
    assert (job.state, job.attempts, place.pictures(id)) == ("queued", 0, [0])
    place.worker()
    assert place.ended(id).state == "done" and place.pictures(id) == [0, 1]


def test_slots_are_added_once_more_are_worth_it(place: Place) -> None:
    """What the computing process finds out with its first job holds for those that follow."""
    worker = place.worker()
    first = place.submit(do="room")
    assert place.ended(first).state == "done"
    ids = [place.submit(steps=10, pause=0.05) for _ in range(6)]
    place.until(lambda: len(worker.working) == 3)
    assert all(place.ended(id).state == "done" for id in ids)


def test_slots_draw_side_by_side(place: Place) -> None:
    place.settings = replace(place.settings, slots=3)
    ids = [place.submit(steps=10, pause=0.05) for _ in range(6)]
    begun = time.monotonic()
    worker = place.worker()
    place.until(lambda: len(worker.working) == 3)
    assert all(place.ended(id).state == "done" for id in ids)
    assert time.monotonic() - begun < 2.5  # one after the other: 3 s


def test_a_database_that_is_away_stops_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    claim, calls = place.store.jobs.claim, []

    def away(*given: Any, **more: Any) -> Job | None:
        calls.append(given)
        if len(calls) < 2:
            raise ConnectionError("the database is away")
        return claim(*given, **more)

    place.store.jobs.claim = away  # type: ignore[method-assign]
    id = place.submit()
    place.worker()
    assert place.ended(id).state == "done"
    assert "it tries again" in caplog.text
