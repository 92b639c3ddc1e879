"""The teacup's upscaler: twice the width and height, bicubic and what a small convolutional network adds to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.configs import UpscalerConfig


class Block(nn.Module):
    """3×3 convolution → ReLU → 3×3 convolution, with a skip; no norm, which would cost flat colours their value (EDSR,
    arXiv 1707.02921)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return out


class Upscaler(nn.Module):
    """pixels (B, 4, H, W) premultiplied in [-1, 1] → enlarged (B, 4, 2H, 2W), about [-1, 1], not clamped.

    All convolutions run at the small size; the last one's channels become 2×2 pixels (arXiv 1609.05158). It starts at
    zero, so that an untrained network enlarges bicubically.
    """

    def __init__(self, cfg: UpscalerConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.conv_in = nn.Conv2d(cfg.in_channels, cfg.width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(cfg.width) for _ in range(cfg.blocks))
        self.conv_out = nn.Conv2d(cfg.width, 4 * cfg.in_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        assert self.conv_out.bias is not None
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(pixels)
        for block in self.blocks:
            x = block(x)
        plain = F.interpolate(pixels, scale_factor=2.0, mode="bicubic", align_corners=False)
        return plain + F.pixel_shuffle(self.conv_out(x), 2)
