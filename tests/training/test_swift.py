"""The swift way through a U-Net: the same figures and gradients, chosen where it is worth its compiling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from chashka.nets.configs import UNetConfig
from chashka.nets.unet import UNet
from chashka.training import swift
from chashka.training.recipes import Run
from chashka.training.unet import Conditioned

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # of what torch's compiler imports
]

SMALL = UNetConfig(
    5,
    4,
    16,
    (1, 2),
    1,
    (1,),
    "qkv",
    head_width=8,
    context=12,
    norm_groups=8,
    qk_norm=True,
    places=2,
    resample="resblock",
    scale_shift=True,
)


@pytest.fixture
def eager() -> Iterator[None]:
    """Pieces as they are written: what a compiler makes of them is its own tests' business, and takes minutes."""
    with torch.compiler.set_stance("force_eager"):
        yield


def network(cfg: UNetConfig) -> UNet:
    torch.manual_seed(0)
    made = UNet(cfg)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.2)  # no layer begins with nothing: each is to be seen
    return made


def given(cfg: UNetConfig) -> tuple[torch.Tensor, ...]:
    made = torch.Generator().manual_seed(1)
    added = torch.randn(3, cfg.pooled or 4 * cfg.width, generator=made)
    x = torch.randn(3, cfg.in_channels, 8, 12, generator=made)
    return x, torch.tensor([3.0, 500.0, 990.0]), torch.randn(3, 6, 12, generator=made), added


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"scale_shift": False, "qk_norm": False},
        {"resample": "conv"},
        {"pooled": 7},
        {"places": 0, "mult": (1, 2, 3)},
        {"attention": "transformer"},
        {"attention": "transformer", "qk_norm": False, "linear_proj": True, "resample": "conv"},
    ],
    ids=str,
)
def test_it_says_and_learns_the_same(change: dict[str, object], eager: None) -> None:
    cfg = replace(SMALL, **change)  # type: ignore[arg-type]
    unet, inputs = network(cfg), given(cfg)
    own = unet(*inputs)
    own.square().mean().backward()
    grads = {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}
    assert len(grads) == len(list(unet.parameters()))
    unet.zero_grad()
    out = swift.forward(unet, *inputs)
    out.square().mean().backward()
    assert (out - own).abs().max() < 1e-4 * own.abs().max()
    for name, p in unet.named_parameters():
        assert p.grad is not None and (p.grad - grads[name]).norm() < 1e-3 * grads[name].norm() + 1e-7, name


def test_dropout_leaves_out_its_share_and_keeps_the_mean(eager: None) -> None:
    torch.manual_seed(0)
    norm, x = nn.GroupNorm(4, 8), torch.randn(2, 8, 64, 64).contiguous(memory_format=torch.channels_last)
    whole = swift.normed(x, norm, act=True)
    part = swift.normed(x, norm, act=True, drop=0.25)
    gone = part == 0
    assert abs(float(gone.float().mean()) - 0.25) < 0.02
    assert torch.allclose(part[~gone], whole[~gone] / 0.75)
    torch.manual_seed(7)
    again = swift.normed(x, norm, act=True, drop=0.25)
    torch.manual_seed(7)
    assert torch.equal(again, swift.normed(x, norm, act=True, drop=0.25)) and not torch.equal(again, part)
    dropping = network(replace(SMALL, dropout=0.5))
    inputs = given(SMALL)
    assert not torch.equal(swift.forward(dropping, *inputs), swift.forward(dropping, *inputs))
    dropping.eval()
    assert torch.equal(swift.forward(dropping, *inputs), swift.forward(dropping, *inputs))


def test_what_is_compiled_is_what_is_written() -> None:
    if not swift.compiles():
        assert not swift.usable(network(SMALL), "cpu")
        return
    x = torch.randn(2, 30, 16).bfloat16()
    total, squares = swift.sums(x)
    assert torch.allclose(total, x.float().sum(1), atol=1e-4)
    assert torch.allclose(squares, x.float().square().sum(1), rtol=1e-4)


def test_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = network(SMALL)
    monkeypatch.setattr(swift, "quick_bfloat16", lambda: True)
    monkeypatch.setattr(swift, "compiles", lambda: True)
    assert swift.usable(unet, "cpu") and not swift.usable(unet, "cuda")
    for other in ({"context": None}, {"dropped": ("middle_block.0",)}):
        assert not swift.usable(UNet(replace(SMALL, **other)), "cpu"), other  # type: ignore[arg-type]
    monkeypatch.setattr(swift, "compiles", lambda: False)
    assert not swift.usable(unet, "cpu")
    monkeypatch.setattr(swift, "compiles", lambda: True)
    monkeypatch.setattr(swift, "quick_bfloat16", lambda: False)
    assert not swift.usable(unet, "cpu")


def test_short_runs_are_not_worth_a_minute_of_compiling() -> None:
    assert swift.worth(Run(batch=128, steps=1000)) and swift.worth(Run(batch=64, minutes=60))
    assert not swift.worth(Run(batch=8, steps=100)) and not swift.worth(Run(batch=128, minutes=2))


def test_one_shape_goes_swiftly(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    cfg, seen = replace(SMALL, pooled=7), []
    unet = network(cfg)
    x, t, tokens, pooled = given(cfg)
    own = swift.forward
    monkeypatch.setattr(swift, "forward", lambda *a: seen.append(a[1].shape) or own(*a))
    task = Conditioned(unet, None, swiftly=[tuple(x.shape)])
    with torch.no_grad():
        both = [task(*(part[:rows] for part in (x, t, tokens, pooled, tokens))) for rows in (3, 2)]
    assert seen == [x.shape]
    assert torch.allclose(both[0][:2], both[1], rtol=1e-4, atol=1e-3 * float(both[1].abs().max()))
