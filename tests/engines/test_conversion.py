"""Which conversions are refused, and which are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from chashka.engines import Blueprint, conversion
from chashka.engines.openvino_engine import OpenVINOEngine
from chashka.errors import WeightsError
from chashka.nets.configs import UNetConfig
from chashka.nets.unet import UNet

pytestmark = pytest.mark.torch


def test_a_slice_without_an_end_is_refused(tmp_path: Path) -> None:
    """OpenVINO would lose its last element in every process that finds the compiled graph in the cache."""

    class Open(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels[:, 1:] + 1

    class Split(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.split([1, 3], 1)[1] + 1

    given = {"pixels": torch.zeros(1, 4, 8, 8)}
    with pytest.raises(WeightsError, match="slice without an end"):
        conversion.save_graph(Open(), given, ["pixels"], ["out"], tmp_path / "open.xml")
    conversion.save_graph(Split(), given, ["pixels"], ["out"], tmp_path / "split.xml")


def test_the_usual_length_of_texts_is_compiled_for_itself(tmp_path: Path) -> None:
    """It is drawn with nearly always; all other lengths share a graph. Both say the same of a text padded to either length."""
    cfg = UNetConfig(4, 4, 32, (1, 2), 1, (0, 1), "transformer", 4, context=24)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = {key: value.numpy() for key, value in UNet(cfg).state_dict().items()}
    blueprint = Blueprint("unet", "nets.unet:UNet", cfg, {"x": (2, 4, 8, 8), "t": (2,), "tokens": (2, 7, 24)}, ("out",))
    (tmp_path / "source").write_bytes(b"")
    graph = OpenVINOEngine(precision="f32", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    rng = np.random.default_rng(0)
    x, tokens = rng.normal(size=(1, 4, 8, 8)), rng.normal(size=(1, 1, 24))
    said = {n: graph(x=x, t=np.ones(1), tokens=np.repeat(tokens, n, 1))["out"] for n in (7, 5, 14, 9)}
    compiled = [dict(key)["tokens"] for key in graph._requests]
    assert compiled == [(1, 7, 24), (1, -1, 24)]
    for out in said.values():  # attention over copies of one token is the same whatever their number
        np.testing.assert_allclose(out, said[7], atol=1e-4)
    again = OpenVINOEngine(precision="f32", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
    np.testing.assert_array_equal(again(x=x, t=np.ones(1), tokens=np.repeat(tokens, 7, 1))["out"], said[7])


def test_the_oldest_go_but_none_that_may_still_be_read(tmp_path: Path) -> None:
    now = time.time()
    for i in range(conversion.KEPT + 4):
        (tmp_path / f"{i:02}").mkdir()
        age = conversion.YOUNG + 60 * (50 - i) if i < 2 else 60.0 * (50 - i)
        os.utime(tmp_path / f"{i:02}", (now - age, now - age))
    conversion._prune(tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"{i:02}" for i in range(2, conversion.KEPT + 4)], (
        "two old ones beyond the limit went, two young ones stay"
    )
