"""Which conversions are refused, and which are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from chashka.engines import conversion
from chashka.errors import WeightsError

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
