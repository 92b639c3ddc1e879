"""What the promises about work share: a program that can be killed, a server in this process, and the line that is printed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from chashka.app.compute.runner import Runner
from chashka.app.compute.worker import Worker
from chashka.app.events import Hub
from chashka.app.ids import new_id
from chashka.app.jobs import Job, NewJob
from chashka.app.keeping.blobs import Blobs
from chashka.app.settings import Settings
from chashka.app.store import Store

HERE = Path(__file__).parent


def report(name: str, value: str, limit: str) -> None:
    print(f"\n{name} {value} {limit} PASS", flush=True)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def corrupt(blobs: Blobs) -> int:
    """How many files are not what their names say."""
    return sum(hashlib.sha256(blobs.read(name)).hexdigest() != name for name in blobs.names())


class Owner:
    """``owner.py`` as a process, and a thread that reads what it says."""

    def __init__(self, data: Path, kinds: str, slots: int = 1) -> None:
        self.said: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "owner.py"), str(data), kinds, str(slots)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what it logs of every death
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.until(lambda one: one["name"] == "ready")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # it was killed in the middle of a line
                self.said.append({**json.loads(line), "at": time.monotonic()})

    def submit(self, key: str, **fields: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"key": key, "fields": fields}).encode() + b"\n")
            self.process.stdin.flush()

    def until(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        """The first thing said that fulfils a condition."""
        end, seen = time.monotonic() + seconds, 0
        while True:
            for one in self.said[seen:]:
                seen += 1
                if condition(one):
                    return one
            assert time.monotonic() < end and self.process.poll() is None, "it did not come about"
            time.sleep(0.005)

    def child(self) -> int | None:
        with contextlib.suppress(psutil.Error):
            for one in psutil.Process(self.process.pid).children():
                return int(one.pid)
        return None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def finish(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = self.process.wait(60)
        self._close()
        return code

    def _close(self) -> None:
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Server:
    """Store, blobs and a worker in this process."""

    def __init__(self, settings: Settings, runner: Runner, **options: Any) -> None:
        self.store, self.blobs, self.hub = Store.open(settings), Blobs(settings.data / "blobs"), Hub()
        self.worker = Worker(self.store, self.blobs, runner, self.hub, settings, **options)

    def __enter__(self) -> Server:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.drain(2.0)
        self.store.close()

    def submit(self, fields: dict[str, Any], kind: str = "draw") -> str:
        job, _ = self.store.jobs.submit(NewJob(new_id("job"), kind, "me", fields), 10_000)
        self.hub.wake()
        return job.id

    def job(self, id: str) -> Job:
        job = self.store.jobs.get(id)
        assert job is not None
        return job

    def ended(self, id: str, seconds: float = 60.0) -> Job:
        until(lambda: self.job(id).ended, seconds)
        return self.job(id)

    def told(self, id: str, name: str) -> list[dict[str, Any]]:
        return [dict(one.data) for one in self.hub.newest(id) if one.name == name]
