"""Attention in slices: it equals torch's own, is taken by its rule alone, and no export knows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from chashka.nets import attending
from chashka.nets.attention import CrossAttention, QKVAttention
from chashka.nets.autoencoder import AttnBlock
from chashka.nets.configs import AutoencoderConfig, UNetConfig

pytestmark = pytest.mark.torch
SHAPES = [(2, 8, 1024, 1024, 40), (1, 1, 1100, 1024, 64), (2, 2, 1500, 1033, 16)]


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor of the kind that the rule is for, whatever this one is."""
    monkeypatch.setattr(attending, "slow_kernel", lambda: True)
    yield


def parts(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    b, heads, queries, keys, width = shape
    made = torch.Generator().manual_seed(0)
    return [torch.randn(b, heads, n, width, generator=made).to(dtype) for n in (queries, keys, keys)]


@pytest.mark.parametrize(
    ("scores", "shape"), [*((scores, shape) for scores in (2**24, 100_000) for shape in SHAPES), (1, SHAPES[1])]
)
def test_it_equals_torchs_own(shape: Any, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "SCORES", scores)
    q, k, v = parts(shape, torch.float32)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    largest = exact.abs().max()
    assert (attending.sliced(q, k, v) - exact).abs().max() < 2e-6 * largest
    lower = [part.bfloat16() for part in (q, k, v)]
    exact = F.scaled_dot_product_attention(*(part.double() for part in lower))
    theirs, ours = (f(*lower) for f in (F.scaled_dot_product_attention, attending.sliced))
    assert ours.dtype == torch.bfloat16 and ours.shape == theirs.shape
    # a number of bfloat16 is rounded by 2^-9 of itself; scores and weights are such numbers here
    assert (ours - exact).abs().max() < 2**-6 * largest
    assert (ours - exact).abs().mean() < 2 * (theirs - exact).abs().mean() + 2**-12 * largest


def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way every call went, from now on."""
    ways: list[str] = []
    sliced, own = attending.sliced, F.scaled_dot_product_attention
    monkeypatch.setattr(attending, "sliced", lambda *a: ways.append("sliced") or sliced(*a))
    monkeypatch.setattr(attending.F, "scaled_dot_product_attention", lambda *a: ways.append("own") or own(*a))
    return ways


@pytest.mark.parametrize(
    ("queries", "keys", "dtype", "way"),
    [
        (1024, 1024, torch.bfloat16, "sliced"),
        (1024, 1024, torch.float32, "own"),
        (1024, 77, torch.bfloat16, "own"),
        (1023, 1023, torch.bfloat16, "own"),
    ],
)
def test_the_rule(queries: int, keys: int, dtype: torch.dtype, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = taken(monkeypatch)
    q, k, v = parts((1, 1, queries, keys, 8), dtype)
    attending.attend(q, k, v)
    assert ways == [way]
    monkeypatch.setattr(attending, "slow_kernel", lambda: False)
    attending.attend(q, k, v)
    assert ways[1:] == ["own"], "another processor"


def test_what_learns_keeps_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = taken(monkeypatch)
    q, k, v = parts((1, 1, 1024, 1024, 8), torch.bfloat16)
    attending.attend(q.requires_grad_(), k, v).sum().backward()
    with torch.no_grad():
        attending.attend(q, k, v)
    assert ways == ["own", "sliced"] and q.grad is not None


def test_one_heads_numbers_are_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's fused kernel takes nothing else, and where a CPU learns its way back is the slow one."""
    steps: list[set[int]] = []
    own = F.scaled_dot_product_attention
    monkeypatch.setattr(
        attending.F, "scaled_dot_product_attention", lambda *a: steps.append({p.stride(-1) for p in a}) or own(*a)
    )
    q, k, v = (torch.randn(2, 3, 8, n).transpose(2, 3) for n in (20, 24, 24))
    out = attending.attend(q, k, v)
    learnt = attending.attend(q.requires_grad_(), k, v)
    assert steps == [{1}, {20, 24}]
    assert torch.allclose(out, learnt, atol=1e-6)


def modules() -> list[tuple[Any, tuple[Any, ...]]]:
    """Each module that attends to a picture's places, and what it is called with."""
    kind = {"attention_levels": (0,), "attention": "transformer", "context": 8, "norm_groups": 8}
    unet = UNetConfig(4, 4, 16, (1,), 1, heads=2, **kind)  # type: ignore[arg-type]
    x, picture = torch.randn(1, 1024, 16), torch.randn(1, 32, 32, 32)
    return [
        (CrossAttention(16, 16, unet), (x,)),
        (QKVAttention(32, unet), (picture, torch.zeros(1), torch.randn(1, 3, 8))),
        (AttnBlock(32, AutoencoderConfig()), (picture,)),
    ]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)  # of the tracer that exports use
@pytest.mark.parametrize("place", range(3))
def test_networks_take_it_under_autocast_and_never_when_recorded(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module, given = modules()[place]
    ways = taken(monkeypatch)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        fast = module(*given)
        assert ways == ["sliced"]
        monkeypatch.setattr(attending, "slow_kernel", lambda: False)
        own = module(*given)
        monkeypatch.setattr(attending, "slow_kernel", lambda: True)
    assert (fast - own).abs().max() < 2**-5 * own.abs().max()
    monkeypatch.undo()
    monkeypatch.setattr(attending, "slow_kernel", lambda: True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        traced = torch.jit.trace(module.eval(), given, check_trace=False)
    assert "scaled_dot_product_attention" in str(traced.inlined_graph)
    assert "baddbmm" not in str(traced.inlined_graph)
