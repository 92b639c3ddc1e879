"""Weights rounded to int8 while a network learns, as an export will store them: what it then is told to do, it does with them.

The forward and the backward pass see the rounded weights, the optimiser moves the exact ones (straight-through estimation:
Jacob et al., arXiv 1712.05877, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from chashka.checkpoints.int8 import LARGEST
from chashka.engines.components import kept_wide


def stored_as_int8(modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """The trained weights that an export in int8 makes int8."""
    return [
        p
        for module in modules.values()
        for name, p in module.named_parameters()
        if p.requires_grad and not kept_wide(module, name, p.shape)
    ]


def nearest(weight: torch.Tensor) -> torch.Tensor:
    """(C, …) → the same shape, every number a whole multiple, at most 127, of its channel's 127th part of the largest."""
    scale = (weight.flatten(1).abs().amax(1) / LARGEST).clamp(min=1e-12).reshape(-1, *(1,) * (weight.ndim - 1))
    out: torch.Tensor = (weight / scale).round() * scale
    return out


@contextmanager
def rounded(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, ``weights`` are the nearest ones that int8 holds; afterwards they are what they were."""
    with torch.no_grad():
        exact = [w.clone() for w in weights]
        for w in weights:
            w.copy_(nearest(w))
    try:
        yield
    finally:
        with torch.no_grad():
            for w, own in zip(weights, exact, strict=True):
                w.copy_(own)
