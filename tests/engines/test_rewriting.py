"""Conversions that are made of others: the same bytes as converting anew, and only where nothing but matrices differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chashka.checkpoints.bfloat16 import BFLOAT16, computable
from chashka.engines import Blueprint, conversion, rewriting
from chashka.engines.conversion import converted
from chashka.engines.openvino_lowered import to_bfloat16
from chashka.nets.configs import UNetConfig
from chashka.nets.unet import UNet

pytestmark = pytest.mark.torch
CFG = UNetConfig(
    in_channels=4,
    out_channels=4,
    width=32,
    mult=(1, 2),
    res_blocks=1,
    attention_levels=(1,),
    attention="transformer",
    context=32,
    heads=2,
    resample="conv",
)
INPUTS = {"x": (2, 4, 8, 8), "t": (2,), "tokens": (2, 7, 32)}
PLAIN = Blueprint("unet", "nets.unet:UNet", CFG, INPUTS, ("out",), "")
CHANGED = replace(PLAIN, variant="with a LoRA")
MATRIX, BIAS = "middle_block.1.transformer_blocks.0.attn1.to_q.weight", "middle_block.0.in_layers.2.bias"
Make = Callable[..., Path]


def weights(seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    return {
        name: (value + 0.01 * torch.randn(value.shape, generator=chance)).numpy()
        for name, value in UNet(CFG).state_dict().items()
    }


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Converts in a cache folder; ``make.traced`` says how many were converted anew."""
    source = tmp_path / "weights"
    source.write_bytes(b"of no interest")
    anew = conversion._convert
    made: list[Any] = []

    def counted(*given: Any) -> None:
        made.append(given)
        anew(*given)

    monkeypatch.setattr(conversion, "_convert", counted)

    def convert(blueprint: Blueprint, tensors: dict[str, Any], cache: str = "cache", bfloat16: bool = False) -> Path:
        convert.count = len(made)  # type: ignore[attr-defined]
        graph, _ = converted(blueprint, tensors, source, tmp_path / cache, "c" * 64, bfloat16)
        convert.count = len(made) - convert.count  # type: ignore[attr-defined]
        return graph

    return convert


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("given", [np.float32, np.float16, "bfloat16"])
def test_other_matrices_are_written_into_a_copy(make: Make, bfloat16: bool, given: Any) -> None:
    """A LoRA's are float32, whatever the checkpoint's are."""
    tensors = {
        name: value.astype(given) if given != "bfloat16" else to_bfloat16(value).reshape(value.shape).view(BFLOAT16)
        for name, value in weights().items()
    }
    first = make(PLAIN, tensors, bfloat16=bfloat16)
    assert make.count == 1 and (first.parent / rewriting.FILE).is_file()  # type: ignore[attr-defined]
    before = first.with_suffix(".bin").read_bytes()
    other = tensors | {MATRIX: np.asarray(computable(tensors[MATRIX]), np.float32) + np.float32(0.25)}
    second = make(CHANGED, other, bfloat16=bfloat16)
    assert make.count == 0 and second != first  # type: ignore[attr-defined]
    expected = make(CHANGED, other, "another", bfloat16)
    assert make.count == 1  # type: ignore[attr-defined]
    assert second.with_suffix(".bin").read_bytes() == expected.with_suffix(".bin").read_bytes() != before
    assert first.with_suffix(".bin").read_bytes() == before
    third = make(replace(CHANGED, variant="another weight"), tensors, bfloat16=bfloat16)
    assert make.count == 0 and third.with_suffix(".bin").read_bytes() == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w | {BIAS: w[BIAS] + 1},
        lambda w: w | {MATRIX: np.full_like(w[MATRIX], 1e5)},
    ],
    ids=["a bias", "beyond float16"],
)
def test_whatever_else_differs_is_converted_anew(
    make: Make, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    tensors = weights()
    make(PLAIN, tensors)
    make(CHANGED, change(tensors))
    assert make.count == 1  # type: ignore[attr-defined]


def test_another_network_is_converted_anew(make: Make) -> None:
    tensors = weights()
    make(PLAIN, tensors)
    for other in (replace(CHANGED, config=replace(CFG, heads=4)), replace(CHANGED, name="other")):
        make(other, tensors)
        assert make.count == 1  # type: ignore[attr-defined]
    make(CHANGED, tensors, bfloat16=True)
    assert make.count == 1  # type: ignore[attr-defined]


def test_matrices_that_lie_in_one_place_cannot_be_told_apart(make: Make) -> None:
    """OpenVINO stores equal constants once."""
    tensors = weights()
    same = MATRIX.replace("to_q", "to_k")
    first = make(PLAIN, tensors | {same: tensors[MATRIX]})
    assert not (first.parent / rewriting.FILE).exists()
    make(CHANGED, tensors)
    assert make.count == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("said", ["", "[]", "{}", json.dumps({"alike": "", "others": "", "places": {}})])
def test_a_damaged_note_is_no_note(make: Make, said: str) -> None:
    tensors = weights()
    first = make(PLAIN, tensors)
    (first.parent / rewriting.FILE).write_text(said, encoding="utf-8")
    make(CHANGED, tensors)
    assert make.count == 1  # type: ignore[attr-defined]
