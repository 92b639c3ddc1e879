"""The teacup's two multilingual text encoders: a contrastive one with a pooled output, and a T5-style one.

Both take ``ids`` int64 (B, L) and ``mask`` float32 (B, L), 1 where there is a piece; tokens are zero where the mask is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.configs import T5Config, TextEncoderConfig

MASKED = -1e4
"""Added to attention scores of padding: exp of it is 0 in float32 and in bfloat16, and it never makes inf - inf."""


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, L, D) → (B, heads, L, D / heads)."""
    out: torch.Tensor = x.unflatten(-1, (heads, -1)).transpose(1, 2)
    return out


class SelfAttention(nn.Module):
    """Multi-head self-attention with an additive ``bias`` (B or 1, heads or 1, L or 1, L)."""

    def __init__(self, width: int, heads: int, *, biased: bool, scaled: bool = True) -> None:
        super().__init__()
        self.heads, self.scale = heads, None if scaled else 1.0
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=biased), nn.Linear(width, width, bias=biased)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=self.scale)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Pre-norm transformer block with GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), SelfAttention(width, heads, biased=True)
        self.norm2 = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), bias)
        out: torch.Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class ContrastiveTextEncoder(nn.Module):
    """ids, mask → tokens (B, L, width) and pooled (B, pooled), of length sqrt(pooled) so that entries are about 1."""

    def __init__(self, cfg: TextEncoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed, self.widen = nn.Embedding(cfg.vocab, cfg.embed), nn.Linear(cfg.embed, cfg.width, bias=False)
        self.position = nn.Parameter(torch.zeros(cfg.max_length, cfg.width))
        self.blocks = nn.ModuleList(Block(cfg.width, cfg.heads) for _ in range(cfg.layers))
        self.norm = nn.LayerNorm(cfg.width)
        self.query = nn.Linear(cfg.width, cfg.heads)
        self.project = nn.Linear(cfg.width, cfg.pooled)
        nn.init.normal_(self.embed.weight, std=0.5)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bias = ((1 - mask) * MASKED)[:, None, None, :]
        x = self.widen(self.embed(ids)) + self.position[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, bias)
        tokens = self.norm(x) * mask[..., None]
        # Every head weighs the pieces by itself and pools its own slice of the width.
        weight = torch.softmax(self.query(tokens).transpose(1, 2) + bias[:, 0], dim=-1)  # (B, heads, L)
        pooled = (weight[..., None] * split_heads(tokens, self.cfg.heads)).sum(2).flatten(1)
        return tokens, F.normalize(self.project(pooled).float(), dim=-1) * math.sqrt(self.cfg.pooled)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm, computed in float32 whatever the precision around it, as T5 does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float())


class GatedFeedForward(nn.Module):
    """T5 1.1's gated GELU: down(gelu(gate(x)) · up(x)), no biases."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down(F.gelu(self.gate(x), approximate="tanh") * self.up(x))
        return out


class T5Block(nn.Module):
    def __init__(self, cfg: T5Config) -> None:
        super().__init__()
        self.norm1, self.attention = RMSNorm(cfg.width, eps=1e-6), SelfAttention(cfg.width, cfg.heads, biased=False)
        self.norm2, self.feed = RMSNorm(cfg.width, eps=1e-6), GatedFeedForward(cfg.width, cfg.ff)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), bias)
        out: torch.Tensor = x + self.feed(self.norm2(x))
        return out


class RelativePosition(nn.Module):
    """T5's learned bias per head and bucket of distance (arXiv 1910.10683): exact when near, logarithmic when far."""

    def __init__(self, cfg: T5Config, *, both_ways: bool) -> None:
        super().__init__()
        self.cfg, self.both_ways = cfg, both_ways
        self.bias = nn.Embedding(cfg.buckets, cfg.heads)

    def forward(self, length: torch.Tensor) -> torch.Tensor:
        """Positions (L,) int64 → (1, heads, L, L)."""
        distance = length[None, :] - length[:, None]
        buckets = self.cfg.buckets // 2 if self.both_ways else self.cfg.buckets
        side = torch.where(distance > 0, buckets, 0) if self.both_ways else torch.zeros_like(distance)
        away = distance.abs() if self.both_ways else (-distance).clamp(min=0)
        exact = buckets // 2
        grown = torch.log(away.clamp(min=1).float() / exact) / math.log(self.cfg.max_distance / exact)
        far = (exact + (grown * (buckets - exact)).long()).clamp(max=buckets - 1)
        out: torch.Tensor = self.bias(side + torch.where(away < exact, away, far)).permute(2, 0, 1)[None]
        return out


