"""Learning with weights as int8 stores them: which they are, what they become, and that the exact ones come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import RECIPE, Line
from torch import nn

from chashka.checkpoints.int8 import SCALES, to_int8
from chashka.engines.export import stored_weights
from chashka.errors import TrainingError
from chashka.nets.teacup_configs import TEACUP_UNET
from chashka.nets.unet import UNet
from chashka.training.loop import Slice, Trainer
from chashka.training.rounding import nearest, rounded, stored_as_int8
from chashka.training.run import Run

pytestmark = pytest.mark.torch


def test_they_are_the_weights_that_an_export_makes_int8() -> None:
    unet = UNet(replace(TEACUP_UNET, width=32))
    exported = {name for name in stored_weights(unet, precision="int8") if name.endswith(SCALES)}
    chosen = {id(p) for p in stored_as_int8({"unet": unet})}
    assert {name + SCALES for name, p in unet.named_parameters() if id(p) in chosen} == exported


def test_nearest_is_within_half_a_step_of_every_channel() -> None:
    weight = (
        torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-3, 1, 6)[:, None, None, None]
    )
    found = nearest(weight)
    step = weight.flatten(1).abs().amax(1) / 127
    assert ((found - weight).flatten(1).abs().amax(1) <= step / 2 * 1.001).all()
    assert torch.allclose(nearest(found), found, rtol=1e-5, atol=0)
    # as near as the export's own rounding, which also tries smaller scales
    values, scales = to_int8(weight.numpy())
    stored = torch.from_numpy(values).float() * torch.from_numpy(scales).reshape(-1, 1, 1, 1)
    assert float((found - weight).square().sum()) <= 1.3 * float((stored - weight).square().sum())
    assert torch.equal(nearest(torch.zeros(2, 8)), torch.zeros(2, 8))


def test_the_exact_weights_come_back_whatever_happens() -> None:
    layer = nn.Linear(16, 4)
    before = layer.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), rounded([layer.weight]):
        assert torch.equal(layer.weight, nearest(before)) and not torch.equal(layer.weight, before)
        layer(torch.ones(1, 16)).sum().backward()
        raise ZeroDivisionError
    assert torch.equal(layer.weight, before) and layer.weight.grad is not None


def test_a_share_is_a_share() -> None:
    with pytest.raises(TrainingError, match=r"int8_from is 1.5; allowed: 0 to 1"):
        Run(int8_from=1.5)


def test_a_run_learns_with_rounded_weights(tmp_path: Path) -> None:
    """From where the recipe says; the exact weights are what is kept."""

    def trained(int8_from: float, name: str) -> Trainer:
        recipe = replace(RECIPE, run=replace(RECIPE.run, int8_from=int8_from))
        trainer = Trainer(Line(), recipe, tmp_path / name, "cpu")
        trainer.train(Slice(None), say=lambda line: None)
        return trainer

    plain, late, always = trained(1.0, "plain"), trained(0.5, "late"), trained(0.0, "always")
    log = {t: (t.folder.folder / "log.jsonl").read_text().splitlines() for t in (plain, late, always)}
    half = RECIPE.run.steps // RECIPE.run.log_every // 2
    assert log[late][:half] == log[plain][:half] and log[late][half:] != log[plain][half:]
    assert log[always][0] != log[plain][0]
    weight = always.weights["net/2.weight"]
    assert not torch.equal(nearest(weight.detach()), weight), "what is kept is exact"
    with torch.no_grad():
        found, wanted = (
            [float(t.task.modules["net"].eval()(torch.tensor([[x]]))) for x in (-1.0, 1.0)] for t in (always, plain)
        )
    assert found == pytest.approx(wanted, abs=0.3) and wanted[1] - wanted[0] > 0.5
