"""Masks for training, and a network that is given mask channels: it says what it said before."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from chashka.diffusion import mask_channels
from chashka.nets.configs import UNetConfig
from chashka.nets.unet import UNet
from chashka.training.loop import generator
from chashka.training.masks import STEM, random_masks, with_mask_channels

pytestmark = pytest.mark.torch
SMALL = UNetConfig(
    16, 16, 16, (1, 2), 1, (1,), head_width=8, context=16, resample="resblock", scale_shift=True, norm_groups=4
)


def test_masks_are_of_many_kinds() -> None:
    x = torch.zeros(4000, 16, 16, 16)
    masks = random_masks(x, 1.0, generator(0, 0))
    assert masks.shape == (4000, 1, 16, 16) and set(masks.unique().tolist()) == {0.0, 1.0}
    area = masks.mean((1, 2, 3))
    assert 0.3 < float(area.mean()) < 0.6 and float(area.min()) < 0.05 and float(area.max()) > 0.9
    edges = torch.stack(
        [masks[..., 0].mean(2), masks[..., -1].mean(2), masks[:, :, 0].mean(2), masks[:, :, -1].mean(2)], -1
    )
    whole = (edges.squeeze(1) == 1).float().mean(0)
    # each side is drawn anew as a whole in the boxes turned over and in a quarter of the sides
    assert bool(((whole > 0.15) & (whole < 0.45)).all())
    left = (edges.squeeze(1)[:, 0] == 1) & (edges.squeeze(1)[:, 1] == 0)
    assert float(left.float().mean()) > 0.03, "outpainting to one side alone"
    assert torch.equal(masks, random_masks(x, 1.0, generator(0, 0)))
    share = random_masks(x, 0.3, generator(0, 1)).flatten(1).amin(1)
    assert float((share == 0).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert bool((random_masks(x[:, :, :8], 0.0, generator(0, 2)) == 1).all())


def dyadic(values: torch.Tensor) -> torch.Tensor:
    """Multiples of 1/64: sums of their products are exact in float32, in whatever order they are added."""
    return (values * 64).round() / 64


@pytest.mark.parametrize("places", [0, 3])
def test_new_mask_channels_change_nothing(places: int) -> None:
    torch.manual_seed(0)
    old = UNet(replace(SMALL, places=places)).eval()
    network = replace(SMALL, in_channels=33, places=places)
    state = dict(old.state_dict())
    state[STEM] = dyadic(state[STEM])
    old.load_state_dict(state)
    new = UNet(network).eval()
    new.load_state_dict(with_mask_channels(state, network))
    x, known = dyadic(torch.randn(2, 2, 16, 8, 8))
    text = {"tokens": torch.randn(2, 4, 16), "added": torch.randn(2, 64)}
    t = torch.tensor([10.0, 900.0])
    with torch.no_grad():
        before = old(x, t, **text)
        for mask in (torch.ones(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) < 0.5).float()):
            after = new(torch.cat([x, mask_channels(known, mask)], 1), t, **text)
            if places == 0:
                assert torch.equal(before, after)
            assert torch.allclose(before, after, atol=1e-5)
    assert with_mask_channels(new.state_dict(), network)[STEM] is not None
    assert torch.equal(with_mask_channels(new.state_dict(), network)[STEM], new.state_dict()[STEM])


def test_the_order_is_that_of_latent_diffusion() -> None:
    known, mask = torch.randn(1, 4, 2, 2), torch.tensor([1.0, 0, 0, 1]).reshape(1, 1, 2, 2)
    channels = mask_channels(known, mask)
    assert channels.shape == (1, 5, 2, 2)
    assert torch.equal(channels[:, :1], mask) and torch.equal(channels[:, 1:], known * (1 - mask))
