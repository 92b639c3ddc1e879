"""Jobs and pictures for tests of the store, and processes that work on them until somebody kills them."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from chashka.app.ids import new_id
from chashka.app.jobs import Job, NewJob, NewPicture, Problem, QueueFullError, StaleError
from chashka.app.keeping.blobs import Blobs
from chashka.app.store import Store
from chashka.app.store.database import UnavailableError

LONG = 60.0
OVER = -1.0
"""A lease that is over when it begins."""
BROKEN = Problem("worker_died", "сломалось")


def new_job(owner: str = "anna", **said: object) -> NewJob:
    values: dict[str, object] = {"id": new_id("job"), "kind": "draw", "fields": {"prompt": "чашка"}}
    return NewJob(owner=owner, **(values | said))  # type: ignore[arg-type]


def new_picture(index: int = 0, **said: object) -> NewPicture:
    values: dict[str, object] = {"sha256": f"{index:064x}", "thumbnail": f"{index + 1000:064x}", "bytes": 10, "seed": 7}
    values |= {"media_type": "image/png", "width": 8, "height": 8, "dhash": "0" * 16, "prompt": "Чашка на столе"}
    return NewPicture(index=index, **(values | said))  # type: ignore[arg-type]


def submit(store: Store, owner: str = "anna", limit: int = 1000, **said: object) -> Job:
    return store.jobs.submit(new_job(owner, **said), limit)[0]


def claim(store: Store, lease: float = LONG) -> Job:
    job = store.jobs.claim("worker", lease)
    assert job is not None
    return job


def bytes_of(job: Job, index: int) -> bytes:
    """The file that a job's picture always is: what a seed is for."""
    return random.Random(f"{job.id} {index}").randbytes(3000)


def draw(store: Store, blobs: Blobs, job: Job, pictures: int = 2, lease: float = LONG) -> None:
    """Everything that a worker does with a job it has claimed. Raises StaleError."""
    for index in range(pictures):
        data = bytes_of(job, index)
        new = new_picture(index, sha256=blobs.put(data), thumbnail=blobs.put(data[:200]), bytes=len(data))
        store.jobs.renew(job.id, job.fence, lease, index, pictures)
        store.jobs.publish(job.id, job.fence, new)
    store.jobs.finish(job.id, job.fence, "done")


def own_and_work(where: str, folder: str, accepted: str, ready: Any) -> None:
    """The owner of a SQLite database: takes back what ran, then submits and draws without end. Accepted ids go to a file."""
    store = Store.at(where)
    blobs = Blobs(folder)
    store.jobs.requeue_all_running()
    with open(accepted, "ab", buffering=0) as log:  # noqa: PTH123
        ready.set()
        while True:
            with suppress(QueueFullError):
                job, _ = store.jobs.submit(new_job(), 20)
                log.write(f"{job.id}\n".encode())
            claimed = store.jobs.claim(f"worker {os.getpid()}", LONG)
            if claimed is not None:
                draw(store, blobs, claimed)


def work(where: str, folder: str, lease: float, ready: Any) -> None:
    """One of several workers on PostgreSQL: draws without end, and takes back what others left."""
    store, blobs = _patient(where), Blobs(folder)
    ready.set()
    while True:
        with suppress(StaleError, UnavailableError):
            store.jobs.expire()
            job = store.jobs.claim(f"worker {os.getpid()}", lease)
            if job is None:
                time.sleep(0.02)
            else:
                draw(store, blobs, job, lease=lease)


def _patient(where: str) -> Store:
    """The store of a server that may be starting."""
    while True:
        with suppress(UnavailableError):
            return Store.at(where)


class Process:
    """A function in a process of its own that is killed."""

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(
        ["pytest", "chashka.app.store.migrations", "chashka.app.store"]
    )  # for a quick start

    def __init__(self, target: Callable[..., None], *given: object) -> None:
        self._ready = self._context.Event()
        self._process = self._context.Process(target=target, args=(*given, self._ready), daemon=True)
        self._process.start()

    def wait(self, seconds: float = 60.0) -> None:
        """Until it says that it works."""
        assert self._ready.wait(seconds), "the process did not begin"

    def kill(self) -> None:
        """``kill -9``; returns when it is gone."""
        self._process.kill()
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        assert code == -9, f"the process had ended by itself with {code}"


def finish_all(store: Store, blobs: Blobs) -> None:
    """Draw what is left."""
    store.jobs.requeue_all_running()
    while (job := store.jobs.claim("last", LONG)) is not None:
        draw(store, blobs, job)


def faults(store: Store, blobs: Blobs, accepted: list[str], pictures: int = 2) -> list[str]:
    """What is wrong with the jobs that were accepted: lost, drawn twice, or with files that are not whole."""
    found = []
    jobs = {job.id: job for job in store.jobs.list(limit=10**6)}
    for id in accepted:
        job = jobs.get(id)
        if job is None:
            found.append(f"{id} is lost")
        elif job.state == "failed" and job.problem is not None and job.problem.code == "worker_died":
            continue  # it happened to run at three kills: told, not lost
        elif job.state != "done":
            found.append(f"{id} is {job.state}")
        else:
            drawn = store.pictures.of_job(id)
            if [picture.new.index for picture in drawn] != list(range(pictures)):
                found.append(f"{id} has pictures {[picture.new.index for picture in drawn]}")
            for picture in drawn:
                if blobs.read(picture.new.sha256) != bytes_of(job, picture.new.index):
                    found.append(f"{picture.id} is not what was drawn")
                if not blobs.has(picture.new.thumbnail):
                    found.append(f"{picture.id} has no thumbnail")
    left = [path.name for path in Path(blobs.folder).rglob("*.part")]
    return found + [f"{name} is left over" for name in left]
