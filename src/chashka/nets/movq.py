"""MoVQ's decoder (arXiv 2209.09002): every norm is scaled and shifted by the latents themselves. Original key names.

Original: ai-forever/Kandinsky-2 ``vqgan/movq_modules.py``. Its encoder is ``autoencoder.EncoderKL`` without a variance.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.attending import attend
from chashka.nets.autoencoder import Upsample
from chashka.nets.configs import AutoencoderConfig


class SpatialNorm(nn.Module):
    """GroupNorm, then scale and shift by 1×1 convolutions of the latents at that size."""

    def __init__(self, channels: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(cfg.norm_groups, channels, eps=1e-6)
        self.conv_y, self.conv_b = (nn.Conv2d(cfg.z_channels, channels, 1) for _ in range(2))

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        there = F.interpolate(latents, size=x.shape[-2:], mode="nearest")
        out: torch.Tensor = self.norm_layer(x) * self.conv_y(there) + self.conv_b(there)
        return out


class SpatialBlock(nn.Module):
    """norm → SiLU → conv, twice, and a skip (1×1 where the width changes)."""

    def __init__(self, cin: int, cout: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.norm1, self.conv1 = SpatialNorm(cin, cfg), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = SpatialNorm(cout, cfg), nn.Conv2d(cout, cout, 3, padding=1)
        self.nin_shortcut = None if cin == cout else nn.Conv2d(cin, cout, 1)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x, latents)))
        h = self.conv2(F.silu(self.norm2(h, latents)))
        out: torch.Tensor = (x if self.nin_shortcut is None else self.nin_shortcut(x)) + h
        return out


class SpatialAttention(nn.Module):
    """Single-head self-attention over all places, 1×1 convolutions."""

    def __init__(self, channels: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.norm = SpatialNorm(channels, cfg)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        b, c, height, width = x.shape
        h = self.norm(x, latents)
        q, k, v = (f(h).reshape(b, 1, c, height * width).transpose(2, 3) for f in (self.q, self.k, self.v))
        mixed = attend(q, k, v).transpose(2, 3).reshape(b, c, height, width)
        out: torch.Tensor = x + self.proj_out(mixed)
        return out


class SpatialMiddle(nn.Module):
    def __init__(self, channels: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.block_1 = SpatialBlock(channels, channels, cfg)
        self.attn_1 = SpatialAttention(channels, cfg)
        self.block_2 = SpatialBlock(channels, channels, cfg)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        x = self.attn_1(self.block_1(x, latents), latents)
        out: torch.Tensor = self.block_2(x, latents)
        return out


class SpatialLevel(nn.Module):
    """One resolution: blocks, attention after each where the level has it, and the way up to the next."""

    def __init__(self, cin: int, width: int, level: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        count = cfg.decoder_res_blocks + 1
        self.block = nn.ModuleList(SpatialBlock(cin if j == 0 else width, width, cfg) for j in range(count))
        attended = count if level in cfg.attention_levels else 0
        self.attn = nn.ModuleList(SpatialAttention(width, cfg) for _ in range(attended))
        self.upsample = Upsample(width, width, cfg) if level else None

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.block):
            x = block(x, latents)
            if self.attn:
                x = self.attn[i](x, latents)
        return x if self.upsample is None else self.upsample(x)


class SpatialDecoder(nn.Module):
    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        widths = [cfg.decoder_width * m for m in cfg.decoder_mult]
        self.conv_in = nn.Conv2d(cfg.z_channels, widths[-1], 3, padding=1)
        self.mid = SpatialMiddle(widths[-1], cfg)
        before = [*widths[1:], widths[-1]]
        levels = (SpatialLevel(before[i], width, i, cfg) for i, width in enumerate(widths))
        self.up = nn.ModuleList(levels)  # level 0 is the finest, as in the original
        self.norm_out = SpatialNorm(widths[0], cfg)
        self.conv_out = nn.Conv2d(widths[0], cfg.out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        x = self.mid(self.conv_in(x), latents)
        for level in reversed(self.up):
            x = level(x, latents)
        out: torch.Tensor = self.conv_out(F.silu(self.norm_out(x, latents)))
        return out


class DecoderMoVQ(nn.Module):
    """latents (B, z_channels, h, w), not quantised, as the original uses it → pixels, about [-1, 1], not clamped."""

    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.post_quant_conv = nn.Conv2d(cfg.z_channels, cfg.z_channels, 1)
        self.decoder = SpatialDecoder(cfg)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.decoder(self.post_quant_conv(latents), latents)
        return out
