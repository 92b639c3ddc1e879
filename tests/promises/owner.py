"""A program that owns a store and draws what waits in it, to be killed: ``owner.py DATA KINDS SLOTS``.

It reads submissions from its input, a line of JSON each, and writes a line of JSON for everything that happens. What it says was
accepted, was accepted durably.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chashka.app.compute.child import Child
from chashka.app.compute.worker import Worker
from chashka.app.events import Hub
from chashka.app.ids import new_id
from chashka.app.jobs import NewJob
from chashka.app.keeping.blobs import Blobs
from chashka.app.settings import Settings
from chashka.app.store import Store

_lock = threading.Lock()


def tell(**what: Any) -> None:
    with _lock:
        try:
            print(json.dumps(what), flush=True)
        except BrokenPipeError:  # nobody listens any more
            os._exit(1)


class Telling(Hub):
    """Prints states and progress."""

    def publish(self, job_id: str, name: str, data: Mapping[str, Any]) -> int:
        if name in ("state", "progress"):
            tell(job=job_id, name=name, **{key: data[key] for key in ("state", "done", "attempts") if key in data})
        return super().publish(job_id, name, data)


def main(data: str, kinds: str, slots: str) -> None:
    settings = Settings(data=Path(data), slots=int(slots), cache=Path(data) / "cache")
    store, hub = Store.open(settings), Telling()
    for job in store.jobs.requeue_all_running():
        tell(job=job.id, name="requeued", state=job.state)
    worker = Worker(store, Blobs(settings.data / "blobs"), Child(settings, kinds), hub, settings)
    worker.start()
    tell(name="ready")
    for line in sys.stdin:
        said = json.loads(line)
        new = NewJob(new_id("job"), "draw", "me", said["fields"], key=said["key"], body=said["key"])
        job, fresh = store.jobs.submit(new, 10_000)
        tell(job=job.id, name="accepted", key=said["key"], fresh=fresh)
        hub.wake()
    worker.drain(30.0)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
