"""A task small enough to train in a second, run as a program by the kill-and-resume test."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from chashka.training.__main__ import STOPPED
from chashka.training.loop import Slice, Trainer
from chashka.training.recipes import AutoencoderRecipe, Optimiser, Run
from chashka.training.stopping import listening

RECIPE = replace(
    AutoencoderRecipe(),
    run=Run(
        batch=8,
        steps=120,
        log_every=5,
        save_minutes=0.002,
        look_minutes=99.0,
        optimiser=Optimiser(warmup_steps=10, kind="muon"),  # its middle layer; the others go by AdamW
    ),
)


class Line:
    """Fit y = 2x - 1 with dropout, so that chance inside the network matters too."""

    modules: Mapping[str, nn.Module]

    def __init__(self, pause: float = 0.0) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Dropout(0.2), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
        self.modules = {"net": self.net}
        self.pause = pause

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        time.sleep(self.pause)
        x = torch.randn(8, 1, generator=generator)
        loss = (self.net(x).float() - (2 * x - 1)).square().mean()
        return loss, {"twice": 2 * loss.detach()}

    def look(self, folder: Path, step: int) -> dict[str, float]:
        return {"at_zero": float(self.net(torch.zeros(1, 1)))}


def train(folder: Path, pause: float = 0.0, stop: Callable[[], bool] = lambda: False) -> Trainer:
    trainer = Trainer(Line(pause), RECIPE, folder, "cpu")
    trainer.train(Slice(None), say=lambda line: None, stop=stop)
    return trainer


if __name__ == "__main__":
    torch.set_num_threads(1)
    with listening() as asked:
        train(Path(sys.argv[1]), float(sys.argv[2]), asked)
        sys.exit(STOPPED if asked() else 0)
