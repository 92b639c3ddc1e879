"""AdamW, or Muon for the matrices of hidden layers with AdamW for everything else; one learning rate for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from chashka.errors import TrainingError
from chashka.training.arithmetic import matrix_type
from chashka.training.recipes import Optimiser

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: five steps pull singular values to between 0.7 and 1.2, quicker than others get to 1."""
ITERATIONS = 5
ADAM_SIZE = 0.2
"""The usual root mean square of Adam's steps."""
NARROW = 32
"""Matrices with fewer rows or columns go by AdamW: first and last layers, scales, small heads."""


class Muon(torch.optim.Optimizer):
    """Momentum replaced by the nearest orthogonal matrix (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
    networks"): rare directions, such as those of a concept that a batch shows once, move as far as common ones.

    Steps have the size of Adam's (Liu et al., arXiv 2502.16982, section 2.2). A convolution's kernel is the matrix
    (out, in · height · width).
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient; takes no closure.

        Matrices of one shape are made orthogonal together: a GPU would spend its time on beginning small products.
        """
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(tuple(p.flatten(1).shape), []).append(p)
            for params in alike.values():
                ahead = torch.stack([self._ahead(p) for p in params])
                size = ADAM_SIZE * max(ahead.shape[1:]) ** 0.5
                for p, way in zip(params, orthogonal(ahead), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(way.view_as(p), alpha=-group["lr"] * size)

    def _ahead(self, p: nn.Parameter) -> torch.Tensor:
        """The gradient's momentum, with Nesterov's look ahead, as a matrix; what is remembered of it moves on."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        return p.grad.lerp(momentum, MOMENTUM).flatten(1)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """(…, m, n) → about U Vᵀ of its singular value decomposition, by five Newton-Schulz iterations.

    Each multiplies the matrix from the left by a polynomial of its own X Xᵀ. Where it is more than twice as wide as high, as
    kernels are, the iterations run on X Xᵀ alone, in float32, and X is multiplied once, by all of them: a kernel of 256 × 2304
    takes a third of the time.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    wide = matrix.mT if tall else matrix
    x = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    if x.shape[-1] > 2 * x.shape[-2]:
        one = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
        gram, turned = x @ x.mT, one
        for _ in range(ITERATIONS):
            step = a * one + b * gram + c * gram @ gram
            turned, gram = step @ turned, step @ (step @ gram)
        x = turned @ x
    else:
        x = x.to(matrix_type(matrix.device.type))
        for _ in range(ITERATIONS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = (x.mT if tall else x).to(matrix.dtype)
    return result


def optimisers(modules: Mapping[str, nn.Module], settings: Optimiser) -> list[torch.optim.Optimizer]:
    """What moves the parameters of ``modules`` that want gradients. Vectors and scalars do not decay."""
    if settings.kind not in ("adamw", "muon"):
        raise TrainingError(f"the recipe's optimiser is {settings.kind!r}; use adamw or muon")
    moving = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    hidden = hidden_matrices(modules) if settings.kind == "muon" else []
    taken = {id(p) for p in hidden}
    rest = [p for p in moving if id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.ndim >= 2]},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    decay = settings.weight_decay
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, weight_decay=decay, fused=True)
    ]
    return [*made, Muon(hidden, settings.lr, decay)] if hidden else made


def hidden_matrices(modules: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """Weights of linear layers and convolutions that are wide both ways; embeddings are tables, not matrices."""
    layers = [layer for m in modules.values() for layer in m.modules()]
    weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)]
    wide = [w for w in weights if w.requires_grad and min(w.flatten(1).shape) >= NARROW]
    return [w for w in wide if isinstance(w, nn.Parameter)]
