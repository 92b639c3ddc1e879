"""Every network of the teacup becomes a graph that holds for other rows, sizes and lengths than it was traced at."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from chashka.engines.runtime import convert_model, openvino
from chashka.nets.autoencoder import Decoder, Encoder
from chashka.nets.configs import T5Config, TextEncoderConfig, TextHeadConfig
from chashka.nets.image_tower import ImageTower
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.multilingual import ContrastiveTextEncoder, T5TextEncoder
from chashka.nets.teacup_configs import TEACUP_AUTOENCODER, TEACUP_IMAGE_TOWER, TEACUP_UNET
from chashka.nets.unet import UNet

pytestmark = pytest.mark.torch

CODEC = replace(TEACUP_AUTOENCODER, width=16, decoder_width=16, norm_groups=8)
UNET = replace(TEACUP_UNET, width=32, norm_groups=8, head_width=16, context=24, res_blocks=1)
WEAKENED = replace(UNET, dropped=("output_blocks.0.0", "middle_block.1"))
TRANSFORMER = replace(UNET, attention="transformer", resample="conv", scale_shift=False)
TEXT, T5 = TextEncoderConfig(300, 8, 32, 2, 4, 32, 24), T5Config(300, 8, 24, 2, 3, 32)


def pixels(rows: int, size: int, length: int) -> list[torch.Tensor]:
    return [torch.rand(rows, 4, 16 * size, 32 * size) * 2 - 1]


def latents(rows: int, size: int, length: int) -> list[torch.Tensor]:
    return [torch.randn(rows, 16, size, 2 * size)]


def small_pictures(rows: int, size: int, length: int) -> list[torch.Tensor]:
    return [torch.rand(rows, 4, 64, 64) * 2 - 1]


def texts(rows: int, size: int, length: int) -> list[torch.Tensor]:
    mask = torch.ones(rows, length)
    mask[0, length // 2 :] = 0
    return [torch.randint(3, 300, (rows, length)), mask]


def encoded(rows: int, size: int, length: int) -> list[torch.Tensor]:
    return [torch.randn(rows, length, 32), torch.randn(rows, 24), torch.randn(rows, length, 24)]


def noisy(rows: int, size: int, length: int) -> list[torch.Tensor]:
    picture, t = torch.randn(rows, 16, 4 * size, 8 * size), torch.rand(rows) * 1000
    return [picture, t, torch.randn(rows, length, 24), torch.randn(rows, 128)]


def weakened(rows: int, size: int, length: int) -> list[torch.Tensor]:
    return [*noisy(rows, size, length), (torch.arange(rows) % 2).float()]


@dataclass(frozen=True)
class Case:
    """What to build, inputs for (rows, size, length), and the axes of each that stay open."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int, int, int], list[torch.Tensor]]
    open_axes: tuple[tuple[int, ...], ...]


CASES = {
    "encoder": Case(lambda: Encoder(CODEC), pixels, ((0, 2, 3),)),
    "decoder": Case(lambda: Decoder(CODEC), latents, ((0, 2, 3),)),
    "contrastive": Case(lambda: ContrastiveTextEncoder(TEXT), texts, ((0, 1), (0, 1))),
    "t5": Case(lambda: T5TextEncoder(T5), texts, ((0, 1), (0, 1))),
    "head": Case(lambda: KandinskyTextHead(TextHeadConfig(32, 24, 24, 24, 128, 3)), encoded, ((0, 1), (0,), (0, 1))),
    "unet": Case(lambda: UNet(UNET), noisy, ((0, 2, 3), (0,), (0, 1), (0,))),
    "unet_weakened": Case(lambda: UNet(WEAKENED), weakened, ((0, 2, 3), (0,), (0, 1), (0,), (0,))),
    "unet_transformer": Case(lambda: UNet(TRANSFORMER), noisy, ((0, 2, 3), (0,), (0, 1), (0,))),
    "tower": Case(lambda: ImageTower(replace(TEACUP_IMAGE_TOWER, width=64)), small_pictures, ((0,),)),
}


def graph(module: nn.Module, example: list[torch.Tensor], open_axes: tuple[tuple[int, ...], ...]) -> Any:
    """The compiled graph, computing in float32 on one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about its own deprecation and about constant shapes
        ov = openvino()
        shapes = [
            ov.PartialShape([-1 if axis in axes else size for axis, size in enumerate(value.shape)])
            for value, axes in zip(example, open_axes, strict=True)
        ]
        model = convert_model(module, example_input=tuple(example), input=shapes)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return ov.Core().compile_model(model, "CPU", options)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_graph_holds_for_other_shapes(name: str) -> None:
    torch.manual_seed(0)
    case = CASES[name]
    module = case.make().eval()
    compiled = graph(module, case.inputs(2, 1, 6), case.open_axes)
    for rows, size, length in ((2, 1, 6), (3, 2, 9)):
        inputs = case.inputs(rows, size, length)
        wanted = module(*inputs)
        results = list(compiled([value.numpy() for value in inputs]).values())
        for found, right in zip(results, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            assert found.shape == tuple(right.shape)
            assert float(np.abs(found - right.numpy()).max() / right.abs().max()) <= 1e-4
