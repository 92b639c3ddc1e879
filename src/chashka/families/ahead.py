"""Networks are opened while the text is still being encoded, which a fresh process would wait for otherwise."""

from __future__ import annotations

import threading
from contextlib import suppress

from chashka.families.family import Bundle, Plan


def open_ahead(bundle: Bundle, plan: Plan, calls: int) -> None:
    """Have another thread open the denoising network, then the decoder, for what ``plan`` draws.

    calls: rows of the network's first call for each picture. Whoever needs a network waits until it is open; one that cannot be
    opened is reported there. What has no ``ready`` (shared networks of a server, other engines' modules) is left alone.
    """
    wanted = [(bundle.denoiser.network, plan.rows * calls), (bundle.codec, plan.rows)]
    able = [(ready, rows) for part, rows in wanted if (ready := getattr(part, "ready", None)) is not None]

    def work() -> None:
        for ready, rows in able:
            with suppress(Exception):
                ready(rows, *plan.shape[1:])

    if able:
        threading.Thread(target=work, name="chashka opening").start()