class T5TextEncoder(nn.Module):
    """ids, mask → tokens (B, L, width): T5 1.1's encoder, small, with a factorised embedding."""

    def __init__(self, cfg: T5Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed, self.widen = nn.Embedding(cfg.vocab, cfg.embed), nn.Linear(cfg.embed, cfg.width, bias=False)
        self.relative = RelativePosition(cfg, both_ways=True)
        self.blocks = nn.ModuleList(T5Block(cfg) for _ in range(cfg.layers))
        self.norm = RMSNorm(cfg.width, eps=1e-6)
        nn.init.normal_(self.embed.weight, std=0.5)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        bias = self.relative(places) + ((1 - mask) * MASKED)[:, None, None, :]
        x = self.widen(self.embed(ids))
        for block in self.blocks:
            x = block(x, bias)
        out: torch.Tensor = self.norm(x) * mask[..., None]
        return out


class CrossBlock(nn.Module):
    """Causal self-attention, attention to the encoder, feed-forward."""

    def __init__(self, cfg: T5Config) -> None:
        super().__init__()
        self.heads = cfg.heads
        self.norm1, self.attention = RMSNorm(cfg.width, eps=1e-6), SelfAttention(cfg.width, cfg.heads, biased=False)
        self.norm2 = RMSNorm(cfg.width, eps=1e-6)
        self.q, self.kv = nn.Linear(cfg.width, cfg.width, bias=False), nn.Linear(cfg.width, 2 * cfg.width, bias=False)
        self.out = nn.Linear(cfg.width, cfg.width, bias=False)
        self.norm3, self.feed = RMSNorm(cfg.width, eps=1e-6), GatedFeedForward(cfg.width, cfg.ff)

    def forward(
        self, x: torch.Tensor, bias: torch.Tensor, tokens: torch.Tensor, tokens_bias: torch.Tensor
    ) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), bias)
        q = split_heads(self.q(self.norm2(x)), self.heads)
        k, v = (split_heads(part, self.heads) for part in self.kv(tokens).chunk(2, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=tokens_bias.to(q.dtype))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: torch.Tensor = x + self.feed(self.norm3(x))
        return out


class T5Decoder(nn.Module):
    """The other half of the text-to-text objective, for training only: previous pieces and encoder tokens → logits."""

    def __init__(self, cfg: T5Config, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.widen = nn.Embedding(cfg.vocab, cfg.embed), nn.Linear(cfg.embed, cfg.width, bias=False)
        self.relative = RelativePosition(cfg, both_ways=False)
        self.blocks = nn.ModuleList(CrossBlock(cfg) for _ in range(layers))
        self.norm, self.narrow = RMSNorm(cfg.width, eps=1e-6), nn.Linear(cfg.width, cfg.embed, bias=False)
        nn.init.normal_(self.embed.weight, std=0.5)

    def forward(
        self, ids: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, among: torch.Tensor | None = None
    ) -> torch.Tensor:
        """ids (B, M), tokens (B, L, width), mask (B, L) → logits (B, M, vocab), row i predicting piece i + 1.

        ``among`` (A,): only the logits of these pieces, (B, M, A).
        """
        places = torch.arange(ids.shape[1], device=ids.device)
        later = (places[None, :] > places[:, None]).float() * MASKED
        bias, tokens_bias = self.relative(places) + later, ((1 - mask) * MASKED)[:, None, None, :]
        x = self.widen(self.embed(ids))
        for block in self.blocks:
            x = block(x, bias, tokens, tokens_bias)
        logits: torch.Tensor = self.narrow(self.norm(x)) @ (self.embed.weight if among is None else self.embed(among)).T
        return logits
