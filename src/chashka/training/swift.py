"""A U-Net's forward pass as a processor with bfloat16 trains it fastest: nets/unet.py's weights and figures, in another order.

There torch multiplies two to four times as fast with channels last, but normalises groups fifteen times as slowly. So the channels
stay last from the first convolution to the last, a norm is two sums and one pass over the picture, and what stands between two
products (norm, scale and shift, SiLU, dropout; heads of unit length; softmax) is compiled into one loop each. Compiled as a whole
the network is no faster than it is without (docs/models/experiments.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.attention import (
    GEGLU,
    BasicTransformerBlock,
    CrossAttention,
    HeadNorm,
    QKVAttention,
    SpatialTransformer,
)
from chashka.nets.unet import ResBlock, UNet, Up, sinusoid, waves
from chashka.training.arithmetic import quick_bfloat16
from chashka.training.recipes import Run

P = ParamSpec("P")
R = TypeVar("R")

SHAPES = 64
"""Of one piece: every level and width has its own."""
PRESENTATIONS, MINUTES = 20_000, 5.0
"""Shorter runs are over before a minute of compiling has paid."""
STEPS = 256
"""Dropout's probability is a multiple of 1/256: one byte of chance for each number."""


def usable(unet: UNet, device: str) -> bool:
    """Whether this machine gains by it, can compile it, and the network is of the kind that is written here."""
    written = unet.cfg.context is not None and not unet.cfg.dropped
    return written and device == "cpu" and quick_bfloat16() and compiles()


def worth(run: Run) -> bool:
    """Whether a run is long enough."""
    return run.steps * run.batch >= PRESENTATIONS if run.steps else run.minutes >= MINUTES


