"""P1 to P4: what is killed loses nothing, doubles nothing, spoils nothing, and goes on by itself. Real processes, really killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "app"))
import stub_kinds
from serving import HERE, Owner, Server, corrupt, report, until

from chashka.app.compute.child import Child
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.worker import LEASE, Worker
from chashka.app.events import Hub
from chashka.app.ids import new_id
from chashka.app.jobs import NewJob, StaleError
from chashka.app.keeping.blobs import Blobs
from chashka.app.settings import Settings
from chashka.app.store import Store

pytestmark = pytest.mark.promise
SERVERS, KILLS, JOBS = 3, 100, 334
"""Side by side; kills and jobs of each."""
ZOMBIES = 200
DRAWING = {"model": "kandinsky-teacup", "prompt": "чашка", "n": 1, "seed": 7, "steps": 12}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent / "app"), prepend=os.pathsep)


def fields_of(number: int) -> dict[str, Any]:
    return {"n": 1 + number % 2, "steps": 3, "pause": 0.004, "text": f"чашка {number}"}


class Massacre:
    """A server whose processes are killed at random times, always behind a sign of life; what it accepted, by key."""

    def __init__(self, data: Path, seed: int) -> None:
        self.data, self.chance = data, random.Random(seed)
        self.accepted: dict[str, str] = {}
        self.kills: Counter[str] = Counter()

    def run(self) -> None:
        owner, submitted = Owner(self.data, "stub_kinds", slots=2), 0
        while self.kills.total() < KILLS or len(self.accepted) < JOBS:
            for number in range(submitted, min(submitted + 5, JOBS)):
                owner.submit(str(number), **fields_of(number))
            submitted = min(submitted + 5, JOBS)
            if self.kills.total() < KILLS:
                seen = len(owner.said)
                if self._busy():
                    with contextlib.suppress(AssertionError):  # it had nothing to do any more
                        until(lambda owner=owner, seen=seen: _draws(owner, seen), 5.0)  # type: ignore[misc]
                time.sleep(self.chance.uniform(0.0, 0.3))
                owner = self._kill(owner, submitted)
            else:
                time.sleep(0.05)
            self._listen(owner)
        assert owner.finish() == 0
        self._listen(owner)

    def _busy(self) -> bool:
        return len(self.accepted) < JOBS

    def _listen(self, owner: Owner) -> None:
        for one in list(owner.said):
            if one["name"] == "accepted":
                self.accepted[one["key"]] = one["job"]

    def _kill(self, owner: Owner, submitted: int) -> Owner:
        child = owner.child()
        if child is not None and self.chance.random() > 0.12:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            self.kills["child"] += 1
            return owner
        owner.kill()
        self.kills["owner"] += 1
        self._listen(owner)
        owner = Owner(self.data, "stub_kinds", slots=2)
        for number in range(submitted):  # what was not acknowledged is asked for again, as clients do
            if str(number) not in self.accepted:
                owner.submit(str(number), **fields_of(number))
        return owner


def _draws(owner: Owner, seen: int) -> bool:
    return any(one["name"] == "progress" for one in owner.said[seen:])


def judged(data: Path, accepted: dict[str, str]) -> Counter[str]:
    """Let a server do what is left, and look at everything."""
    settings = Settings(data=data)
    store, blobs = Store.open(settings), Blobs(data / "blobs")
    worker = Worker(store, blobs, InProcess(Models(settings), "stub_kinds"), Hub(), settings)
    worker.start()
    until(lambda: not store.jobs.counts()["queued"] + store.jobs.counts()["running"], 180)
    worker.drain(5)
    found = Counter(jobs=sum(store.jobs.counts().values()), corrupt=corrupt(blobs))
    found["parts"] = len(list((data / "blobs").rglob("*.part")))
    for key, id in accepted.items():
        job = store.jobs.get(id)
        fields = fields_of(int(key))
        expected = [stub_kinds.made(fields["text"], i).picture.sha256 for i in range(fields["n"])]
        pictures = [picture.new.sha256 for picture in store.pictures.of_job(id)]
        found["duplicates"] += len(pictures) - len(set(pictures))
        if job is not None and job.state == "failed" and job.problem is not None and job.problem.code == "worker_died":
            found["three attempts"] += 1  # the contract's own end
            found["lost"] += job.attempts != 3 or any(one not in expected for one in pictures)
        else:
            found["lost"] += job is None or job.state != "done" or pictures != expected
    store.close()
    return found


def test_p1_p2_p3_kills_lose_nothing(tmp_path: Path) -> None:
    begun = time.monotonic()
    servers = [Massacre(tmp_path / str(i), i) for i in range(SERVERS)]
    threads = [threading.Thread(target=server.run) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sum((judged(server.data, server.accepted) for server in servers), Counter[str]())
    kills = sum((server.kills for server in servers), Counter[str]())
    jobs = SERVERS * JOBS
    assert kills.total() == SERVERS * KILLS
    assert sum(len(server.accepted) for server in servers) == jobs == found["jobs"], "a key has more than one job"
    assert (found["lost"], found["duplicates"], found["corrupt"], found["parts"]) == (0, 0, 0, 0), found
    assert found["three attempts"] <= jobs // 10
    how = f"{kills['child']}+{kills['owner']}_kills_in_{time.monotonic() - begun:.0f}_s"
    report("P1 accepted_jobs_lost", f"0_of_{jobs}_{how}_{found['three attempts']}_ended_after_3_attempts", "0")
    report("P2 duplicate_results", "0", "0")
    report("P3 corrupt_blobs_and_temporaries", "0", "0")


def test_p2_zombies_publish_nothing(tmp_path: Path) -> None:
    """Workers that slept for longer than their lease, as after SIGSTOP, and go on as if nothing had been."""
    store = Store.open(Settings(data=tmp_path))
    rejected = 0
    for number in range(ZOMBIES):
        id = new_id("job")
        store.jobs.submit(NewJob(id, "draw", "me", {}), 10)
        zombie = store.jobs.claim("zombie", -1.0)
        assert zombie is not None and [job.id for job in store.jobs.expire()] == [id]
        taken = store.jobs.claim("another", 30.0)
        assert taken is not None and taken.fence > zombie.fence
        late, right = stub_kinds.made(f"zombie {number}", 0), stub_kinds.made(f"right {number}", 0)
        if number % 2:  # before the new worker has published, and behind it
            store.jobs.publish(id, taken.fence, right.picture)
        rejected += stale(store.jobs.publish, id, zombie.fence, late.picture)
        assert stale(store.jobs.finish, id, zombie.fence, "done")
        assert stale(store.jobs.renew, id, zombie.fence, 30.0, 1, 1)
        store.jobs.publish(id, taken.fence, right.picture)
        store.jobs.finish(id, taken.fence, "done")
        assert [picture.new.sha256 for picture in store.pictures.of_job(id)] == [right.picture.sha256]
    store.close()
    assert rejected == ZOMBIES
    report("P2 zombie_publishes_rejected", f"{rejected}/{ZOMBIES}", "200/200")


def stale(change: Callable[..., object], *given: Any) -> bool:
    try:
        change(*given)
    except StaleError:
        return True
    return False


def test_p4_a_crashed_job_resumes_by_itself(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "a", cache=tmp_path / "cache")
    child = Child(settings)
    with Server(settings, child) as server:
        whole = server.submit(DRAWING)
        assert server.ended(whole).state == "done"
        again = server.submit(DRAWING)
        until(lambda: any(one["done"] >= 2 for one in server.told(again, "progress")))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: server.job(again).attempts == 2)
        restarted = time.monotonic() - killed
        assert server.ended(again).state == "done" and server.job(again).attempts == 2
        sums = {server.store.pictures.of_job(id)[0].new.sha256 for id in (whole, again)}

    owner = Owner(tmp_path / "b", "chashka.app.kinds")
    owner.submit("one", **DRAWING)
    owner.until(lambda one: one["name"] == "progress" and one["done"] >= 2)
    owner.kill()
    killed = time.monotonic()
    owner = Owner(tmp_path / "b", "chashka.app.kinds")
    owner.until(lambda one: one.get("state") == "running" and one["attempts"] == 2)
    rerun = time.monotonic() - killed
    owner.until(lambda one: one.get("state") == "done")
    assert owner.finish() == 0
    store = Store.open(Settings(data=tmp_path / "b"))
    (job,) = store.jobs.list()
    sums |= {store.pictures.of_job(job.id)[0].new.sha256}
    store.close()
    assert len(sums) == 1, "drawn again it is another file"
    assert max(restarted, rerun) <= LEASE + 2
    report("P4 seconds_until_resumed", f"{restarted:.2f}_child_{rerun:.2f}_owner_same_sha256", f"{LEASE + 2:g}")
