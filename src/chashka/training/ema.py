"""Power-function average of weights (EDM2, arXiv 2312.02696, section 3.1): no warm-up constant, one relative width."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch


def exponent(relative_width: float) -> float:
    """Gamma of the profile t^gamma whose standard deviation is ``relative_width`` of the run so far (eq. 126).

    Solves (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = width^2 by bisection; ``relative_width`` in (0, 0.28].
    """
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        width = math.sqrt((middle + 1) / ((middle + 2) ** 2 * (middle + 3)))
        low, high = (middle, high) if width > relative_width else (low, middle)
    return (low + high) / 2


class Average:
    """Averages of named float32 tensors; ``update(step)`` with step counted from 1."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], relative_width: float) -> None:
        self.gamma = exponent(relative_width)
        self.source = dict(tensors)
        self.values = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """values <- beta·values + (1 - beta)·weights with beta = (1 - 1/step)^(gamma + 1) (eq. 127)."""
        beta = (1 - 1 / step) ** (self.gamma + 1)
        torch._foreach_lerp_(list(self.values.values()), list(self.source.values()), 1 - beta)
