"""AutoencoderKL of latent diffusion (CompVis ldm/modules/diffusionmodules/model.py), original key names, in two halves.

Stable Diffusion and Kandinsky 2.0 use it as it is; the teacup switches on a pixel-unshuffle stem and DC-AE shortcuts
and takes four channels (premultiplied RGBA).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.attending import attend
from chashka.nets.configs import AutoencoderConfig


def norm(channels: int, cfg: AutoencoderConfig) -> nn.GroupNorm:
    """GroupNorm with the autoencoder's eps (1e-6)."""
    return nn.GroupNorm(cfg.norm_groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """norm → SiLU → conv, twice, and a skip (1×1 where the width changes)."""

    def __init__(self, cin: int, cout: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(cin, cfg), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = norm(cout, cfg), nn.Conv2d(cout, cout, 3, padding=1)
        self.nin_shortcut = None if cin == cout else nn.Conv2d(cin, cout, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: torch.Tensor = (x if self.nin_shortcut is None else self.nin_shortcut(x)) + h
        return out


class AttnBlock(nn.Module):
    """Single-head self-attention over all places, 1×1 convolutions."""

    def __init__(self, channels: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.norm = norm(channels, cfg)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, c, height, width = x.shape
        h = self.norm(x)
        q, k, v = (f(h).reshape(b, 1, c, height * width).transpose(2, 3) for f in (self.q, self.k, self.v))
        mixed = attend(q, k, v).transpose(2, 3).reshape(b, c, height, width)
        out: torch.Tensor = x + self.proj_out(mixed)
        return out


class Downsample(nn.Module):
    """Strided convolution, padded right and below as in the original; optionally plus the averaged folded path."""

    def __init__(self, cin: int, cout: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.pad, self.conv = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(cin, cout, 3, stride=2)
        self.cout, self.shortcut = cout, cfg.shortcuts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(self.pad(x))
        if not self.shortcut:
            return out
        folded = F.pixel_unshuffle(x, 2)
        b, _, h, w = folded.shape
        return out + folded.reshape(b, self.cout, -1, h, w).mean(2)


class Upsample(nn.Module):
    """Nearest ×2, then convolution; optionally plus the repeated channel-to-space path."""

    def __init__(self, cin: int, cout: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.cin, self.cout, self.shortcut = cin, cout, cfg.shortcuts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        if not self.shortcut:
            return out
        return out + F.pixel_shuffle(x.repeat_interleave(4 * self.cout // self.cin, dim=1), 2)


class Middle(nn.Module):
    def __init__(self, channels: int, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, cfg)
        self.attn_1 = AttnBlock(channels, cfg) if cfg.mid_attention else nn.Identity()
        self.block_2 = ResnetBlock(channels, channels, cfg)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Level(nn.Module):
    """One resolution: ``block`` (a list), ``attn`` after each where it has any, and ``downsample`` or ``upsample`` to the next."""

    def __init__(self, blocks: list[ResnetBlock], attn: list[AttnBlock], **resample: nn.Module) -> None:
        super().__init__()
        self.block, self.attn = nn.ModuleList(blocks), nn.ModuleList(attn)
        for name, module in resample.items():
            self.add_module(name, module)
        self.names = tuple(resample)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        for name in self.names:
            x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    """pixels (B, in_channels, H, W) in [-1, 1] → moments (B, 2·z_channels, H/f, W/f): mean, then log-variance.

    H and W are multiples of f (``cfg.factor``). One that is not ``variational`` gives (B, z_channels, H/f, W/f) alone.
    """

    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        widths = [cfg.width * m for m in cfg.mult]
        ch = widths[0]
        self.conv_in = nn.Conv2d(cfg.in_channels * cfg.stem**2, ch, 3, padding=1)
        levels = []
        for i, width in enumerate(widths):
            blocks = [ResnetBlock(ch if j == 0 else width, width, cfg) for j in range(cfg.res_blocks)]
            attn = [AttnBlock(width, cfg) for _ in blocks if i in cfg.attention_levels]
            ch = width
            if i + 1 < len(widths):
                # With shortcuts the resampler itself widens, so that folded channels have somewhere to go.
                after = widths[i + 1] if cfg.shortcuts else ch
                levels.append(Level(blocks, attn, downsample=Downsample(ch, after, cfg)))
                ch = after
            else:
                levels.append(Level(blocks, attn))
        self.down = nn.ModuleList(levels)
        self.mid = Middle(ch, cfg)
        self.norm_out = norm(ch, cfg)
        self.conv_out = nn.Conv2d(ch, cfg.moments, 3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = F.pixel_unshuffle(pixels, self.cfg.stem) if self.cfg.stem > 1 else pixels
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: torch.Tensor = self.conv_out(F.silu(self.norm_out(self.mid(x))))
        return out


class Decoder(nn.Module):
    """latents (B, z_channels, h, w) → pixels (B, out_channels, f·h, f·w), about [-1, 1], not clamped."""

    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        widths = [cfg.decoder_width * m for m in cfg.decoder_mult]
        ch = widths[-1]
        self.conv_in = nn.Conv2d(cfg.z_channels, ch, 3, padding=1)
        self.mid = Middle(ch, cfg)
        levels = []
        for i, width in reversed(list(enumerate(widths))):
            blocks = [ResnetBlock(ch if j == 0 else width, width, cfg) for j in range(cfg.decoder_res_blocks + 1)]
            attn = [AttnBlock(width, cfg) for _ in blocks if i in cfg.attention_levels]
            ch = width
            if i:
                after = widths[i - 1] if cfg.shortcuts else ch
                levels.append(Level(blocks, attn, upsample=Upsample(ch, after, cfg)))
                ch = after
            else:
                levels.append(Level(blocks, attn))
        self.up = nn.ModuleList(reversed(levels))  # level 0 is the finest, as in the original
        self.norm_out = norm(ch, cfg)
        self.conv_out = nn.Conv2d(ch, cfg.out_channels * cfg.stem**2, 3, padding=1)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        x = self.conv_out(F.silu(self.norm_out(x)))
        return F.pixel_shuffle(x, self.cfg.stem) if self.cfg.stem > 1 else x


class EncoderKL(nn.Module):
    """The encoder with the 1×1 convolution behind it: one half of the original checkpoint, under its key names.

    pixels (B, in_channels, H, W) in [-1, 1] → moments (B, 2·z_channels, h, w), see :class:`Encoder`.
    """

    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.quant_conv = nn.Conv2d(cfg.moments, cfg.moments, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.quant_conv(self.encoder(pixels))
        return out


class DecoderKL(nn.Module):
    """The decoder with the 1×1 convolution before it: the other half.

    latents (B, z_channels, h, w), divided by the family's scale → pixels, about [-1, 1], not clamped.
    """

    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.post_quant_conv = nn.Conv2d(cfg.z_channels, cfg.z_channels, 1)
        self.decoder = Decoder(cfg)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.decoder(self.post_quant_conv(latents))
        return out
