"""Kandinsky 2.1's prior: from a text to the picture embedding that fits it, by diffusion. Original key names.

Original: ai-forever/Kandinsky-2 ``model/prior.py``, after unCLIP (arXiv 2204.06125, section 2.2); 2.2 has the same network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.kandinsky_presets import PriorConfig
from chashka.nets.unet import sinusoid

EXTRA = 4
"""Tokens after the text's: pooled text, time, noisy embedding, and the one from which the answer is read."""


class Attention(nn.Module):
    """Self-attention with q, k and v interleaved per head, as in guided-diffusion."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_qkv, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        parts = self.c_qkv(x).unflatten(-1, (self.heads, 3, -1)).transpose(1, 2)  # (B, heads, L, 3, width)
        q, k, v = parts.unbind(3)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out: torch.Tensor = self.c_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Feed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c_proj(F.gelu(self.c_fc(x)))
        return out


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn, self.ln_1 = Attention(width, heads), nn.LayerNorm(width)
        self.mlp, self.ln_2 = Feed(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x), seen)
        out: torch.Tensor = x + self.mlp(self.ln_2(x))
        return out


class Blocks(nn.Module):
    def __init__(self, cfg: PriorConfig) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(cfg.width, cfg.heads) for _ in range(cfg.layers))

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        for block in self.resblocks:
            x = block(x, seen)
        return x


class PriorTransformer(nn.Module):
    """x (B, picture), t (B,) in [0, 1000], tokens (B, context, text), pooled (B, picture), mask (B, context) → out (B, picture).

    ``out`` is the embedding without noise, over its deviation from its mean as in training. mask: float32, 1 where the text is.
    A token sees itself and those before it that are no padding.
    """

    def __init__(self, cfg: PriorConfig) -> None:
        super().__init__()
        self.cfg = cfg
        width = cfg.width
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.text_enc_proj = nn.Linear(cfg.text, width)
        self.text_emb_proj = nn.Linear(cfg.picture, width)
        self.clip_img_proj = nn.Linear(cfg.picture, width)
        self.out_proj = nn.Linear(width, cfg.picture)
        self.transformer = Blocks(cfg)
        self.final_ln = nn.LayerNorm(width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(1, cfg.context + EXTRA, width))
        self.prd_emb = nn.Parameter(0.01 * torch.randn(1, 1, width))

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, pooled: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        rows = x.shape[0]
        parts = [
            self.text_enc_proj(tokens),
            self.text_emb_proj(pooled)[:, None],
            self.time_embed(sinusoid(t, self.cfg.width))[:, None],
            self.clip_img_proj(x)[:, None],
            self.prd_emb.expand(rows, -1, -1),
        ]
        h = torch.cat(parts, 1) + self.positional_embedding
        places = torch.arange(h.shape[1], device=x.device)
        earlier = places[:, None] >= places[None, :]
        there = torch.cat([mask, torch.ones_like(mask[:, :EXTRA])], 1) > 0
        h = self.final_ln(self.transformer(h, (earlier[None] & there[:, None])[:, None]))
        out: torch.Tensor = self.out_proj(h[:, -1])
        return out
