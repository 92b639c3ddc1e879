"""The computing process: what it says comes through; when it crashes, hangs or eats memory, one task has died and no more."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from chashka.app.compute import frames
from chashka.app.compute.child import Child
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.processes import POLITE, held
from chashka.app.compute.runner import DiedError, Event, Made, Progress, Remark, Task, TaskError
from chashka.app.settings import Settings

HERE = Path(__file__).parent
SETTINGS = Settings(memory=2_000_000_000, hang=60.0)


def never() -> str:
    return ""


def task(job: str = "job", **fields: Any) -> Task:
    return Task(job, "draw", fields)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child(SETTINGS, "stub_kinds")
    yield made
    made.close()


def in_process(tmp_path: Path) -> InProcess:
    return InProcess(Models(replace(SETTINGS, data=tmp_path)), "stub_kinds")


def test_both_runners_say_the_same(child: Child, tmp_path: Path) -> None:
    given = Task("job", "draw", {"n": 2, "text": "чашка"}, {"init": tmp_path / "file"}, skip=frozenset({0}))
    here, there = list(in_process(tmp_path).run(given, never)), list(child.run(given, never))
    assert here[:-1] == there[:-1]
    assert [type(event) for event in here] == [Remark, Progress, Progress, Made, Remark]
    assert isinstance(here[-1], Remark) and isinstance(there[-1], Remark)
    assert here[-1].result["skipped"] == there[-1].result["skipped"] == 1
    assert here[-1].result["pid"] == os.getpid() != there[-1].result["pid"]


def test_one_process_does_task_after_task(child: Child) -> None:
    pids = {list(child.run(task(), never))[-1].result["pid"] for _ in range(3)}  # type: ignore[union-attr]
    assert pids == {child.pid}
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, child.pid or 0) == min(19, mine + POLITE), "19 is the most there is"


@pytest.mark.parametrize(
    ("do", "code"), [("exit", "worker_died"), ("crash", "worker_died"), ("memory", "out_of_memory")]
)
def test_a_process_that_dies_is_replaced(child: Child, do: str, code: str) -> None:
    with pytest.raises(DiedError) as caught:
        list(child.run(task(do=do), never))
    assert caught.value.problem.code == code
    assert isinstance(list(child.run(task(), never))[-1], Remark)


def test_the_message_names_the_signal(child: Child) -> None:
    running = child.run(task(pause=5.0), never)
    next(running)
    os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(DiedError, match="SIGKILL"):
        list(running)


def test_a_task_that_hangs_is_ended() -> None:
    child = Child(replace(SETTINGS, hang=0.5), "stub_kinds")
    begun = time.monotonic()
    with pytest.raises(DiedError) as caught:
        list(child.run(task(do="hang"), never))
    assert caught.value.problem.code == "hung" and time.monotonic() - begun < 20
    child.close()


def test_a_task_that_eats_memory_is_ended() -> None:
    child = Child(SETTINGS, "stub_kinds")
    list(child.run(task(), never))
    limit = held(child.pid or 0) + 80_000_000
    child.close()
    child = Child(replace(SETTINGS, memory=limit), "stub_kinds")
    with pytest.raises(DiedError) as caught:
        list(child.run(task(do="eat"), never))
    assert caught.value.problem.code == "out_of_memory"
    assert f"{limit / 1e6:,.0f} MB" in caught.value.problem.message
    child.close()


def test_what_cannot_be_done_says_so(child: Child) -> None:
    with pytest.raises(TaskError) as caught:
        list(child.run(task(do="impossible"), never))
    assert caught.value.problem.code == "input" and caught.value.problem.message == "steps: impossible"
    with pytest.raises(TaskError) as caught:
        list(child.run(task(do="bug"), never))
    assert caught.value.problem.code == "internal" and "ZeroDivisionError" in caught.value.problem.message


def test_printing_does_not_disturb(child: Child) -> None:
    assert len(list(child.run(task(do="print", n=3), never))) == 3 * 3 + 2


@pytest.mark.parametrize(("how", "after"), [("now", 5), ("after", 1)])
def test_stopping_is_heard_within_a_step(child: Child, how: str, after: int) -> None:
    seen: list[Event] = []
    for event in child.run(task(n=4, steps=30, pause=0.02), lambda: how if len(seen) >= after else ""):
        seen.append(event)
    pictures = sum(isinstance(event, Made) for event in seen)
    assert (pictures, len(seen) <= 15) == (0, True) if how == "now" else pictures == 1


def test_tasks_run_side_by_side(child: Child) -> None:
    found: dict[str, list[Event]] = {}

    def one(name: str) -> None:
        found[name] = list(child.run(task(name, steps=20, pause=0.05), never))

    list(child.run(task(), never))
    begun = time.monotonic()
    threads = [threading.Thread(target=one, args=(f"job {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 3.5  # one after the other: 4 s and more
    assert all(isinstance(events[-2], Made) and events[-2].picture.prompt == name for name, events in found.items())


def test_one_that_kills_takes_the_others_along_once(child: Child) -> None:
    outcomes: dict[str, list[str]] = {"good": [], "bad": []}

    def attempts(job: str, **fields: Any) -> None:
        for _ in range(3):
            try:
                list(child.run(task(job, **fields), never))
                outcomes[job].append("done")
            except DiedError:
                outcomes[job].append("died")
            if outcomes[job][-1] == "done":
                return

    list(child.run(task(), never))
    threads = [
        threading.Thread(target=attempts, args=("good",), kwargs={"steps": 30, "pause": 0.05}),
        threading.Thread(target=attempts, args=("bad",), kwargs={"do": "exit", "pause": 0.2}),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes["bad"] == ["died"] * 3
    assert outcomes["good"] in (["died", "done"], ["done"])


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys, stub_kinds\nfrom chashka.app.compute.child import Child\nfrom chashka.app.compute.runner import Task\n"
        "from chashka.app.settings import Settings\n"
        "child = Child(Settings(), 'stub_kinds')\n"
        "for event in child.run(Task('job', 'draw', {'steps': 1000, 'pause': 0.05}), lambda: ''):\n"
        "    print(child.pid, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "the child outlived its parent"
        time.sleep(0.05)


def test_frames_come_back_as_they_went() -> None:
    settings = replace(SETTINGS, models=Path("m"), hosts=("a", "b"), database="postgresql://me:secret@there/db")
    values = frames.of_settings(settings)
    assert "secret" not in str(values)
    assert frames.to_settings(values) == replace(settings, database="")
    given = Task("job", "draw", {"prompt": "чашка"}, {"init": Path("/a/b")}, True, frozenset({3, 1}))
    assert frames.to_task(frames.of_task(given)) == given
    file = io.BytesIO()
    frames.write(file, {"what": "progress", "text": "чашка"}, [b"", b"\0\xff"])
    file.seek(0)
    assert frames.read(file) == ({"what": "progress", "text": "чашка"}, [b"", b"\0\xff"])
    assert frames.read(file) is None
    assert frames.read(io.BytesIO(file.getvalue()[:-1])) is None
    with pytest.raises(ValueError, match="header"):
        frames.read(io.BytesIO(b"\xff\xff\xff\xffrest"))
