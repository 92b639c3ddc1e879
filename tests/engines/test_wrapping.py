"""Seamless graphs: shifted input gives shifted output, the same on both engines, and the plain graph stays as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from chashka.engines import Blueprint, open_engine
from chashka.engines.torch_wrapping import wrapped
from chashka.nets.configs import AutoencoderConfig, UNetConfig
from chashka.nets.unet import UNet

pytestmark = pytest.mark.torch
CFG = UNetConfig(4, 4, 32, (1, 2), 1, (0, 1), "transformer", 4, context=24)
VAE = AutoencoderConfig(
    width=32, mult=(1, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 2), decoder_res_blocks=1
)
SHAPES = {
    "unet": ("nets.unet:UNet", CFG, {"x": (2, 4, 16, 16), "t": (2,), "tokens": (2, 5, 24)}, ("out",)),
    "encoder": ("nets.autoencoder:EncoderKL", VAE, {"pixels": (1, 3, 32, 32)}, ("moments",)),
}


def example(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in SHAPES[name][2].items()}


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_shifted_comes_out_shifted(name: str, tmp_path: Path) -> None:
    from chashka.engines.components import imported

    network, cfg, inputs, outputs = SHAPES[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = imported(network)(cfg)
    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    blueprint = Blueprint(name, network, cfg, inputs, outputs)
    (tmp_path / "source").write_bytes(b"")
    seen = {}
    for kind in ("torch", "openvino"):
        graph = open_engine(kind, precision="f32", cache_dir=tmp_path).build(blueprint, weights, tmp_path / "source")
        given = example(name)
        first, out = next(iter(inputs)), outputs[0]
        plain = graph(**given)[out]
        for axes in ("x", "y", "xy"):
            tiled = graph.tiled(axes)
            still = tiled(**given)[out]
            factor = still.shape[-1] / given[first].shape[-1]
            for axis in (2, 3):
                moved = tiled(**given | {first: np.roll(given[first], 8, axis)})[out]
                away = np.abs(np.roll(still, int(8 * factor), axis) - moved).max() / np.abs(still).max()
                assert (away < 1e-4) == ("yx"[axis - 2] in axes)
            seen[kind, axes] = still
        assert np.array_equal(graph(**given)[out], plain)
    for axes in ("x", "y", "xy"):
        assert np.abs(seen["torch", axes] - seen["openvino", axes]).max() < 5e-3  # kept graphs have float16 weights
    assert np.array_equal(graph.tiled("x")(**given)[out], seen["openvino", "x"])  # from the cache


def test_a_seamless_copy_shares_its_weights() -> None:
    module = UNet(CFG)
    other = wrapped(module, "x")
    own, copied = dict(module.named_parameters()), dict(other.named_parameters())
    assert own.keys() == copied.keys()
    assert all(own[name] is copied[name] for name in own)
    assert all(layer.padding != (1, 0) for layer in module.modules() if isinstance(layer, nn.Conv2d))
