"""The teacup's autoencoder: its budget, its parameter-free paths in closed form, and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from chashka.nets.autoencoder import Decoder, Downsample, Encoder, Upsample
from chashka.nets.configs import AutoencoderConfig
from chashka.nets.teacup_configs import TEACUP_AUTOENCODER

pytestmark = pytest.mark.torch
SMALL = replace(TEACUP_AUTOENCODER, width=16, decoder_width=16, norm_groups=8)


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "shape", "parameters", "flops"),
    [(Encoder, (1, 4, 256, 256), 1.6e6, 3.2e9), (Decoder, (1, 16, 16, 16), 3.5e6, 8e9)],
)
def test_teacup_budget(kind: type[nn.Module], shape: tuple[int, ...], parameters: float, flops: float) -> None:
    """One 256×256 picture, counted as two operations a multiplication; on meta, so nothing is computed."""
    with torch.device("meta"):
        module, x = kind(TEACUP_AUTOENCODER), torch.zeros(shape)
        with FlopCounterMode(display=False) as counter:
            module(x)
    assert sum(p.numel() for p in module.parameters()) <= parameters
    assert 0 < counter.get_total_flops() <= flops


def silent(module: nn.Module) -> nn.Module:
    """The same with weights of zero: only what needs none is left."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


@torch.no_grad()
def test_shortcuts_average_going_down_and_repeat_going_up() -> None:
    """DC-AE (arXiv 2410.10733): with silent convolutions, cells are averaged in groups, or repeated."""
    x = torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    down, up = silent(Downsample(16, 16, SMALL)), silent(Upsample(16, 16, SMALL))
    assert torch.allclose(down(x), F.avg_pool2d(x, 2), atol=1e-6)
    assert torch.equal(up(x), F.interpolate(x, scale_factor=2.0, mode="nearest"))
    wider = silent(Downsample(16, 32, SMALL))(x)
    assert torch.allclose(wider[:, 0::2], (x[:, :, 0::2, 0::2] + x[:, :, 0::2, 1::2]) / 2, atol=1e-6)
    assert torch.allclose(wider[:, 1::2], (x[:, :, 1::2, 0::2] + x[:, :, 1::2, 1::2]) / 2, atol=1e-6)
    assert torch.equal(silent(Upsample(32, 16, SMALL))(wider)[:, :, 0::2, 0::2], wider[:, 0::2])
    plain = replace(SMALL, shortcuts=False)
    assert not silent(Downsample(16, 16, plain))(x).any()
    assert not silent(Upsample(16, 16, plain))(x).any()


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(3)
    original = AutoencoderConfig(width=32, mult=(1, 2), decoder_width=32, decoder_mult=(1, 2), res_blocks=1)
    for config in (SMALL, original):
        encoder, decoder = Encoder(config), Decoder(config)
        moments = encoder(torch.rand(1, config.in_channels, 16, 16))
        decoder(moments[:, : config.z_channels]).square().mean().add(moments.square().mean()).backward()
        for module in (encoder, decoder):
            assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
