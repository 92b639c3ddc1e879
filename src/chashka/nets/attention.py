"""The two kinds of attention of the lineage's U-Nets, with the original key names.

Originals: openai/guided-diffusion ``unet.py``, ai-forever/Kandinsky-2.0 ``unet.py``, CompVis/stable-diffusion
``ldm/modules/attention.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.attending import attend
from chashka.nets.configs import UNetConfig


class HeadNorm(nn.Module):
    """Teacup extra: queries and keys of every head at unit length times a learned scale (arXiv 2010.04245)."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((heads, 1, 1), float(width) ** 0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B, heads, L, width)."""
        return F.normalize(x, dim=-1) * self.scale


def head_norm(heads: int, channels: int, cfg: UNetConfig) -> nn.Module:
    """What queries or keys pass through: nothing, with no weights, unless ``cfg.qk_norm``."""
    return HeadNorm(heads, channels // heads) if cfg.qk_norm else nn.Identity()


class QKVAttention(nn.Module):
    """guided-diffusion's AttentionBlock in its legacy order (q, k, v interleaved per head).

    With a context this is Kandinsky 2.0's added-KV attention: the text's keys and values stand before the picture's, in
    one softmax.
    """

    def __init__(self, channels: int, cfg: UNetConfig) -> None:
        super().__init__()
        self.heads = cfg.heads_of(channels)
        self.norm = nn.GroupNorm(cfg.norm_groups, channels)
        self.qkv, self.proj_out = nn.Conv1d(channels, 3 * channels, 1), nn.Conv1d(channels, channels, 1)
        if cfg.context:
            self.encoder_kv = nn.Conv1d(cfg.context, 2 * channels, 1)
        self.q_norm, self.k_norm = (head_norm(self.heads, channels, cfg) for _ in range(2))

    def _split(self, x: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(B, heads·parts·width, L) → ``parts`` of (B, heads, L, width)."""
        b, channels, _ = x.shape
        return x.reshape(b, self.heads, parts, channels // (self.heads * parts), -1).transpose(-1, -2).unbind(2)

    def forward(self, x: torch.Tensor, emb: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        b, c, height, width = x.shape
        flat = x.reshape(b, c, height * width)
        q, k, v = self._split(self.qkv(self.norm(flat)), 3)
        if context is not None:
            text_k, text_v = self._split(self.encoder_kv(context.transpose(1, 2)), 2)
            k, v = torch.cat([text_k, k], 2), torch.cat([text_v, v], 2)
        mixed = attend(self.q_norm(q), self.k_norm(k), v)
        out: torch.Tensor = flat + self.proj_out(mixed.transpose(-1, -2).reshape(b, c, height * width))
        return out.reshape(b, c, height, width)


class CrossAttention(nn.Module):
    """latent diffusion's CrossAttention: keys and values from ``context``, or from x itself."""

    def __init__(self, channels: int, context: int, cfg: UNetConfig) -> None:
        super().__init__()
        self.heads = cfg.heads_of(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k, self.to_v = (nn.Linear(context, channels, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Dropout(0.0))
        self.q_norm, self.k_norm = (head_norm(self.heads, channels, cfg) for _ in range(2))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        source = x if context is None else context
        parts = (self.to_q(x), self.to_k(source), self.to_v(source))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = attend(self.q_norm(q), self.k_norm(k), v)
        out: torch.Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out


class GEGLU(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        out: torch.Tensor = value * F.gelu(gate)
        return out


class FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, 4 * channels), nn.Dropout(0.0), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x)
        return out


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to the text, feed-forward, each after a LayerNorm."""

    def __init__(self, channels: int, cfg: UNetConfig) -> None:
        super().__init__()
        self.attn1 = CrossAttention(channels, channels, cfg)
        self.ff = FeedForward(channels)
        self.attn2 = CrossAttention(channels, cfg.context or channels, cfg)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        out: torch.Tensor = x + self.ff(self.norm3(x))
        return out


class SpatialTransformer(nn.Module):
    """latent diffusion's SpatialTransformer of depth 1; GroupNorm eps 1e-6, linear projections in version 2."""

    def __init__(self, channels: int, cfg: UNetConfig) -> None:
        super().__init__()
        self.linear = cfg.linear_proj
        self.norm = nn.GroupNorm(cfg.norm_groups, channels, eps=1e-6)
        self.proj_in, self.proj_out = (
            nn.Linear(channels, channels) if self.linear else nn.Conv2d(channels, channels, 1) for _ in range(2)
        )
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(channels, cfg)])

    def forward(self, x: torch.Tensor, emb: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        b, c, height, width = x.shape

        # Four axes are turned, not three: what OpenVINO keeps with the channels last then stays where it is.
        def flat(y: torch.Tensor) -> torch.Tensor:
            return y.permute(0, 2, 3, 1).reshape(b, height * width, c)

        def square(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(b, height, width, c).permute(0, 3, 1, 2)

        h = self.proj_in(flat(self.norm(x))) if self.linear else flat(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + (square(self.proj_out(h)) if self.linear else self.proj_out(square(h)))
