"""The one training loop: autocast over fp32 weights (arithmetic.py), an optimiser, an average, a clock, a resumable folder.

A stage is a ``Task``: modules, a loss for step n, a look. All chance in step n comes from ``generator(seed, n)``, so a resumed run
needs no generator state and repeats the same steps exactly.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from chashka.errors import TrainingError
from chashka.training.arithmetic import autocast
from chashka.training.catalogue import to_json
from chashka.training.ema import Average
from chashka.training.optimisers import optimisers
from chashka.training.recipes import Optimiser, Recipe, Run
from chashka.training.rounding import rounded, stored_as_int8
from chashka.training.state import Progress, RunFolder

MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum")
"""What optimisers remember of a parameter: AdamW's three, Muon's one."""


class Task(Protocol):
    """One stage of training."""

    modules: Mapping[str, nn.Module]
    """What is saved, by component name."""

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Scalar loss of one batch and figures to log (scalars). Called under autocast."""

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Write sample pictures into ``folder`` and return held-out figures. The modules hold the averaged weights."""


@dataclass(frozen=True, slots=True)
class Slice:
    """How this call ends: after ``minutes`` of its own, or when the run is complete."""

    minutes: float | None = None


def generator(seed: int, step: int, device: str = "cpu") -> torch.Generator:
    """The chance of one step."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) & 0x7FFF_FFFF_FFFF_FFFF)


def share_done(run: Run, progress: Progress) -> float:
    """The run's share in [0, 1], by steps or by training time."""
    whole = run.steps or run.minutes * 60
    return min((progress.step if run.steps else progress.seconds) / whole, 1.0)


def learning_rate(optimiser: Optimiser, step: int, share: float) -> float:
    """Warm-up by steps, then constant, then linear to zero over the last ``decay_share`` of the run."""
    rise = min((step + 1) / max(optimiser.warmup_steps, 1), 1.0)
    fall = min((1 - share) / optimiser.decay_share, 1.0) if optimiser.decay_share else 1.0
    return optimiser.lr * rise * max(fall, 0.0)


