"""Both engines draw the same picture with the shipped weights, and these are what an export writes today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import chashka
from chashka import families
from chashka.generate import draw
from chashka.training.ship import Finished, ship

pytestmark = pytest.mark.torch


def test_engines_agree() -> None:
    torch.set_num_threads(1)
    drawn = []
    for engine in ("openvino", "torch"):
        bundle = families.load(engine=engine, device="cpu", precision="f32", threads=1)
        assert bundle.engine.startswith(engine)
        request = bundle.request(prompt="красное яблоко", negative_prompt="кот", seed=3, steps=2)
        drawn.append(draw(bundle, request)[0].pixels.astype(int))
    opaque = np.minimum(drawn[0][..., 3], drawn[1][..., 3]) > 128  # where alpha is small, colour is a quotient of noise
    assert (np.abs(drawn[0] - drawn[1])[..., 3] <= 1).mean() > 0.999
    assert not opaque.any() or (np.abs(drawn[0] - drawn[1])[opaque] <= 2).mean() > 0.999


def test_exporting_afresh_gives_the_shipped_files(tmp_path: Path) -> None:
    shipped = Path(chashka.__file__).parent / "teacup" / "kandinsky"
    ship(Finished(*[shipped] * 4, picture=shipped, upscaler=shipped, fast=shipped), tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written.keys() == {path.name for path in shipped.iterdir()}
    differing = [name for name, content in written.items() if content != (shipped / name).read_bytes()]
    assert not differing
