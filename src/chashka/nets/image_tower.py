"""The teacup's picture encoder: a small convolutional network into the space of the contrastive text encoder's pooled vector."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.configs import ImageTowerConfig


class ConvBlock(nn.Module):
    """GroupNorm → SiLU → 3×3 convolution, twice, with a skip."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, channels), nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        out: torch.Tensor = x + self.conv2(F.silu(self.norm2(h)))
        return out


class ImageTower(nn.Module):
    """pixels (B, 4, 64, 64) premultiplied in [-1, 1] → pooled (B, pooled), scaled like the text encoder's.

    Half of the weights join the last 4×4 places as they stand, so that what is where is not averaged away, and cost next to
    nothing; the convolutions before them run on 8×8 and 4×4 places alone.
    """

    def __init__(self, cfg: ImageTowerConfig) -> None:
        super().__init__()
        self.cfg = cfg
        half = cfg.width // 2
        self.stem = nn.Conv2d(cfg.in_channels * 16, half, 3, stride=2, padding=1)  # 16×16 places after unshuffling by 4
        self.fine = nn.ModuleList(ConvBlock(half, cfg.norm_groups) for _ in range(cfg.blocks))
        self.down = nn.Conv2d(half, cfg.width, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(ConvBlock(cfg.width, cfg.norm_groups) for _ in range(cfg.blocks))
        self.norm = nn.GroupNorm(cfg.norm_groups, cfg.width)
        self.join = nn.Linear(16 * cfg.width, cfg.hidden)
        self.project = nn.Linear(cfg.hidden, cfg.pooled)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = self.stem(F.pixel_unshuffle(pixels, 4))
        for block in self.fine:
            x = block(x)
        x = self.down(x)
        for block in self.coarse:
            x = block(x)
        seen = F.silu(self.join(F.silu(self.norm(x)).flatten(1)))
        return F.normalize(self.project(seen).float(), dim=-1) * math.sqrt(self.cfg.pooled)
