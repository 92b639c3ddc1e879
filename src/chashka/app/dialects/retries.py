"""What clients send again because no answer came: the job that it began is answered with, and nothing is drawn twice.

Two clients may ask for the same thing, and one client may ask for it twice (the AI SDK asks for two pictures by two equal
requests): only a request that says that it is a retry is taken for one.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

KEEP = 900.0
"""Seconds that a request is remembered: clients wait ten minutes before they try again."""
MOST = 10_000


def digest(route: str, owner: str, fields: Mapping[str, Any], files: Mapping[str, list[bytes]] | None = None) -> str:
    """The sum of a request: neither the order of its parts nor the boundary between them is a part of it."""
    sums = {name: [hashlib.sha256(data).hexdigest() for data in some] for name, some in (files or {}).items()}
    text = json.dumps([route, owner, fields, sums], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Retries:
    """The jobs that requests began, by the requests' sums. Thread safe; in memory: no client waits longer than a server lives."""

    def __init__(self, keep: float = KEEP, most: int = MOST) -> None:
        self._keep, self._most = keep, most
        self._jobs: OrderedDict[str, tuple[float, deque[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def began(self, sum_: str, job: str) -> None:
        """A request with this sum began this job."""
        with self._lock:
            _, jobs = self._jobs.pop(sum_, (0.0, deque()))
            jobs.append(job)
            self._jobs[sum_] = (time.monotonic(), jobs)
            while len(self._jobs) > self._most:
                self._jobs.popitem(last=False)

    def again(self, sum_: str) -> str | None:
        """The job for a retry; of several equal requests each retry gets another one's."""
        with self._lock:
            at, jobs = self._jobs.get(sum_, (0.0, deque()))
            if not jobs or time.monotonic() - at > self._keep:
                return None
            jobs.rotate(-1)
            return jobs[-1]