@functools.cache
def compiles() -> bool:
    """Whether torch finds a C++ compiler; pieces may have up to ``SHAPES`` shapes from then on."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return False
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, SHAPES)
    return True


def forward(
    unet: UNet, x: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor, added: torch.Tensor | None
) -> torch.Tensor:
    """What ``unet(x, t, tokens, added)`` says."""
    emb = unet.time_embed(sinusoid(t, unet.cfg.width))
    if added is not None:
        emb = emb + (unet.label_emb(added) if unet.cfg.pooled else added)
    if unet.cfg.places:
        x = torch.cat([x, waves(x, unet.cfg.places).expand(x.shape[0], -1, -1, -1)], 1)
    x = x.contiguous(memory_format=torch.channels_last)
    left = []
    for number, stage in enumerate(unet.input_blocks):
        x = through(stage, x, emb, tokens)
        if not number:
            x = unet.laid_out(x, tokens)
        left.append(x)
    x = through(unet.middle_block, x, emb, tokens)
    for stage in unet.output_blocks:
        x = through(stage, torch.cat([x, left.pop()], 1), emb, tokens, left[-1] if left else None)
    last: torch.Tensor = unet.out[2](normed(x, unet.out[0], act=True))
    return last


def through(
    stage: nn.Module, x: torch.Tensor, emb: torch.Tensor, tokens: torch.Tensor, like: torch.Tensor | None = None
) -> torch.Tensor:
    for layer in stage.children():
        if isinstance(layer, ResBlock):
            x = residual(layer, x, emb)
        elif isinstance(layer, QKVAttention):
            x = attention(layer, x, tokens)
        elif isinstance(layer, SpatialTransformer):
            x = transformer(layer, x, tokens)
        else:
            x = layer(x, like) if isinstance(layer, Up) else layer(x, emb, tokens)
    return x


def residual(block: ResBlock, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
    h = normed(x, block.in_layers[0], act=True)
    if block.resize == "up":
        h, x = (F.interpolate(v, scale_factor=2.0, mode="nearest") for v in (h, x))
    elif block.resize == "down":
        h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
    h, e = block.in_layers[2](h), block.emb_layers(emb).float()
    drop = float(block.out_layers[2].p) if block.training else 0.0  # type: ignore[arg-type]
    if block.scale_shift:
        h = normed(h, block.out_layers[0], act=True, moved=e.chunk(2, 1), drop=drop)
    else:
        h = normed(h + e[..., None, None].to(h.dtype), block.out_layers[0], act=True, drop=drop)
    h, skip = block.out_layers[3](h), block.skip_connection
    if isinstance(skip, nn.Conv2d):
        x = square(pointwise(skip, flat(x)), x)
    out: torch.Tensor = x + h
    return out


def attention(block: QKVAttention, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    own = pointwise(block.qkv, flat(normed(x, block.norm)))
    text = pointwise(block.encoder_kv, tokens)
    q, k, v = added_heads(own, text, scale_of(block.q_norm), scale_of(block.k_norm), block.heads)
    mixed = attend(q, k, v, block.heads)
    return x + square(pointwise(block.proj_out, mixed), x)


def transformer(block: SpatialTransformer, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    h = pointwise(block.proj_in, flat(normed(x, block.norm)))
    for inner in block.transformer_blocks:
        assert isinstance(inner, BasicTransformerBlock)
        h = h + crossed(inner.attn1, layer_normed(h, inner.norm1.weight, inner.norm1.bias, inner.norm1.eps))
        h = h + crossed(inner.attn2, layer_normed(h, inner.norm2.weight, inner.norm2.bias, inner.norm2.eps), tokens)
        enter, _, leave = inner.ff.net
        assert isinstance(enter, GEGLU)
        h = h + leave(gated(enter.proj(layer_normed(h, inner.norm3.weight, inner.norm3.bias, inner.norm3.eps))))
    return x + square(pointwise(block.proj_out, h), x)


def crossed(block: CrossAttention, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
    source = x if context is None else context
    q = heads_of(block.to_q(x), scale_of(block.q_norm), block.heads, True)
    k = heads_of(block.to_k(source), scale_of(block.k_norm), block.heads, False)
    out: torch.Tensor = block.to_out(attend(q, k, heads_of(block.to_v(source), None, block.heads, False), block.heads))
    return out


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """(B·heads, L or S, width), the queries over √width already → (B, L, heads·width)."""
    mixed = torch.bmm(shares(torch.bmm(q, k.transpose(1, 2))), v)
    joined: torch.Tensor = mixed.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)
    return joined


def scale_of(norm: nn.Module) -> torch.Tensor | None:
    return norm.scale if isinstance(norm, HeadNorm) else None


def pointwise(layer: nn.Module, y: torch.Tensor) -> torch.Tensor:
    """A linear layer, or a convolution of one place, of (B, N, C)."""
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    return F.linear(y, layer.weight.flatten(1), layer.bias)


def flat(x: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) with channels last → (B, h·w, C), the same memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def square(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The way back."""
    turned: torch.Tensor = y.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)
    return turned


def normed(
    x: torch.Tensor,
    norm: nn.Module,
    *,
    act: bool = False,
    moved: tuple[torch.Tensor, ...] = (),
    drop: float = 0.0,
) -> torch.Tensor:
    """GroupNorm, then ``moved`` (scale and shift (B, C)), then SiLU if ``act``, then dropout (which no place has without SiLU).

    All but the last two is x·a + d with one a and one d for each picture's channel.
    """
    assert isinstance(norm, nn.GroupNorm)
    y = flat(x)
    b, places, c = y.shape
    total, squares = (part.view(b, norm.num_groups, -1) for part in sums(y))
    count = places * total.shape[2]
    mean = total.sum(-1, keepdim=True) / count
    var = (squares.sum(-1, keepdim=True) / count - mean * mean).clamp(min=0)
    a = (var + norm.eps).rsqrt() * norm.weight.view(norm.num_groups, -1)
    d = norm.bias.view(norm.num_groups, -1) - mean * a
    a, d = a.view(b, c), d.view(b, c)
    if moved:
        scale, shift = moved
        a, d = a * (1 + scale), d * (1 + scale) + shift
    cut = round(drop * STEPS)
    if cut:
        return square(line_silu_dropout(y, a, d, chance(y), cut), x)
    return square(line_silu(y, a, d) if act else line(y, a, d), x)


