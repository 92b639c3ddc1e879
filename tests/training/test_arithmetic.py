"""What training multiplies in, by what the processor says of itself."""

from __future__ import annotations

import pytest
import torch

from chashka.training import arithmetic

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], wanted: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert arithmetic.matrix_type("cpu") == wanted
    with arithmetic.autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted
    assert arithmetic.matrix_type("cuda:1") == torch.bfloat16


def test_a_torch_that_cannot_say_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert arithmetic.matrix_type("cpu") == torch.float32
