"""The training loop: resume after a kill at any moment repeats the same curve; the average and the clock are as written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import RECIPE, Line, train

from chashka.errors import TrainingError
from chashka.training.__main__ import STOPPED
from chashka.training.catalogue import RECIPES, from_json, to_json
from chashka.training.ema import Average, exponent
from chashka.training.loop import Slice, Trainer, learning_rate, share_done
from chashka.training.recipes import Optimiser, Run
from chashka.training.state import Progress, RunFolder

pytestmark = pytest.mark.torch


def curve(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_killed_run_resumes_with_an_identical_curve(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    wanted = train(whole)
    command = [sys.executable, str(Path(__file__).with_name("tiny.py")), str(killed), "0.01"]
    kills = 0
    for wait in (0.25, 0.4, 0.3):
        child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        deadline = time.monotonic() + 60
        while not (killed / "manifest.json").exists() and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.02)
        time.sleep(wait)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
    assert kills > 0
    assert json.loads((killed / "manifest.json").read_text())["step"] < RECIPE.run.steps
    resumed = train(killed)
    assert curve(killed) == curve(whole)
    for name, value in wanted.average.values.items():
        assert torch.equal(value, resumed.average.values[name])


@pytest.mark.skipif(sys.platform == "win32", reason="there SIGTERM ends a process at once")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_a_step_and_the_curve_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(whole)
    command = [sys.executable, str(Path(__file__).with_name("tiny.py")), str(stopped), "0.02"]
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 60
    while not (stopped / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(number)
    assert child.wait(30) == STOPPED
    step = json.loads((stopped / "manifest.json").read_text())["step"]
    assert 0 < step < RECIPE.run.steps
    train(stopped)
    assert curve(stopped) == curve(whole)


def test_stopping_between_two_lines_of_the_log(tmp_path: Path) -> None:
    """The figures of a line that is not written yet are part of the state."""
    train(tmp_path / "whole")
    asked = iter(range(RECIPE.run.log_every + 3))
    trainer = Trainer(Line(), RECIPE, tmp_path / "cut", "cpu")
    assert not trainer.train(Slice(), say=lambda line: None, stop=lambda: next(asked, None) is None)
    assert trainer.progress.step % RECIPE.run.log_every == 3
    train(tmp_path / "cut")
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    train(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    path = tmp_path / manifest["file"]
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(TrainingError, match="damaged"):
        Trainer(Line(), RECIPE, tmp_path, "cpu")


def test_a_folder_belongs_to_one_recipe(tmp_path: Path) -> None:
    RunFolder(tmp_path, to_json(RECIPES["clip"]))
    with pytest.raises(TrainingError, match="another recipe"):
        RunFolder(tmp_path, to_json(RECIPES["t5"]))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    assert from_json(to_json(RECIPES[name])) == RECIPES[name]


def test_an_unknown_field_is_named() -> None:
    values = json.loads(to_json(RECIPES["unet"])) | {"widht": 3}
    with pytest.raises(TrainingError, match="widht"):
        from_json(json.dumps(values))


def test_learning_rate_is_a_function_of_the_share() -> None:
    optimiser = Optimiser(lr=1.0, warmup_steps=10, decay_share=0.25)
    assert learning_rate(optimiser, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(optimiser, 50, 0.5) == 1.0
    assert learning_rate(optimiser, 50, 0.875) == pytest.approx(0.5)
    assert learning_rate(optimiser, 50, 1.0) == 0.0


def test_share_counts_steps_or_seconds() -> None:
    assert share_done(Run(steps=200), Progress(50, 9e9)) == 0.25
    assert share_done(Run(minutes=2), Progress(50, 60)) == 0.5
    assert share_done(Run(minutes=2), Progress(50, 600)) == 1.0


@pytest.mark.parametrize("width", [0.05, 0.10, 0.25])
def test_average_has_the_asked_width(width: float) -> None:
    """The profile that the updates leave on step t has standard deviation ``width`` of the run (EDM2 eq. 126)."""
    steps = 2000
    weights = torch.ones(1, dtype=torch.float64)
    profile = torch.zeros(steps, dtype=torch.float64)
    gamma = exponent(width)
    for step in range(1, steps + 1):
        beta = (1 - 1 / step) ** (gamma + 1)
        profile[: step - 1] *= beta
        profile[step - 1] = 1 - beta
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    mean = (profile * t).sum()
    spread = ((profile * t.square()).sum() - mean.square()).sqrt()
    assert float(profile.sum() * weights) == pytest.approx(1.0)
    assert float(spread) == pytest.approx(width, rel=0.02)


def test_average_follows_its_tensors() -> None:
    tensor = torch.zeros(3)
    average = Average({"a": tensor}, 0.1)
    tensor += 1
    average.update(1)
    assert torch.equal(average.values["a"], torch.ones(3))
    tensor += 1
    average.update(2)
    assert torch.all(average.values["a"] > 1.9)


def test_a_step_whose_gradient_is_not_finite_is_left_out(tmp_path: Path) -> None:
    """Weights and what both optimisers remember stay; the step after it is as if it had not been there."""
    task = Line()
    usual = task.loss

    def spoilt(chance: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, figures = usual(chance, share)
        return loss * float("nan"), figures

    trainer = Trainer(task, RECIPE, tmp_path, "cpu")
    for _ in range(3):
        trainer._step()

    def everything() -> list[torch.Tensor]:
        moments = [v for p in trainer.weights.values() for v in trainer.owner[p].state[p].values()]
        return [v.detach().clone() for v in (*trainer.weights.values(), *moments)]

    before = everything()
    task.loss = spoilt  # type: ignore[method-assign]
    trainer._step()
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))
    task.loss = usual  # type: ignore[method-assign]
    trainer._step()
    after = everything()
    assert all(bool(torch.isfinite(v).all()) for v in after) and not torch.equal(after[0], before[0])
