"""One U-Net for guided-diffusion, latent diffusion and Kandinsky 2.0, with the original key names.

Originals: openai/guided-diffusion ``unet.py``, CompVis/stable-diffusion ``openaimodel.py``, ai-forever/Kandinsky-2.0
``text2im_model.py``. The names of attributes below ARE the checkpoints' key names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from chashka.errors import InputError
from chashka.nets.attention import QKVAttention, SpatialTransformer
from chashka.nets.configs import UNetConfig

Context = torch.Tensor | None


def sinusoid(t: torch.Tensor, width: int) -> torch.Tensor:
    """Timesteps (B,) → (B, width): cosines, then sines, of frequencies from 1 down to 1/10000."""
    half = width // 2
    place = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t[:, None].float() * torch.exp(-math.log(10000) * place / half)
    return torch.cat([angle.cos(), angle.sin()], -1)


def waves(x: torch.Tensor, count: int) -> torch.Tensor:
    """(B, C, h, w) → (1, 4·count, h, w): sines and cosines of half a turn over the picture, of one, two, …, down and across."""
    parts = []
    for axis in (2, 3):
        size = x.shape[axis]
        place = (torch.arange(size, dtype=torch.float32, device=x.device) + 0.5) / size - 0.5
        place = place[:, None] if axis == 2 else place[None, :]
        for octave in range(count):
            angle = (torch.zeros_like(x[0, 0]) + place) * (math.pi * 2**octave)
            parts += [angle.sin(), angle.cos()]
    return torch.stack(parts)[None].to(x.dtype)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the embedding comes in between; may change the size inside (``resize``)."""

    def __init__(self, cin: int, cout: int, embedding: int, cfg: UNetConfig, resize: str | None = None) -> None:
        super().__init__()
        self.resize, self.scale_shift = resize, cfg.scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(cfg.norm_groups, cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * cout if cfg.scale_shift else cout))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(cfg.norm_groups, cout),
            nn.SiLU(),
            nn.Dropout(cfg.dropout),
            nn.Conv2d(cout, cout, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if cin == cout else nn.Conv2d(cin, cout, 1)

    def forward(self, x: torch.Tensor, emb: torch.Tensor, context: Context) -> torch.Tensor:
        h = self.in_layers[1](self.in_layers[0](x))
        if self.resize == "up":
            h, x = (F.interpolate(v, scale_factor=2.0, mode="nearest") for v in (h, x))
        elif self.resize == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        h, e = self.in_layers[2](h), self.emb_layers(emb)
        if self.scale_shift:
            # Split before the axes are added: OpenVINO 2026.4 crashes on a split of the four-dimensional embedding.
            scale, shift = (part[..., None, None] for part in e.chunk(2, 1))
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + e[..., None, None])
        for layer in list(self.out_layers)[1:]:
            h = layer(h)
        out: torch.Tensor = self.skip_connection(x) + h
        return out


class Down(nn.Module):
    """Strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor, emb: torch.Tensor, context: Context) -> torch.Tensor:
        out: torch.Tensor = self.op(x)
        return out


class Up(nn.Module):
    """Nearest ×2, of an odd number of rows or columns without the last of them, then convolution (diffusers' ``Upsample2D``)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """like: what went down at this size."""
        larger = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if torch._C._get_tracing_state() is not None or larger.shape[2:] != like.shape[2:]:  # a graph has to know both
            larger = larger[:, :, : like.shape[2], : like.shape[3]]
        out: torch.Tensor = self.conv(larger)
        return out


class Stem(nn.Conv2d):
    """The first convolution, callable like every other layer of a stage."""

    def forward(self, x: torch.Tensor, emb: torch.Tensor, context: Context) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x)


DROPPABLE = (ResBlock, QKVAttention, SpatialTransformer)


