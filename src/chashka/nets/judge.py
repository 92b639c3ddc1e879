"""The judge's network: what stands where in a drawing, by the heat of its centres (CenterNet, arXiv 1904.07850)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.configs import JudgeConfig
from chashka.nets.image_tower import ConvBlock

PRIOR = 0.02
"""What an untrained map of centres says everywhere."""


class Seen(NamedTuple):
    """What the network says of B pictures on a grid of G×G places, row 0 at the top.

    centre  (B, 1, G, G) logits: does anything have its centre here?
    kind    (B, classes + 1, G, G) logits of a softmax: what it is; the last class is what is none of the things
    box     (B, 4, G, G): from the place's middle to the box's centre (x, y), width, height; shares of the picture
    mask    (B, 3, G, G): logit that a thing covers this place, and the way (x, y) from here to that thing's centre
    features (B, 4·width): the whole picture, the mean of the coarsest grid, for distances between sets of pictures
    """

    centre: torch.Tensor
    kind: torch.Tensor
    box: torch.Tensor
    mask: torch.Tensor
    features: torch.Tensor


class JudgeNet(nn.Module):
    """pixels (B, 4, side, side), premultiplied in [-1, 1] → :class:`Seen`."""

    def __init__(self, cfg: JudgeConfig) -> None:
        super().__init__()
        self.cfg = cfg
        fine, middle, coarse, groups = cfg.width, 2 * cfg.width, 4 * cfg.width, cfg.norm_groups
        self.stem = nn.Conv2d(cfg.in_channels * 4, fine // 2, 3, padding=1)
        self.down1 = nn.Conv2d(fine // 2, fine, 3, stride=2, padding=1)
        self.fine = nn.ModuleList([ConvBlock(fine, groups)])
        self.down2 = nn.Conv2d(fine, middle, 3, stride=2, padding=1)
        self.middle = nn.ModuleList(ConvBlock(middle, groups) for _ in range(cfg.blocks))
        self.down3 = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(ConvBlock(coarse, groups) for _ in range(cfg.blocks))
        self.norm = nn.GroupNorm(groups, coarse)
        self.up2, self.join2 = nn.Conv2d(coarse, middle, 1), ConvBlock(middle, groups)
        self.up1, self.join1 = nn.Conv2d(middle, fine, 1), ConvBlock(fine, groups)
        self.head = nn.Sequential(
            nn.GroupNorm(groups, fine), nn.SiLU(), nn.Conv2d(fine, middle, 3, padding=1), nn.SiLU()
        )
        self.centre, self.kind = nn.Conv2d(middle, 1, 1), nn.Conv2d(middle, cfg.classes + 1, 1)
        self.place = nn.Conv2d(middle, 7, 1)
        assert self.centre.bias is not None
        nn.init.constant_(self.centre.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, pixels: torch.Tensor) -> Seen:
        fine, middle, coarse = self._levels(pixels)
        features = coarse.mean((2, 3))
        middle = self.join2(middle + F.interpolate(self.up2(coarse), scale_factor=2.0, mode="nearest"))
        fine = self.join1(fine + F.interpolate(self.up1(middle), scale_factor=2.0, mode="nearest"))
        h = self.head(fine)
        # split, not sliced: where a slice has no end, OpenVINO 2026.4 loses the last channel when it reads a graph from the cache
        box, mask = self.place(h).split([4, 3], 1)
        return Seen(self.centre(h), self.kind(h), box, mask, features)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """``Seen.features`` alone, without the way up."""
        return self._levels(pixels)[2].mean((2, 3))

    def _levels(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.down1(F.silu(self.stem(F.pixel_unshuffle(pixels, 2))))
        for block in self.fine:
            x = block(x)
        y = self.down2(x)
        for block in self.middle:
            y = block(y)
        z = self.down3(y)
        for block in self.coarse:
            z = block(z)
        return x, y, F.silu(self.norm(z))
