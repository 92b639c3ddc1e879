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
    return nearest_rows(weight.flatten(1)).view_as(weight)


def nearest_rows(rows: torch.Tensor) -> torch.Tensor:
    """(…, n): the same of each of the rows."""
    scale = (rows.abs().amax(-1, keepdim=True) / LARGEST).clamp(min=1e-12)
    return (rows / scale).round_().mul_(scale)


@contextmanager
def rounded(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside, ``weights`` are the nearest ones that int8 holds; afterwards they are what they were.

    Those of one shape are rounded together, because a GPU would spend its time on beginning.
    """
    alike: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for w in weights:
        alike.setdefault(tuple(w.shape), []).append(w)
    with torch.no_grad():
        exact = [torch.stack(group) for group in alike.values()]
        for group, own in zip(alike.values(), exact, strict=True):
            torch._foreach_copy_(group, list(nearest_rows(own.flatten(2)).view_as(own)))
    try:
        yield
    finally:
        with torch.no_grad():
            for group, own in zip(alike.values(), exact, strict=True):
                torch._foreach_copy_(group, list(own))
