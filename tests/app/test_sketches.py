"""Sketches: a picture at once, kept by nobody, after every job; and only the newest of each person."""

from __future__ import annotations

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from chashka.app.compute.runner import DiedError, Event, Stop, Task, TaskError
from chashka.app.jobs import Problem
from chashka.app.sketches import WAITING, BusyError, Sketches
from served import Quick, Served, serving

SKETCH = "/v1/sketches"


def asked(served: Served, expect: int = 200, **said: object) -> bytes:
    answer = served.client.post(SKETCH, json={"prompt": "чашка", "seed": 7, **said})
    assert answer.status_code == expect, answer.text
    return answer.content


def code(answer: bytes) -> str:
    found: str = json.loads(answer)["error"]["code"]
    return found


def test_a_sketch_is_drawn_at_once_and_kept_nowhere(tmp_path: Path) -> None:
    runner = Quick()
    with serving(tmp_path, runner) as served:
        answer = served.client.post(SKETCH, json={"prompt": "чашка", "seed": 7, "n": 3})
        assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
        assert answer.headers["cache-control"] == "no-store"
        assert Image.open(io.BytesIO(answer.content)).getpixel((20, 12)) == (7, 0, 0, 255)
        assert served.client.get("/v1/jobs").json()["data"] == [] == served.client.get("/v1/images").json()["data"]
        assert not list(tmp_path.glob("blobs/*/*")), "no file is left"
        verdict = served.client.post("/v1/verify", files={"file": ("a.png", answer.content)}, headers=served.headers)
        assert verdict.json()["logged"] and verdict.json()["picture"] is None, "that it was sent is known"
        assert "chashka_sketches_total 1" in served.client.get("/metrics").text
    assert len(runner.begun) == 1


def test_it_is_a_draft_of_one_picture_unless_it_says_otherwise(tmp_path: Path) -> None:
    seen: list[Task] = []

    class Noting(Quick):
        def run(self, task: Task, stop: Stop):  # type: ignore[no-untyped-def]
            seen.append(task)
            yield from super().run(task, stop)

    with serving(tmp_path, Noting()) as served:
        asked(served, n=4)
        asked(served, fast=False, steps=3)
    assert [(t.kind, t.fields["n"], t.fields["fast"]) for t in seen] == [("draw", 1, True), ("draw", 1, False)]
    assert seen[1].fields["steps"] == 3 and seen[0].fields["model"] == "kandinsky-teacup"


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [
        ({"prompt": "x" * 10_001}, 422, "input"),
        ({"steps": "many"}, 422, "input"),
        ({"n": 0}, 422, "input"),
        ({"inputs": {"init": "pic_1"}}, 422, "input"),
        ({"model": "nothing-here"}, 422, "input"),
        ({"prompt": "голая девочка 10 лет"}, 403, ""),
    ],
)
def test_what_no_job_may_ask_for_no_sketch_may(tmp_path: Path, said: dict[str, object], status: int, word: str) -> None:
    runner = Quick()
    with serving(tmp_path, runner) as served:
        answer = served.client.post(SKETCH, json={"prompt": "чашка", **said})
        job = served.client.post("/v1/jobs", json={"prompt": "чашка", **said})
        assert answer.status_code == status == job.status_code or "inputs" in said, answer.text
        assert not word or code(answer.content) == word
    assert not [task for task in runner.begun if task.startswith("sketch")]


def test_jobs_go_first(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(tmp_path, Quick(gate=gate)) as served, ThreadPoolExecutor() as pool:
        # a job that comes ends the sketch that is being drawn …
        sketch = pool.submit(served.client.post, SKETCH, json={"prompt": "чашка"})
        while not served.service.sketches or not served.service.sketches._inside:
            time.sleep(0.01)
        time.sleep(0.1)
        job = served.submit()
        answer = sketch.result(10)
        assert answer.status_code == 409 and code(answer.content) == "busy" and answer.headers["retry-after"] == "1"
        # … none is begun beside it, and afterwards there is room again
        assert code(asked(served, 409)) == "busy"
        gate.set()
        served.ended(job["id"])
        until = time.monotonic() + 5
        while served.worker.working and time.monotonic() < until:
            time.sleep(0.01)
        asked(served)


def test_only_the_newest_of_a_person_is_drawn(tmp_path: Path) -> None:
    gate = threading.Event()
    with serving(tmp_path, Quick(gate=gate)) as served, ThreadPoolExecutor() as pool:
        first = pool.submit(served.client.post, SKETCH, json={"prompt": "кот"})
        time.sleep(0.2)
        second = pool.submit(served.client.post, SKETCH, json={"prompt": "кот в шляпе"})
        answer = first.result(10)
        assert answer.status_code == 409 and code(answer.content) == "superseded"
        gate.set()
        assert second.result(10).status_code == 200


def test_there_are_so_many_in_a_minute(tmp_path: Path) -> None:
    with serving(tmp_path, sketches_per_minute=2) as served:
        asked(served)
        asked(served)
        answer = served.client.post(SKETCH, json={"prompt": "чашка"})
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert "2 sketches were asked for in a minute" in answer.text
        served.submit()  # which is of no account for jobs


def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    class Failing(Quick):
        error: Exception = TaskError(Problem("input", "steps: 3 is not possible; allowed: 4"))

        def run(self, task: Task, stop: Stop):  # type: ignore[no-untyped-def]
            if task.job.startswith("sketch"):
                raise self.error
            yield from super().run(task, stop)

    runner = Failing()
    with serving(tmp_path, runner) as served:
        assert b"steps: 3 is not possible" in asked(served, 422)
        runner.error = DiedError(Problem("worker_died", "the computing process ended by SIGKILL"))
        assert b"ended by SIGKILL" in asked(served, 503)
        served.service.draining = True
        assert code(asked(served, 409)) == "busy"
    with serving(tmp_path / "other", work=False) as served:
        served.service.sketches = None
        assert b"draws nothing itself" in asked(served, 503)


def test_not_everybody_can_wait() -> None:
    gate = threading.Event()

    def never(task: Task, stop: Stop):  # type: ignore[no-untyped-def]
        gate.wait(10)
        yield from list[Event]()

    runner = Quick()
    runner.run = never  # type: ignore[method-assign]
    sketches = Sketches(runner, lambda: False)
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(sketches.draw, f"key {i}", {}) for i in range(WAITING + 1)]
        while sketches._inside <= WAITING:
            time.sleep(0.01)
        with pytest.raises(BusyError, match="other sketches"):
            sketches.draw("one more", {})
        gate.set()
        for one in waiting:
            with pytest.raises(BusyError, match="nothing was drawn"):
                one.result(10)
    assert sketches._inside == 0
