"""P5, P6, P13 and P23: poison, a full disk, stopping, and memory."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from serving import HERE, Server, corrupt, report, until

from chashka import families
from chashka.app.compute.child import Child
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.processes import held
from chashka.app.compute.runner import Task
from chashka.app.events import told
from chashka.app.jobs import ENDED
from chashka.app.keeping.blobs import Blobs, StorageFullError
from chashka.app.settings import Settings
from chashka.families.family import Bundle
from toy_model import toy_bundle

pytestmark = pytest.mark.promise
CANCELS, SLOTS = 200, 2
SWITCHES = 200
FILLINGS = 200


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent / "app"), prepend=os.pathsep)


def test_p5_a_poison_job_does_not_wedge_the_queue(tmp_path: Path) -> None:
    child = Child(Settings(), "stub_kinds")
    list(child.run(Task("job", "draw", {}), lambda: ""))
    assert child.pid is not None
    memory = held(child.pid) + 100_000_000
    child.close()
    settings = Settings(data=tmp_path, memory=memory, hang=1.0)
    slowest = 0.0
    with Server(settings, Child(settings, "stub_kinds")) as server:
        for do, code in (("exit", "worker_died"), ("hang", "hung"), ("eat", "out_of_memory"), ("crash", "worker_died")):
            bad, good = server.submit({"do": do}), server.submit({"steps": 1})
            job = server.ended(bad)
            failed = time.monotonic()
            assert (job.state, job.attempts) == ("failed", 3)
            assert job.problem is not None and job.problem.code == code
            until(lambda id=good: server.job(id).state != "queued")  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - failed)
            assert server.ended(good).state == "done"
    assert slowest <= 5
    report("P5 seconds_until_the_next_job", f"{slowest:.2f}_after_3_attempts", "5")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """A disk of 16 MB (where mounting is not allowed: blobs that are refused), with functions that fill it and make room."""
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], stderr=subprocess.DEVNULL
    )
    filler = folder / "filler"
    refused = threading.Event()

    def fill() -> None:
        if not mounted:
            refused.set()
            return
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 65536)
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"x" * 512)

    def empty() -> None:
        refused.clear()
        filler.unlink(missing_ok=True)

    write = Blobs._write

    def refusing(self: Blobs, target: Path, data: bytes) -> None:
        if refused.is_set():
            raise OSError(28, "No space left on device")
        write(self, target, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blobs, "_write", refusing)
        try:
            yield fill, empty
        finally:
            empty()
            if mounted:
                subprocess.check_call(["umount", "-l", str(folder)])


def test_p6_a_full_disk_is_survived(tmp_path: Path) -> None:
    chance = random.Random(6)
    slowest, accepted = 0.0, list[str]()
    with small_disk(tmp_path / "disk") as (fill, empty):
        settings = Settings(data=tmp_path / "disk")
        with Server(settings, InProcess(Models(settings), "stub_kinds")) as server:
            for number in range(FILLINGS):
                accepted.append(server.submit({"steps": 2, "pause": 0.002, "text": f"{number}"}))
                time.sleep(chance.uniform(0, 0.03))
                fill()
                with contextlib.suppress(StorageFullError):  # then it was not accepted
                    accepted.append(server.submit({"steps": 2, "text": f"{number} full"}))
                time.sleep(chance.uniform(0, 0.05))
                empty()
                if number % 20 == 0:  # room is there: how long until the next picture is
                    begun, before = time.monotonic(), server.store.pictures.count()
                    accepted.append(server.submit({"steps": 1, "text": f"{number} healed"}))
                    until(lambda before=before: server.store.pictures.count() > before)  # type: ignore[misc]
                    slowest = max(slowest, time.monotonic() - begun)
            for id in accepted:
                job = server.ended(id)
                assert job.state == "done" and job.attempts == 1, job
                assert len(server.store.pictures.of_job(id)) == 1
            assert corrupt(server.blobs) == 0 and not list(server.blobs.folder.rglob("*.part"))
            with server.store.database.read() as connection:
                assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert slowest <= 5
    report(
        "P6 seconds_until_healed", f"{slowest:.2f}_after_{FILLINGS}_fillings_0_of_{len(accepted)}_lost_0_corrupt", "5"
    )


def test_p13_cancel_is_quick(tmp_path: Path) -> None:
    step = 0.02
    settings = Settings(data=tmp_path, slots=SLOTS)
    waits: list[float] = []
    canceled: dict[str, int] = {}

    def one(server: Server, seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(CANCELS // SLOTS):
            id = server.submit({"n": 100, "steps": 8, "pause": step})
            until(lambda id=id: bool(server.told(id, "progress")))  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.3))
            asked = time.monotonic()
            server.hub.publish(id, "state", told(server.store.jobs.cancel(id, "now")))  # as the service does
            until(lambda id=id: server.told(id, "state")[0]["state"] in ENDED)  # type: ignore[misc]
            waits.append(time.monotonic() - asked)
            if server.job(id).state == "canceled":
                canceled[id] = len(server.store.pictures.of_job(id))

    with Server(settings, Child(settings, "stub_kinds")) as server:
        threads = [threading.Thread(target=one, args=(server, seed)) for seed in range(SLOTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(waits) == len(canceled) == CANCELS
        assert all(len(server.store.pictures.of_job(id)) == number for id, number in canceled.items())
    p95 = float(np.percentile(waits, 95)) - step
    assert p95 <= 0.25
    report("P13 seconds_until_canceled_beyond_a_step_p95", f"{p95:.3f}_of_{CANCELS}", "0.25")


class Ballast:
    """``families.load`` that gives toys which hold as much as the model's files say, in cycles as real ones are."""

    def __init__(self, size: int) -> None:
        self.size, self.opened = size, 0

    def __call__(self, model: str, **options: Any) -> Bundle:
        self.opened += 1
        bundle = toy_bundle()
        weights = np.ones(self.size // 8)
        network: Any = bundle.denoiser.network
        network.weights, network.itself = weights, network
        return replace(bundle, preset=replace(bundle.preset, name=model))


def test_p23_the_memory_cap_is_kept(tmp_path: Path) -> None:
    """Five models, room for two, 200 switches; then the embedded model under three names, really opened and drawn with."""
    chance, names = random.Random(23), [f"model-{i}" for i in range(5)]
    source = families.find("kandinsky-teacup")[1].place
    for name in names:
        (tmp_path / name).symlink_to(source)
    size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    settings = Settings(models=tmp_path, model_memory=2 * size + size // 2, cache=tmp_path / "cache", slots=1)
    ballast = Ballast(size)
    models = Models(settings, ballast)
    base, most, sizes = held(os.getpid()), 0, []
    for _ in range(SWITCHES):
        name = chance.choice([one for one in names if [one] != models.names[-1:]])
        with models.use(name) as bundle:
            assert bundle.preset.name == name
            sizes.append(held(os.getpid()) - base)
            most = max(most, sizes[-1])
    assert most <= 1.1 * models.cap, f"{most:,} of {models.cap:,}"
    growth = float(np.mean(sizes[-50:]) - np.mean(sizes[50:100]))
    assert growth <= 0.1 * models.cap
    assert SWITCHES > ballast.opened > SWITCHES // 4  # some were still open, most had to be closed
    models.close()
    drawn = really_switched(settings, names[:3])
    report("P23 rss_of_cap", f"{most / models.cap:.2f}_in_{SWITCHES}_switches_and_{drawn}_real_ones", "1.10")


def really_switched(settings: Settings, names: list[str]) -> int:
    """Open and draw with OpenVINO, in a process whose memory is then that of models alone; how many switches."""
    code = (
        "import os, sys, chashka\nfrom pathlib import Path\n"
        "from chashka.app.compute.models import Models\nfrom chashka.app.compute.processes import held\n"
        "from chashka.app.settings import Settings\nfrom chashka.generate import draw\n"
        "folder, names = Path(sys.argv[1]), sys.argv[2:]\n"
        "first = Models(Settings(models=folder, cache=folder / 'cache', slots=1, model_memory=1))\n"
        "def one(models, name):\n"
        "    with models.use(name) as bundle:\n"
        "        draw(bundle, bundle.request(prompt='чашка', seed=1, steps=1))\n"
        "        return held(os.getpid())\n"
        "whole = one(first, names[0])\nfirst.close()\nbase = held(os.getpid())\n"
        "room = 2 * (whole - base) + (whole - base) // 2\n"
        "models = Models(Settings(models=folder, cache=folder / 'cache', slots=1, model_memory=room))\n"
        "sizes = [one(models, names[i % 3]) - base for i in range(15)]\n"
        "assert len(models.names) <= 2, models.names\n"
        "assert max(sizes) <= 1.1 * max(models.cap, 0) , (max(sizes), models.cap)\n"
        "assert max(sizes[9:]) <= 1.1 * max(sizes[3:9]), sizes\n"
        "print(len(sizes), max(sizes) / models.cap)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(settings.models), *names], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    return int(found.stdout.split()[0])
