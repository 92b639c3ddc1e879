"""softmax(q·kᵀ/√width)·v: torch's own kernel, or slices of the queries where that kernel is slow.

torch's fused kernel wants the numbers of one head beside each other and otherwise computes every score in memory (1024 places,
twelve heads of 64, two cores with AMX: 171 ms instead of 15 in bfloat16, 140 instead of 35 in float32), so they are copied
first. Not where a CPU trains: there the fused kernel's way back is the slow one.

The rule for slices: bfloat16 on a CPU that has AVX-512 and no AMX, at least ``MANY`` queries and as many keys, and nothing that
records the computation. torch's fused kernel does not reach that processor's products of matrices in bfloat16, while a product,
a softmax and a product do. Everywhere else, few keys (a text's) and every export among it, the operation stays one.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

MANY = 1024
"""Places of a picture from which slices are taken: the two largest levels of a U-Net at 512 pixels, the autoencoder's middle."""
SCORES = 2**22
"""Numbers in one slice's scores at most, 8 MiB; a slice has one query at least."""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q (B, heads, L, width), k, v (B, heads, S, width) → (B, heads, L, width)."""
    if recorded():
        return F.scaled_dot_product_attention(q, k, v)
    if not learning_on_cpu(q, k, v):
        if in_slices(q, k, v):
            return sliced(q, k, v)
        q, k, v = (part if part.stride(-1) == 1 else part.contiguous() for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)


def recorded() -> bool:
    """Whether something records the computation; a tracer's sizes are no numbers, so nothing may be asked of them."""
    return torch._C._get_tracing_state() is not None or torch.compiler.is_compiling()


def learning_on_cpu(*parts: torch.Tensor) -> bool:
    grad = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    return grad and all(part.device.type == "cpu" for part in parts)


def in_slices(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether the rule says so."""
    if not all(part.device.type == "cpu" and part.dtype == torch.bfloat16 for part in (q, k, v)):
        return False
    return min(q.shape[-2], k.shape[-2]) >= MANY and slow_kernel()


@functools.cache
def slow_kernel() -> bool:
    """Whether this processor is of the kind that the rule is for."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and not amx()


def sliced(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """As :func:`attend`, some queries at a time, so that no more than ``SCORES`` scores are held."""
    b, heads, length, width = q.shape
    queries, keys, values = (part.flatten(0, 1) for part in (q, k, v))
    turned, scale = keys.transpose(1, 2), width**-0.5
    step = max(SCORES // (b * heads * keys.shape[1]), 1)
    out = torch.empty((b * heads, length, values.shape[2]), dtype=v.dtype, device=v.device)
    nothing = out.new_zeros(())
    for start in range(0, length, step):
        # the scale goes into the product: a scaled query would be rounded once more
        scores = torch.baddbmm(nothing, queries[:, start : start + step], turned, beta=0, alpha=scale)
        torch.bmm(scores.softmax(-1), values, out=out[:, start : start + step])
    result: torch.Tensor = out.unflatten(0, (b, heads))
    return result
