"""SQLite's queue does what a small model does, whatever happens in whatever order."""

from __future__ import annotations

from pathlib import Path

from hypothesis.stateful import run_state_machine_as_test
from queue_model import QueueMachine, thoroughness

from chashka.app.store import Store


def test_the_queue_does_what_the_model_does(tmp_path: Path) -> None:
    opened = Store.at(tmp_path / "store.sqlite3")

    class Machine(QueueMachine):
        store = opened

    run_state_machine_as_test(Machine, settings=thoroughness(15, 30))
    opened.close()
