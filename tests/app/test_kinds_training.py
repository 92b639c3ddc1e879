"""Training as a job: the process is watched, its figures are the result, and stopping it leaves a run that goes on."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from chashka.app import kinds
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.runner import Event, Progress, Remark, Task, TaskError
from chashka.app.kinds import training
from chashka.app.settings import Settings

PROGRAM = """
import json, pathlib, sys, time
run = pathlib.Path(sys.argv[1]); run.mkdir(exist_ok=True)
print("loading", file=sys.stderr, flush=True)
for i in range(1, 6):
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": i, "loss": 1 / i}) + "\\n")
    print(f"{i / 5:6.1%} step {i} loss {1 / i:.4f} norm 0.1 9/s", file=sys.stderr, flush=True)
    time.sleep(float(sys.argv[2]))
if sys.argv[3] == "fail":
    print("error: the recipe does not fit", file=sys.stderr); sys.exit(7)
with (run / "log.jsonl").open("a") as log:
    log.write(json.dumps({"step": 5, "held_out": {"mse": 0.5}}) + "\\n")
"""
"""Says and writes what ``chashka.training`` does."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "training" / "shards" / "drawings").mkdir(parents=True)
    return Settings(data=tmp_path)


def runs(settings: Settings, patch: pytest.MonkeyPatch, pause: float = 0.0, how: str = "") -> InProcess:
    """A runner whose training process is ``PROGRAM``."""

    def command(fields: Mapping[str, Any], folder: Path) -> list[str]:
        return [sys.executable, "-c", PROGRAM, str(folder / "runs" / fields["run"]), str(pause), how]

    patch.setattr(training, "_command", command)
    patch.setattr(importlib.util, "find_spec", lambda name: name)
    patch.setattr(training, "ALIVE", 0.05)
    return InProcess(Models(settings))


def task(settings: Settings, **said: Any) -> Task:
    fields = kinds.check("train", {"stage": "unet", "data": "drawings", **said}, {}, settings).fields
    return Task("job", "train", fields)


def test_what_is_stored(settings: Settings) -> None:
    (settings.data / "training" / "runs" / "clip-1").mkdir(parents=True)
    given = task(settings, recipe="unet-96", frozen={"clip": "clip-1"}, start="clip-1", minutes=5)
    assert given.fields == {
        "stage": "unet",
        "recipe": "unet-96",
        "minutes": 5.0,
        "data": "drawings",
        "run": "unet-96",
        "start": "clip-1",
        "frozen": {"clip": "clip-1"},
    }
    words = training._command(given.fields, settings.data / "training")
    where = settings.data / "training"
    assert words[words.index("--shards") + 1] == str(where / "shards" / "drawings")
    assert words[words.index("--frozen") + 1] == f"clip={where / 'runs' / 'clip-1' / 'average.safetensors'}"


def test_figures_are_the_result(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runs(settings, monkeypatch, 0.1)
    events = list(runner.run(task(settings), lambda: ""))
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == sorted(done) and done[-1] == training.WHOLE and len(set(done)) >= 3
    assert events[-1] == Remark(
        result={"run": "unet", "stage": "unet", "step": 5, "loss": 0.2, "held_out": {"mse": 0.5}}
    )


def test_stopping_ends_the_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, seen = runs(settings, monkeypatch, 60.0), list[Event]()
    begun, before = time.monotonic(), set(psutil.Process().children())
    for event in runner.run(task(settings), lambda: "now" if seen else ""):
        seen.append(event)
    assert time.monotonic() - begun < 30
    assert isinstance(seen[-1], Remark) and seen[-1].result["step"] == 1
    assert set(psutil.Process().children()) <= before
    list(runs(settings, monkeypatch).run(task(settings), lambda: ""))  # the run's name is free again


def test_what_the_trainer_says_is_the_problem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runs(settings, monkeypatch, how="fail")
    with pytest.raises(TaskError) as caught:
        list(runner.run(task(settings), lambda: ""))
    assert (caught.value.problem.code, caught.value.problem.message) == ("training", "the recipe does not fit")


def test_one_training_in_a_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runs(settings, monkeypatch, 0.3)
    first = runner.run(task(settings), lambda: "")
    next(first)
    with pytest.raises(TaskError, match="is being trained by another job"):
        list(runner.run(task(settings), lambda: ""))
    list(first)


def test_without_the_extra(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = runs(settings, monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaskError) as caught:
        list(runner.run(task(settings), lambda: ""))
    assert caught.value.problem.code == "missing_extra" and "chashka[train]" in caught.value.problem.message


def test_the_log_of_a_killed_run_is_read(tmp_path: Path) -> None:
    assert training.last_figures(tmp_path) == {}
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "lo', encoding="utf-8")
    assert training.last_figures(tmp_path) == {"step": 1, "loss": 2}


def test_settings_have_no_say_in_the_name(settings: Settings) -> None:
    elsewhere = replace(settings, data=settings.data / "elsewhere")
    with pytest.raises(ValueError, match="there is none"):
        task(elsewhere)
