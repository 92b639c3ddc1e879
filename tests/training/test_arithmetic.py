"""What training multiplies in: by what the processor says of itself, and by trying."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from chashka.training import arithmetic

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    arithmetic.quick_bfloat16.cache_clear()
    yield
    arithmetic.quick_bfloat16.cache_clear()


def taking(monkeypatch: pytest.MonkeyPatch, bfloat16: float) -> None:
    """A product takes so many seconds in bfloat16, two in float32."""
    monkeypatch.setattr(arithmetic, "_seconds", lambda a, b: bfloat16 if a.dtype == torch.bfloat16 else 2.0)


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
    taking(monkeypatch, 1.0)
    assert arithmetic.matrix_type("cpu") == wanted
    with arithmetic.autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == wanted
    assert arithmetic.matrix_type("cuda:1") == torch.bfloat16


def test_float32_where_bfloat16_is_slower_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    taking(monkeypatch, 4.0)
    assert arithmetic.matrix_type("cpu") == torch.float32 and arithmetic.matrix_type("cuda") == torch.bfloat16


def test_this_processor_is_tried() -> None:
    a = torch.ones(64, 64)
    assert arithmetic._seconds(a, a) > 0 and isinstance(arithmetic.quick_bfloat16(), bool)


def test_a_torch_that_cannot_say_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert arithmetic.matrix_type("cpu") == torch.float32