class UNet(nn.Module):
    """x (B, in_channels, h, w), t (B,) in [0, 1000], tokens (B, L, context)?, added? → (B, out, h, w).

    keep (B,)?: 1, or 0 where a row is to be drawn without the blocks that the configuration names in ``dropped``.
    h and w are multiples of 2^(levels - 1), where sizes change by convolutions any numbers. ``tokens`` are the text's (no padding
    mask, as in the originals); ``added`` (B, 4·width) joins the time embedding (Kandinsky), or (B, pooled) does through
    ``label_emb``. Raises InputError for tokens that the configuration has no place for, and for missing ones where the
    transformer kind of attention has nothing else to look at.
    """

    def __init__(self, cfg: UNetConfig) -> None:
        super().__init__()
        self.cfg = cfg
        embedding = 4 * cfg.width
        self.time_embed = nn.Sequential(nn.Linear(cfg.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        if cfg.pooled:
            two = nn.Sequential(nn.Linear(cfg.pooled, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
            self.label_emb = nn.Sequential(two)
        widths = [int(m * cfg.width) for m in cfg.mult]
        downs, skips = self._downs(widths, embedding)
        self.input_blocks = nn.ModuleList(downs)
        ch = widths[-1]
        middle = [ResBlock(ch, ch, embedding, cfg), self._attention(ch), ResBlock(ch, ch, embedding, cfg)]
        self.middle_block = nn.ModuleList(middle)
        self.output_blocks = nn.ModuleList(self._ups(widths, skips, embedding))
        self.out = nn.Sequential(
            nn.GroupNorm(cfg.norm_groups, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], cfg.out_channels, 3, padding=1)
        )
        if cfg.told:
            assert cfg.context is not None
            self.told = nn.Linear(cfg.context, cfg.width)
            nn.init.zeros_(self.told.weight)
            nn.init.zeros_(self.told.bias)
        self._check_dropped()
        self._dropped = {self.get_submodule(name) for name in cfg.dropped}

    def _check_dropped(self) -> None:
        known = {name: layer for name, layer in self.named_modules() if isinstance(layer, DROPPABLE)}
        for name in self.cfg.dropped:
            if name not in known or getattr(known[name], "resize", None):
                raise InputError(
                    f"dropped: {name!r} is no residual or attention block of one size; such as middle_block.0"
                )

    def _attention(self, channels: int) -> nn.Module:
        kind = QKVAttention if self.cfg.attention == "qkv" else SpatialTransformer
        return kind(channels, self.cfg)

    def _downs(self, widths: list[int], embedding: int) -> tuple[list[nn.ModuleList], list[int]]:
        """Input stages and the widths of the skips that they leave."""
        cfg, ch = self.cfg, widths[0]
        stages, skips = [nn.ModuleList([Stem(cfg.in_channels + 4 * cfg.places, ch, 3, padding=1)])], [ch]
        for level, width in enumerate(widths):
            for _ in range(cfg.res_blocks):
                stage: list[nn.Module] = [ResBlock(ch, width, embedding, cfg)]
                ch = width
                if level in cfg.attention_levels:
                    stage.append(self._attention(ch))
                stages.append(nn.ModuleList(stage))
                skips.append(ch)
            if level + 1 < len(widths):
                smaller = ResBlock(ch, ch, embedding, cfg, "down") if cfg.resample == "resblock" else Down(ch)
                stages.append(nn.ModuleList([smaller]))
                skips.append(ch)
        return stages, skips

    def _ups(self, widths: list[int], skips: list[int], embedding: int) -> list[nn.ModuleList]:
        cfg, ch, stages = self.cfg, widths[-1], []
        for level, width in reversed(list(enumerate(widths))):
            for i in range(cfg.res_blocks + 1):
                stage: list[nn.Module] = [ResBlock(ch + skips.pop(), width, embedding, cfg)]
                ch = width
                if level in cfg.attention_levels:
                    stage.append(self._attention(ch))
                if level and i == cfg.res_blocks:
                    larger = ResBlock(ch, ch, embedding, cfg, "up") if cfg.resample == "resblock" else Up(ch)
                    stage.append(larger)
                stages.append(nn.ModuleList(stage))
        return stages

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        tokens: Context = None,
        added: torch.Tensor | None = None,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self._check(tokens)
        emb = self.time_embed(sinusoid(t, self.cfg.width))
        if added is not None:
            emb = emb + (self.label_emb(added) if self.cfg.pooled else added)
        if self.cfg.places:
            x = torch.cat([x, waves(x, self.cfg.places).expand(x.shape[0], -1, -1, -1)], 1)
        left = []
        for number, stage in enumerate(self.input_blocks):
            x = self._run(stage, x, emb, tokens, keep)
            if not number:
                x = self.laid_out(x, tokens)
            left.append(x)
        x = self._run(self.middle_block, x, emb, tokens, keep)
        for stage in self.output_blocks:
            x = self._run(stage, torch.cat([x, left.pop()], 1), emb, tokens, keep, left[-1] if left else None)
        out: torch.Tensor = self.out(x)
        return out

    def laid_out(self, x: torch.Tensor, tokens: Context) -> torch.Tensor:
        """x (B, width, h, w) with what the places' tokens say of each place, from one to the next by degrees."""
        side = self.cfg.told
        if not side or tokens is None:
            return x
        said = self.told(tokens[:, : side * side]).transpose(1, 2).unflatten(2, (side, side))
        return x + F.interpolate(said, size=x.shape[2:], mode="bilinear").to(x.dtype)

    def _check(self, tokens: Context) -> None:
        cfg = self.cfg
        if tokens is not None and cfg.context is None:
            raise InputError("this U-Net has no text: its configuration sets no context, so leave tokens out")
        if tokens is None and cfg.context and cfg.attention == "transformer":
            raise InputError(f"this U-Net attends to the text: give tokens of shape (rows, length, {cfg.context})")

    def _run(
        self,
        stage: nn.Module,
        x: torch.Tensor,
        emb: torch.Tensor,
        tokens: Context,
        keep: torch.Tensor | None,
        like: torch.Tensor | None = None,
    ) -> torch.Tensor:
        for layer in stage.children():
            before, x = x, layer(x, like) if isinstance(layer, Up) else layer(x, emb, tokens)
            if keep is not None and layer in self._dropped:
                before = layer.skip_connection(before) if isinstance(layer, ResBlock) else before
                x = before + keep.reshape(-1, 1, 1, 1) * (x - before)
        return x
