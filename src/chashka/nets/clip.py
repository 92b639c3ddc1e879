"""CLIP (arXiv 2103.00020) with the original key names: openai/CLIP ``model.py``, open_clip's towers of the same layout.

The names of attributes below ARE the checkpoints' key names, except that OpenAI's archives also hold three numbers
that are no weights: ``input_resolution``, ``context_length`` and ``vocab_size`` (leave them out before a strict
load). Everything runs in float32 and can be differentiated, pixels included. Load, then call ``eval()``: the ResNet
towers have batch norms, whose stored statistics the original numbers come from.

Picture towers take pixels that were scaled to [0, 1] and then normalised by channel (``normalised`` does that), not the
[-1, 1] of the rest of this package.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from chashka.errors import InputError
from chashka.nets.clip_presets import PIXEL_MEAN, PIXEL_STD
from chashka.nets.configs import CLIPTextConfig, CLIPVisionConfig


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """RGB pixels (B, 3, H, W) in [0, 1] → the same, as CLIP's picture towers take them."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels - mean) / std


class Activation(nn.Module):
    """GELU, or OpenAI's quick form of it: x · sigmoid(1.702 x)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.quick = name == "quick_gelu"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x)


class Attention(nn.Module):
    """Multi-head self-attention over x (B, L, D), with the key names of ``torch.nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block of CLIP."""

    def __init__(self, width: int, heads: int, activation: str, *, causal: bool) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width, heads, causal=causal)
        self.ln_2 = nn.LayerNorm(width)
        layers = (
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", Activation(activation)),
            ("c_proj", nn.Linear(4 * width, width)),
        )
        self.mlp = nn.Sequential(OrderedDict[str, nn.Module](layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        out: torch.Tensor = x + self.mlp(self.ln_2(x))
        return out


class Transformer(nn.Module):
    """x (B, L, width) → the same after ``layers`` blocks, and what stood before the last ``skip`` of them."""

    def __init__(self, width: int, layers: int, heads: int, activation: str, *, causal: bool) -> None:
        super().__init__()
        blocks = (ResidualAttentionBlock(width, heads, activation, causal=causal) for _ in range(layers))
        self.resblocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor, skip: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        earlier = x
        for left, block in zip(range(len(self.resblocks) - 1, -1, -1), self.resblocks, strict=True):
            x = block(x)
            earlier = x if left >= skip else earlier
        return x, earlier


class TextTower(nn.Module):
    """ids (B, L) int64 → tokens (B, L, width) and pooled (B, embed), not of unit length.

    This is the top level of a CLIP checkpoint without ``visual.*``: what Stable Diffusion 2's single files keep below
    ``cond_stage_model.model.``. A text is ``start pieces… end``, padded to ``context`` (with 0 in OpenAI's and
    Stability's code, with the end mark in Stable Diffusion 1); L may be shorter, because attention is causal: ids
    further right change nothing to the left. There is no padding mask, as in the original. ``pooled`` is
    ``text_projection`` of the last layer's normed state at the end mark, which has the largest id of the vocabulary;
    where it pads too, the first one counts. Raises InputError for a text longer than ``context``.
    """

    def __init__(self, cfg: CLIPTextConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.positional_embedding = nn.Parameter(torch.randn(cfg.context, cfg.width) * 0.01)
        self.text_projection = nn.Parameter(torch.randn(cfg.width, cfg.embed) * cfg.width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.transformer = Transformer(cfg.width, cfg.layers, cfg.heads, cfg.activation, causal=True)
        self.token_embedding = nn.Embedding(cfg.vocab, cfg.width)
        self.ln_final = nn.LayerNorm(cfg.width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def states(self, ids: torch.Tensor, *, skip_last: int, final_norm: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """``forward`` with tokens chosen by the caller instead of the config."""
        if ids.shape[1] > self.cfg.context:
            raise InputError(f"a text has {ids.shape[1]} ids; this CLIP reads at most {self.cfg.context}: cut it first")
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        last, tokens = self.transformer(x, skip_last)
        own = ids.where(ids < self.cfg.vocab - self.cfg.added, 0) if self.cfg.added else ids
        end = self.ln_final(last)[torch.arange(len(ids), device=ids.device), own.argmax(1)]
        return (self.ln_final(tokens) if final_norm else tokens), end @ self.text_projection

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.states(ids, skip_last=self.cfg.skip_last, final_norm=self.cfg.final_norm)


class VisionTransformer(nn.Module):
    """pixels (B, 3, R, R), normalised → (B, embed), not of unit length: the class token after the last block."""

    def __init__(self, cfg: CLIPVisionConfig) -> None:
        super().__init__()
        if isinstance(cfg.layers, tuple):
            raise InputError("layers is a tuple: this is the config of a ResNet tower, build ModifiedResNet from it")
        places = (cfg.resolution // cfg.patch) ** 2 + 1
        scale = cfg.width**-0.5
        self.conv1 = nn.Conv2d(3, cfg.width, cfg.patch, stride=cfg.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(cfg.width) * scale)
        self.positional_embedding = nn.Parameter(torch.randn(places, cfg.width) * scale)
        self.ln_pre = nn.LayerNorm(cfg.width)
        heads = cfg.width // cfg.head_width
        self.transformer = Transformer(cfg.width, cfg.layers, heads, cfg.activation, causal=False)
        self.ln_post = nn.LayerNorm(cfg.width)
        self.proj = nn.Parameter(torch.randn(cfg.width, cfg.embed) * scale)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([whole, patches], 1) + self.positional_embedding)
        out: torch.Tensor = self.ln_post(self.transformer(x)[0][:, 0]) @ self.proj
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with batch norms; where a stride is due, both paths average before their 1×1 (anti-aliased)."""

    def __init__(self, cin: int, width: int, stride: int) -> None:
        super().__init__()
        cout = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.stride = stride
        self.downsample: nn.Sequential | None = None
        if stride > 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout))

    def _shrunk(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, self.stride) if self.stride > 1 else x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        h = F.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(self._shrunk(h)))
        return F.relu(h + (x if self.downsample is None else self.downsample(self._shrunk(x))))


