"""A job that trains, really: the process reads the server's data, stops when it is asked to with everything saved, and goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from chashka.app import kinds
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.runner import Progress, Remark, Task
from chashka.app.settings import Settings
from chashka.training.components import recipe_of
from chashka.training.stages import AVERAGE

pytestmark = pytest.mark.torch


def test_a_job_trains_stops_and_goes_on(shards: Path, tmp_path: Path) -> None:
    assert torch.__version__
    shutil.copytree(shards, tmp_path / "training" / "shards" / "drawings")
    settings, run = Settings(data=tmp_path), tmp_path / "training" / "runs" / "words"
    runner = InProcess(Models(settings))

    def job(minutes: float, stop: bool) -> tuple[dict[str, Any], list[int]]:
        """Its result, and what it told of its progress; asked to stop as soon as the run has begun, or not."""
        said = {"stage": "t5", "data": "drawings", "run": "words", "minutes": minutes}
        task = Task("job", "train", kinds.check("train", said, {}, settings).fields)
        begun = run / "recipe.json"
        events = list(runner.run(task, lambda: "now" if stop and begun.exists() else ""))
        done = [event.done for event in events if isinstance(event, Progress)]
        assert isinstance(events[-1], Remark)
        return events[-1].result, done

    stopped, done = job(30, stop=True)
    assert (stopped["run"], stopped["stage"]) == ("words", "t5") and max(done, default=0) < 1000
    assert stopped["step"] == json.loads((run / "manifest.json").read_text())["step"]
    assert "held_out" not in stopped  # it was to stop, not to look at pictures
    assert recipe_of(run / AVERAGE, "any").stage == "t5"
    ended, done = job(0.001, stop=False)
    assert ended["step"] == stopped["step"] + 1 and done[-1] == 1000 and ended["held_out"]