def piece(written: Callable[P, R]) -> Callable[P, R]:
    """Compiled for every shape that it meets, when it is first called: torch's compiler takes a second to be imported."""

    @functools.cache
    def compiled() -> Callable[P, R]:
        return torch.compile(written, dynamic=False)

    @functools.wraps(written)
    def call(*given: P.args, **named: P.kwargs) -> R:
        return compiled()(*given, **named)

    return call


def chance(like: torch.Tensor) -> torch.Tensor:
    """A random byte for each number, eight of torch's own generator at a time."""
    words = torch.randint(-(2**63), 2**63 - 1, (-(-like.numel() // 8),), dtype=torch.int64, device=like.device)
    return words.view(torch.uint8)[: like.numel()].view(like.shape)


@piece
def sums(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, N, C) → of every channel the sum and the sum of squares, float32 (B, C)."""
    wide = x.float()
    return wide.sum(1), (wide * wide).sum(1)


@piece
def line(x: torch.Tensor, a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    return (x.float() * a[:, None] + d[:, None]).to(x.dtype)


@piece
def line_silu(x: torch.Tensor, a: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    return F.silu(x.float() * a[:, None] + d[:, None]).to(x.dtype)


@piece
def line_silu_dropout(x: torch.Tensor, a: torch.Tensor, d: torch.Tensor, byte: torch.Tensor, cut: int) -> torch.Tensor:
    y = F.silu(x.float() * a[:, None] + d[:, None])
    return torch.where(byte >= cut, y * (STEPS / (STEPS - cut)), 0.0).to(x.dtype)


@piece
def added_heads(
    own: torch.Tensor, text: torch.Tensor, q_scale: torch.Tensor | None, k_scale: torch.Tensor | None, heads: int
) -> tuple[torch.Tensor, ...]:
    """The picture's q, k, v and the text's k, v, interleaved per head → q, k, v (B·heads, …, width), the text's first."""
    q, k, v = (part.transpose(1, 2).float() for part in own.unflatten(2, (heads, 3, -1)).unbind(3))
    text_k, text_v = (part.transpose(1, 2).float() for part in text.unflatten(2, (heads, 2, -1)).unbind(3))
    k, v = torch.cat([text_k, k], 2), torch.cat([text_v, v], 2)
    q, k = of_length(q, q_scale) * q.shape[-1] ** -0.5, of_length(k, k_scale)
    return tuple(part.to(own.dtype).flatten(0, 1).contiguous() for part in (q, k, v))


@piece
def heads_of(y: torch.Tensor, scale: torch.Tensor | None, heads: int, queries: bool) -> torch.Tensor:
    """(B, N, heads·width) → (B·heads, N, width)."""
    part = of_length(y.unflatten(2, (heads, -1)).transpose(1, 2).float(), scale)
    part = part * part.shape[-1] ** -0.5 if queries else part
    return part.to(y.dtype).flatten(0, 1).contiguous()


def of_length(x: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """HeadNorm where there is one, with F.normalize's least length."""
    return x if scale is None else x * (x.square().sum(-1, keepdim=True).clamp(min=1e-24).rsqrt() * scale)


@piece
def layer_normed(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    return F.layer_norm(x.float(), weight.shape, weight, bias, eps).to(x.dtype)


@piece
def gated(y: torch.Tensor) -> torch.Tensor:
    """GEGLU after its product."""
    value, gate = y.float().chunk(2, -1)
    return (value * F.gelu(gate)).to(y.dtype)


@piece
def shares(scores: torch.Tensor) -> torch.Tensor:
    return scores.float().softmax(-1).to(scores.dtype)
