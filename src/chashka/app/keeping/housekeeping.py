"""What has to be done now and then while a server runs: deleted pictures end after a while, and files that nothing needs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from chashka.app.logs import log

if TYPE_CHECKING:
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.store import Store

EVERY = 3600.0
FIRST = 60.0
"""Seconds after the start: then it is not in the way of the first requests."""


class Housekeeping:
    """A thread that looks after the store. retention: seconds that deleted pictures can be restored."""

    def __init__(self, store: Store, blobs: Blobs, retention: float) -> None:
        self._store, self._blobs, self._retention = store, blobs, retention
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """From now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a round that is under way is finished."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def round(self) -> None:
        """Once: end what was deleted long ago, then delete files without a row."""
        ended = self._store.pictures.purge(self._retention)
        swept = self._blobs.sweep(self._store.referenced())
        if ended or swept:
            log("swept", files=swept)

    def _run(self) -> None:
        wait = FIRST
        while not self._end.wait(wait):
            wait = EVERY
            try:
                self.round()
            except Exception as error:  # the next round tries again
                log("housekeeping failed", level=30, error=error)
