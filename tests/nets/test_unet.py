"""The U-Net beyond the originals' numbers, in both kinds of attention: sizes, extras, refusals, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from chashka.errors import InputError
from chashka.nets.configs import UNetConfig
from chashka.nets.teacup_configs import TEACUP_UNET
from chashka.nets.unet import UNet, sinusoid

pytestmark = pytest.mark.torch
SMALL = replace(TEACUP_UNET, width=32, norm_groups=8, head_width=16, context=24, res_blocks=1)
TRANSFORMER = replace(SMALL, attention="transformer", resample="conv", scale_shift=False)
BOTH = pytest.mark.parametrize("config", [SMALL, TRANSFORMER], ids=["qkv", "transformer"])


def inputs(config: UNetConfig, rows: int = 2, height: int = 8, width: int = 8, length: int = 5) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, config.in_channels, height, width, generator=g),
        torch.rand(rows, generator=g) * 1000,
        torch.randn(rows, length, config.context or 1, generator=g),
        torch.randn(rows, 4 * config.width, generator=g),
    ]


def built(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    return UNet(config).eval()


def test_the_sinusoid_is_cosines_then_sines() -> None:
    t = torch.tensor([0.0, 3.5])
    out = sinusoid(t, 8)
    frequency = 10000.0 ** (-torch.arange(4) / 4)
    assert torch.allclose(out[1, :4], torch.cos(3.5 * frequency), atol=1e-6)
    assert torch.allclose(out[1, 4:], torch.sin(3.5 * frequency), atol=1e-6)
    assert torch.equal(out[0], torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]))


@torch.no_grad()
@BOTH
@pytest.mark.parametrize(("height", "width", "length"), [(4, 8, 1), (8, 4, 40)])
def test_any_size_and_any_length_of_text(config: UNetConfig, height: int, width: int, length: int) -> None:
    out = built(config)(*inputs(config, 2, height, width, length))
    assert out.shape == (2, 16, height, width)
    assert bool(out.isfinite().all())


@torch.no_grad()
@BOTH
def test_every_input_counts(config: UNetConfig) -> None:
    unet, batch = built(config), inputs(config)
    out = unet(*batch)
    for place in range(4):
        changed = [value + 1 if place == i else value for i, value in enumerate(batch)]
        assert float((unet(*changed) - out).abs().max()) > 1e-6
    assert bool(unet(batch[0], batch[1], torch.zeros_like(batch[2]), batch[3]).isfinite().all())


def lengthen(unet: UNet, factor: float) -> None:
    """Scale all that makes queries and keys, and nothing that makes values (heads are 16 wide)."""
    for name, parameter in unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            parameter.mul_(factor)
        elif ".qkv." in name:
            parameter.view(parameter.shape[0] // 48, 3, -1)[:, :2].mul_(factor)
        elif ".encoder_kv." in name:
            parameter.view(parameter.shape[0] // 32, 2, -1)[:, :1].mul_(factor)


@torch.no_grad()
@BOTH
@pytest.mark.parametrize("qk_norm", [True, False])
def test_normalised_queries_forget_their_length(config: UNetConfig, qk_norm: bool) -> None:
    unet, batch = built(replace(config, qk_norm=qk_norm)), inputs(config)
    out = unet(*batch)
    lengthen(unet, 7)
    assert torch.allclose(unet(*batch), out, atol=1e-5) is qk_norm


def test_dropout_works_in_training_alone() -> None:
    unet, batch = built(replace(SMALL, dropout=0.5)), inputs(SMALL)
    with torch.no_grad():
        assert torch.equal(unet(*batch), unet(*batch))
        unet.train()
        assert not torch.equal(unet(*batch), unet(*batch))


def test_text_where_there_is_no_place_for_it_and_none_where_there_must_be() -> None:
    x, t, tokens, added = inputs(SMALL)
    with pytest.raises(InputError, match="has no text"):
        built(replace(SMALL, context=None))(x, t, tokens)
    with pytest.raises(InputError, match=r"give tokens of shape \(rows, length, 24\)"):
        built(TRANSFORMER)(x, t)
    with torch.no_grad():
        assert built(SMALL)(x, t, None, added).shape == x.shape  # the picture can look at itself


@BOTH
def test_gradients_reach_every_weight(config: UNetConfig) -> None:
    unet = built(config).train()
    unet(*inputs(config)).square().mean().backward()
    missing = [name for name, p in unet.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert missing == []


@torch.no_grad()
def test_blocks_can_be_taken_away_row_by_row() -> None:
    names = ("input_blocks.1.0", "middle_block.1", "output_blocks.0.0")
    plain, able = built(SMALL), built(replace(SMALL, dropped=names))
    able.load_state_dict(plain.state_dict())
    batch = inputs(SMALL)
    whole = plain(*batch)
    assert torch.equal(able(*batch), whole) and torch.allclose(able(*batch, torch.ones(2)), whole, atol=1e-6)
    half = able(*batch, torch.tensor([0.0, 1.0]))
    assert torch.allclose(half[1], whole[1], atol=1e-5) and float((half[0] - whole[0]).abs().max()) > 1e-3
    # without them is as if their last layers said nothing
    for name in names:
        block = plain.get_submodule(name)
        last = block.out_layers[3] if hasattr(block, "out_layers") else block.proj_out
        last.weight.zero_()
        last.bias.zero_()
    assert torch.allclose(able(*batch, torch.zeros(2)), plain(*batch), atol=1e-5)


@pytest.mark.parametrize("name", ["middle_block.9", "input_blocks.0.0", "input_blocks.2.0", "out.0"])
def test_only_blocks_that_can_be_missing_may_be_dropped(name: str) -> None:
    with pytest.raises(InputError, match="no residual or attention block"):
        UNet(replace(SMALL, dropped=(name,)))
