"""``python stub_server.py PAUSE FLAGS``: ``chashka serve`` with a runner that paints in no time, PAUSE seconds a step."""

from __future__ import annotations

import sys

from chashka.app import events, server
from chashka.cli import main
from served import Quick


def run() -> None:
    pause = float(sys.argv[1])
    serve = server.serve

    def stubbed(settings: object, **said: object) -> bool:
        return serve(settings, **said, runner=Quick(pause))  # type: ignore[arg-type]

    server.serve = stubbed
    events.KEEP = (
        5.0  # what is forgotten after minutes is forgotten after seconds, so that a short run is like a long one
    )
    main(["serve", *sys.argv[2:]])


if __name__ == "__main__":
    run()
