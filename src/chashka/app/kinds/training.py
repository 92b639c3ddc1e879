"""Jobs that train: a stage of the catalogue, in a process of its own, on data of the server's by their name.

    DATA/training/shards/NAME     what ``chashka data build`` wrote
    DATA/training/runs/NAME       a run; a job with the same name goes on where the last one stopped

A job that is to stop has its process save and end after the step that it is in; the next job of that run goes on there. A process
that was ended otherwise has saved every two minutes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from chashka.app.compute.runner import Event, Progress, Remark, Stop, Task, TaskError
from chashka.app.jobs import Problem
from chashka.app.kinds.kind import NAME, NewFields, Sizes, no_more
from chashka.app.settings import Settings
from chashka.errors import InputError, MissingExtraError, TrainingError
from chashka.request import shown

if TYPE_CHECKING:
    from chashka.app.compute.models import Models

FIELDS = ("stage", "recipe", "data", "run", "minutes", "start", "frozen")
LONGEST = 7 * 24 * 60.0
"""Minutes of one job at most."""
GRACE = 30 * 60.0
"""Seconds that reading the data and saving at the end may take beside ``minutes``; then the process is ended."""
STOPPING = 20.0
"""Seconds that a process may take for its step, and to save, once it was asked to stop; then it is ended."""
ALIVE = 5.0
"""Seconds between signs of life."""
WHOLE = 1000
"""Progress is told in thousandths of the run."""
SHARE = re.compile(r"^\s*(\d+\.\d)% step (\d+) ")
_busy: set[Path] = set()
_lock = threading.Lock()


def check(said: Mapping[str, Any], inputs: Sizes, settings: Settings) -> NewFields:
    """stage, data; recipe (the stage's own), run (the recipe's name), minutes (60), start, frozen {stage: run}: names alone."""
    from chashka.training import catalogue

    no_more(said, FIELDS)
    stage = said.get("stage")
    if not isinstance(stage, str) or stage not in catalogue.STAGES:
        raise InputError(f"stage: {shown(stage)} is not possible; allowed: {', '.join(catalogue.STAGES)}")
    recipe = stage if said.get("recipe") is None else said["recipe"]
    fitting = [name for name, one in catalogue.RECIPES.items() if one.stage == stage]
    if recipe not in fitting:
        raise InputError(f"recipe: {shown(recipe)} is not possible; allowed: {', '.join(fitting)}")
    minutes = 60.0 if said.get("minutes") is None else said["minutes"]
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 < minutes <= LONGEST:
        raise InputError(f"minutes: {shown(minutes)} is not possible; allowed: a number above 0, at most {LONGEST:g}")
    folder = settings.data / "training"
    frozen = said.get("frozen") or {}
    if not isinstance(frozen, dict) or not all(name in catalogue.STAGES for name in frozen):
        raise InputError(
            f"frozen: {shown(frozen)} is not possible; allowed: names of runs by {', '.join(catalogue.STAGES)}"
        )
    fields: dict[str, Any] = {"stage": stage, "recipe": recipe, "minutes": float(minutes)}
    fields["data"] = _there("data", said.get("data"), folder / "shards")
    fields["run"] = _name("run", recipe if said.get("run") is None else said["run"])
    if said.get("start") is not None:
        fields["start"] = _there("start", said["start"], folder / "runs")
    if frozen:
        fields["frozen"] = {name: _there("frozen", run, folder / "runs") for name, run in frozen.items()}
    return NewFields(fields, pictures=0)


def _name(field: str, value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InputError(f"{field}: {shown(value)} is not possible; allowed: a name of letters, digits, - and _")
    return value


def _there(field: str, value: Any, folder: Path) -> str:
    """A name that is one of a folder below ``folder``."""
    name = _name(field, value)
    if not (folder / name).is_dir():
        known = sorted(place.name for place in folder.iterdir() if place.is_dir()) if folder.is_dir() else []
        raise InputError(
            f"{field}: {name!r} does not exist; {'allowed: ' + ', '.join(known[:20]) if known else 'there is none'}"
        )
    return name


def run(task: Task, models: Models, stop: Stop) -> Iterator[Event]:
    """Train; the result is {run, step, …}: the last figures of the run's log. Raises MissingExtraError, TrainingError."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("train", "training")
    folder = models.settings.data / "training"
    place = folder / "runs" / task.fields["run"]
    with _alone(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        models.close()  # training needs the memory more
        yield from _watched(_command(task.fields, folder), float(task.fields["minutes"]) * 60 + GRACE, stop)
    figures = last_figures(place)
    yield Remark(result={"run": task.fields["run"], "stage": task.fields["stage"], **figures})


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Two trainings in one folder would spoil each other's."""
    with _lock:
        if place in _busy:
            raise TrainingError(
                f"run: {place.name!r} is being trained by another job; wait for it, or choose another name"
            )
        _busy.add(place)
    try:
        yield
    finally:
        with _lock:
            _busy.discard(place)


def _command(fields: Mapping[str, Any], folder: Path) -> list[str]:
    runs = folder / "runs"
    words = [sys.executable, "-P", "-m", "chashka.app.compute.training_process", str(os.getpid())]
    words += [fields["stage"], "--recipe", fields["recipe"], "--minutes", f"{fields['minutes']:g}"]
    words += ["--shards", str(folder / "shards" / fields["data"]), "--run", str(runs / fields["run"])]
    if "start" in fields:
        words += ["--start", str(runs / fields["start"] / "average.safetensors")]
    for stage, name in fields.get("frozen", {}).items():
        words += ["--frozen", f"{stage}={runs / name / 'average.safetensors'}"]
    return words


def _watched(command: list[str], longest: float, stop: Stop) -> Iterator[Event]:
    """Run a training process and tell its progress; it is ended when the job is to stop, and when it takes too long."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lines: SimpleQueue[str | None] = SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines), name="training", daemon=True)
    reader.start()
    began = told = time.monotonic()
    last, done = deque[str](maxlen=5), 0
    line: str | None = ""
    asked: float | None = None
    try:
        while line is not None:
            if asked is None and stop():
                asked = time.monotonic()
                process.terminate()
            if asked is not None and time.monotonic() - asked > STOPPING:
                return
            if time.monotonic() - began > longest:
                raise TaskError(Problem("training", f"the training process did not end in {longest / 60:.0f} minutes"))
            with contextlib.suppress(Empty):
                line = lines.get(timeout=0.2)
                last.append(line or "")
                found = SHARE.match(line or "")
                if found is not None:
                    done, told = round(float(found.group(1)) * WHOLE / 100), 0.0
            if time.monotonic() - told > ALIVE:
                told = time.monotonic()
                yield Progress(done, WHOLE)
        process.wait()
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        assert process.stderr is not None
        process.stderr.close()
    if asked is not None:
        return
    if process.returncode:
        said = next((line.removeprefix("error: ") for line in reversed(last) if line.startswith("error: ")), None)
        raise TaskError(Problem("training", said or f"the training process ended with {process.returncode}"))
    yield Progress(WHOLE, WHOLE)


def _read(process: subprocess.Popen[bytes], lines: SimpleQueue[str | None]) -> None:
    """What the process says, line by line; None at the end."""
    assert process.stderr is not None
    with contextlib.suppress(ValueError, OSError):
        for line in process.stderr:
            lines.put(line.decode("utf-8", "replace").rstrip("\n")[:1000])
    lines.put(None)


def last_figures(run: Path) -> dict[str, Any]:
    """The newest figures of a run's log, {loss, …} with those of pictures it never saw as held_out, and the step that is saved."""
    figures: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()[-50:]:
            with contextlib.suppress(ValueError):  # a kill may have cut the last line
                figures |= json.loads(line)
    with contextlib.suppress(OSError, ValueError, KeyError):  # a process that was ended before it saved anything
        figures["step"] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["step"]
    return figures