class AttentionPool2d(nn.Module):
    """x (B, C, h, w) → (B, embed): the mean place asks, itself and all places answer."""

    def __init__(self, side: int, channels: int, heads: int, embed: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, channels) * channels**-0.5)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.c_proj = nn.Linear(channels, embed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = x.flatten(2).transpose(1, 2)
        places = torch.cat([places.mean(1, keepdim=True), places], 1) + self.positional_embedding
        parts = (self.q_proj(places[:, :1]), self.k_proj(places), self.v_proj(places))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        out: torch.Tensor = self.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, 0])
        return out


class ModifiedResNet(nn.Module):
    """pixels (B, 3, R, R), normalised → (B, embed), not of unit length: a ResNet with three stem convolutions."""

    def __init__(self, cfg: CLIPVisionConfig) -> None:
        super().__init__()
        if not isinstance(cfg.layers, tuple):
            raise InputError(
                "layers is a number: this is the config of a transformer tower, build VisionTransformer from it"
            )
        half = cfg.width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, cfg.width, 3, padding=1, bias=False), nn.BatchNorm2d(cfg.width)
        cin = cfg.width
        for stage, blocks in enumerate(cfg.layers):
            width = cfg.width * 2**stage
            first = Bottleneck(cin, width, stride=1 if stage == 0 else 2)
            cin = 4 * width
            rest = (Bottleneck(cin, width, stride=1) for _ in range(blocks - 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.attnpool = AttentionPool2d(cfg.resolution // 32, cin, cfg.width // 2, cfg.embed)  # heads of 64 channels

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(pixels)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.avg_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        out: torch.Tensor = self.attnpool(x)
        return out


class CLIP(TextTower):
    """Both towers; ``forward`` gives the text's tokens and pooled vector, as in ``TextTower``."""

    def __init__(self, text: CLIPTextConfig, vision: CLIPVisionConfig) -> None:
        if text.embed != vision.embed:
            raise InputError(f"the towers' shared width differs: text {text.embed}, vision {vision.embed}")
        super().__init__(text)
        self.vision = vision
        self.visual = ModifiedResNet(vision) if isinstance(vision.layers, tuple) else VisionTransformer(vision)

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (B, L) int64 → (B, embed), not of unit length."""
        return self.forward(ids)[1]

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels (B, 3, R, R), ``normalised`` → (B, embed), not of unit length; differentiable in the pixels."""
        out: torch.Tensor = self.visual(pixels)
        return out

    def similarity(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Scaled cosines (pictures, texts): the original's ``logits_per_image``."""
        image, text = (F.normalize(v, dim=-1) for v in (self.encode_image(pixels), self.encode_text(ids)))
        return self.logit_scale.exp() * image @ text.T