def trainable(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    return {f"{part}/{name}": p for part, m in modules.items() for name, p in m.named_parameters() if p.requires_grad}


def frozen(modules: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """What a run keeps but does not train: frozen parameters and buffers."""
    moving = trainable(modules)
    return {
        f"{part}/{key}": value
        for part, module in modules.items()
        for key, value in module.state_dict().items()
        if f"{part}/{key}" not in moving
    }


class Trainer:
    """Weights, averages and optimiser of one run; ``train`` runs a slice of it."""

    def __init__(self, task: Task, recipe: Recipe, folder: Path, device: str) -> None:
        self.task, self.run, self.device = task, recipe.run, device
        self.folder = RunFolder(folder, to_json(recipe))
        self.weights = trainable(task.modules)
        self.average = Average(self.weights, self.run.optimiser.ema_rel)
        self.optimisers = optimisers(task.modules, self.run.optimiser)
        self.for_int8 = stored_as_int8(task.modules) if self.run.int8_from < 1 else []
        self.owner = {p: o for o in self.optimisers for group in o.param_groups for p in group["params"]}
        self.progress = Progress()
        self.figures: dict[str, list[torch.Tensor]] = {}
        """By name, of those steps since the last line of the log that have it; part of the state, so that a resumed run logs the
        same lines."""
        found = self.folder.load()
        if found is not None:
            self._restore(*found)

    def train(
        self,
        until: Slice,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until the slice or the run ends, or ``stop`` says so; the state is on the disk afterwards. False: stopped."""
        begun = saved = looked = time.monotonic()
        counted = self.progress
        while share_done(self.run, self.progress) < 1.0 and not stop():
            now = time.monotonic()
            if until.minutes is not None and now - begun > until.minutes * 60:
                break
            if now - saved > self.run.save_minutes * 60:
                self.save()
                saved = now = time.monotonic()
            if now - looked > self.run.look_minutes * 60:
                self._look(say)
                looked = now = time.monotonic()
            for name, figure in self._step().items():
                self.figures.setdefault(name, []).append(figure)
            self.progress = Progress(self.progress.step + 1, self.progress.seconds + time.monotonic() - now)
            if self.progress.step % self.run.log_every == 0:
                steps, seconds = self.progress.step - counted.step, self.progress.seconds - counted.seconds
                say(self._log(steps * self.run.batch / seconds))
                counted = self.progress
        stopped = stop()
        if not stopped:
            self._look(say)
        self.save()
        return not stopped

    def save(self) -> None:
        tensors: dict[str, torch.Tensor] = {f"weights/{name}": p for name, p in self.weights.items()}
        tensors |= {f"average/{name}": value for name, value in self.average.values.items()}
        tensors |= {f"frozen/{name}": value for name, value in frozen(self.task.modules).items()}
        for name, p in self.weights.items():
            tensors |= {f"{key}/{name}": value for key, value in self.owner[p].state[p].items()}
        tensors |= {f"figures/{name}": torch.stack(values) for name, values in self.figures.items()}
        self.folder.save(tensors, self.progress)

    def averaged(self) -> dict[str, dict[str, torch.Tensor]]:
        """Averaged weights of every module, by module and by the module's own key."""
        parts: dict[str, dict[str, torch.Tensor]] = {
            part: dict(m.state_dict()) for part, m in self.task.modules.items()
        }
        for name, value in self.average.values.items():
            part, key = name.split("/", 1)
            parts[part][key] = value
        return parts

    def _step(self) -> dict[str, torch.Tensor]:
        step, share = self.progress.step, share_done(self.run, self.progress)
        rate = learning_rate(self.run.optimiser, step, share)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        chance = generator(self.run.seed, step, self.device)
        torch.manual_seed(self.run.seed * 1_000_003 + step)  # dropout draws from the global generator
        with rounded(self.for_int8 if share >= self.run.int8_from else ()):
            with autocast(self.device):
                loss, figures = self.task.loss(chance, share)
            for p in self.weights.values():
                p.grad = None
            loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights.values(), self.run.optimiser.clip, foreach=True)
        # A step whose gradient is not finite is left out: one bad batch must not end a run of hours. The optimisers see to it
        # themselves, because a GPU would have to be waited for to know.
        bad = (~torch.isfinite(norm)).float()
        for optimiser in self.optimisers:
            optimiser.found_inf = bad  # type: ignore[attr-defined]
            optimiser.step()
        self.average.update(step + 1)
        return {k: v.detach().float() for k, v in {"loss": loss, "norm": norm, **figures}.items()}

    def _log(self, rate: float) -> str:
        """Write the means of the steps since the last line, and begin anew."""
        means = {name: float(torch.stack(values).mean()) for name, values in self.figures.items()}
        self.figures = {}
        if means["loss"] != means["loss"]:
            raise TrainingError(f"the loss is not a number at step {self.progress.step}: lower the learning rate")
        record: dict[str, Any] = {"step": self.progress.step, **{k: round(v, 6) for k, v in means.items()}}
        self.folder.log(record)
        share = share_done(self.run, self.progress)
        shown = " ".join(f"{key} {value:.4f}" for key, value in means.items())
        return f"{share:6.1%} step {self.progress.step} {shown} {rate:.0f}/s"

    def _look(self, say: Callable[[str], None]) -> None:
        own = {name: p.detach().clone() for name, p in self.weights.items()}
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(self.average.values[name])
            for module in self.task.modules.values():
                module.eval()
            held = self.task.look(self.folder.folder, self.progress.step)
            for module in self.task.modules.values():
                module.train()
            for name, p in self.weights.items():
                p.copy_(own[name])
        self.folder.log({"step": self.progress.step, "held_out": {k: round(v, 5) for k, v in held.items()}})
        say(f"held out at step {self.progress.step}: " + " ".join(f"{k} {v:.4f}" for k, v in held.items()))

    def _restore(self, tensors: dict[str, torch.Tensor], progress: Progress) -> None:
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(tensors[f"weights/{name}"])
                self.average.values[name].copy_(tensors[f"average/{name}"])
                # a state saved before the first step has no moments
                kept = {key: tensors.get(f"{key}/{name}") for key in MOMENTS}
                self.owner[p].state[p] = {k: v.to(p.device) for k, v in kept.items() if v is not None}
            for name, value in frozen(self.task.modules).items():
                value.copy_(tensors[f"frozen/{name}"])
        self.figures = {
            key.removeprefix("figures/"): list(values.to(self.device))
            for key, values in tensors.items()
            if key.startswith("figures/")
        }
        self.progress = progress
