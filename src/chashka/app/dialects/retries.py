"""What clients send again because no answer came: the job that it began is answered with, and nothing is drawn twice.

Two clients may ask for the same thing, and one client may ask for it twice (the AI SDK asks for two pictures by two equal
requests): only a request that says that it is a retry is taken for one.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from chashka.app.jobs import Job

WINDOW = 1800.0
"""Seconds for which a job is known by what was sent: clients wait ten minutes, and try again twice."""
MOST = 10_000


def digest(route: str, owner: str, fields: Mapping[str, Any], files: Mapping[str, list[bytes]] | None = None) -> str:
    """The sum of a request: neither the order of its parts nor the boundary between them is a part of it."""
    sums = {name: [hashlib.sha256(data).hexdigest() for data in some] for name, some in (files or {}).items()}
    text = json.dumps([route, owner, fields, sums], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Retries:
    """Which of several equal requests a retry belongs to. Thread safe.

    The jobs stand in the store with the sums of what was sent, so that a retry finds its job after the server was started anew.
    Whose turn it is among equal ones is in memory, and begins again then.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def again(self, sum_: str, begun: Sequence[Job]) -> Job | None:
        """The job for a retry, of those that equal requests began, the oldest first; each retry gets another one's."""
        if not begun:
            return None
        with self._lock:
            turn = self._turns.pop(sum_, 0)
            self._turns[sum_] = turn + 1
            while len(self._turns) > self._most:
                self._turns.popitem(last=False)
        return begun[turn % len(begun)]
