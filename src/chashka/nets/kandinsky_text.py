"""What Kandinsky's U-Nets are told: texts, or a text and a picture, become context and embedding.

Originals: ai-forever/Kandinsky-2.0 ``text2im_model2_0.py``, ai-forever/Kandinsky-2 ``text2im_model2_1.py``; for 2.2 diffusers'
``ImageProjection`` and ``ImageTimeEmbedding``, with their names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.configs import TextHeadConfig
from chashka.nets.kandinsky_presets import PictureTextHeadConfig


class AttentionPooling(nn.Module):
    """Full self-attention over the tokens, of which only the first row's answer is kept and widened."""

    def __init__(self, width: int, out: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear, self.k_linear, self.v_linear = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, out)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        parts = (self.q_linear(tokens[:, :1]), self.k_linear(tokens), self.v_linear(tokens))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        out: torch.Tensor = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 0])
        return out


class Reading(nn.Module):
    """Places look at the text's tokens, then think: attention and feed-forward, each after a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_linear, self.k_linear, self.v_linear, self.out = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, places: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        parts = (self.q_linear(self.norm1(places)), self.k_linear(tokens), self.v_linear(tokens))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        places = places + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        thought: torch.Tensor = places + self.outer(F.gelu(self.inner(self.norm2(places))))
        return thought


class PlaceReader(nn.Module):
    """tokens (B, L, context) → (B, side², context): for each place of the picture, row by row, what the text puts there.

    Who is where stands in a sentence's order, its relation and its nouns together. Read out here once, where a layout can be the
    lesson (``training.places``), a U-Net is told it at once (``UNetConfig.told``), and may look at it too: ``where`` tells the
    places apart.
    """

    def __init__(self, cfg: TextHeadConfig) -> None:
        super().__init__()
        self.asked, self.where = (nn.Parameter(torch.randn(cfg.places**2, cfg.context)) for _ in range(2))
        self.readings = nn.ModuleList([Reading(cfg.context, cfg.heads) for _ in range(2)])
        self.norm = nn.LayerNorm(cfg.context)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # of the text, though nothing of it: what is computed of weights alone would be stored in a graph beside them
        places = self.asked + 0 * tokens[:, :1]
        for reading in self.readings:
            places = reading(places, tokens)
        said: torch.Tensor = self.norm(places) + self.where
        return said


class KandinskyTextHead(nn.Module):
    """tokens1 (B, L, D1), pooled1 (B, P1), tokens2 (B, L, D2) → tokens (B, places² + 2L, context), added (B, added).

    The places' tokens come first. No padding mask anywhere, as in the original.
    """

    def __init__(self, cfg: TextHeadConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.to_model_dim = nn.Linear(cfg.tokens1, cfg.context)
        self.to_model_dim2 = nn.Linear(cfg.tokens2, cfg.context)
        self.proj = nn.Linear(cfg.pooled1, cfg.added)
        self.proj2 = AttentionPooling(cfg.tokens2, cfg.added, cfg.heads)
        self.ln_model1 = nn.LayerNorm(cfg.context)
        self.ln_model2, self.ln_model3 = nn.LayerNorm(cfg.added), nn.LayerNorm(cfg.added)
        self.places = PlaceReader(cfg) if cfg.places else None

    def forward(
        self, tokens1: torch.Tensor, pooled1: torch.Tensor, tokens2: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        both = self.ln_model1(torch.cat([self.to_model_dim(tokens1), self.to_model_dim2(tokens2)], 1))
        added = self.ln_model2(self.proj(pooled1)) + self.ln_model3(self.proj2(tokens2))
        return both if self.places is None else torch.cat([self.places(both), both], 1), added


class PictureTextHead(nn.Module):
    """Kandinsky 2.1: tokens1 (B, L, D1), pooled1 (B, P1), picture (B, D) → tokens (B, pictures + L, context), added (B, added).

    The picture's embedding becomes the first tokens. No padding mask, no norm over the tokens, as in the original.
    """

    def __init__(self, cfg: PictureTextHeadConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.clip_to_seq = nn.Linear(cfg.picture, cfg.pictures * cfg.context)
        self.to_model_dim_n = nn.Linear(cfg.tokens1, cfg.context)
        self.proj_n, self.ln_model_n = nn.Linear(cfg.pooled1, cfg.added), nn.LayerNorm(cfg.added)
        self.img_layer = nn.Linear(cfg.picture, cfg.added)

    def forward(
        self, tokens1: torch.Tensor, pooled1: torch.Tensor, picture: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = self.clip_to_seq(picture).unflatten(1, (self.cfg.pictures, self.cfg.context))
        added = self.ln_model_n(self.proj_n(pooled1)) + self.img_layer(picture)
        return torch.cat([pictures, self.to_model_dim_n(tokens1)], 1), added


class PictureHead(nn.Module):
    """Kandinsky 2.2: picture (B, D) → tokens (B, pictures, context), added (B, added)."""

    def __init__(self, cfg: PictureTextHeadConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder_hid_proj = nn.ModuleDict(
            {"image_embeds": nn.Linear(cfg.picture, cfg.pictures * cfg.context), "norm": nn.LayerNorm(cfg.context)}
        )
        self.add_embedding = nn.ModuleDict(
            {"image_proj": nn.Linear(cfg.picture, cfg.added), "image_norm": nn.LayerNorm(cfg.added)}
        )

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.encoder_hid_proj["image_embeds"](picture).unflatten(1, (self.cfg.pictures, self.cfg.context))
        added: torch.Tensor = self.add_embedding["image_norm"](self.add_embedding["image_proj"](picture))
        return self.encoder_hid_proj["norm"](tokens), added
