"""AdamW, or Muon for the matrices of hidden layers with AdamW for everything else; one learning rate for both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    found_inf: torch.Tensor | None = None
    """As torch's fused optimisers have it: a scalar tensor; where it is above 0 a step leaves everything as it is."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient; takes no closure.

        Matrices of one shape are made orthogonal together, and what is done to every matrix is done to all at once: a GPU would
        spend its time on beginning small products.
        """
        kept = 1.0 if self.found_inf is None else 1.0 - self.found_inf
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(tuple(p.flatten(1).shape), []).append(p)
            moved: list[torch.Tensor] = []
            ways: list[torch.Tensor] = []
            for shape, params in alike.items():
                way = orthogonal(self._ahead(params)) * (group["lr"] * ADAM_SIZE * max(shape) ** 0.5 * kept)
                moved += params
                ways += [one.view_as(p) for one, p in zip(way, params, strict=True)]
            if moved:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"] * kept)
                torch._foreach_sub_(moved, ways)

    def _ahead(self, params: Sequence[nn.Parameter]) -> torch.Tensor:
        """(n, rows, columns): the gradients' momentum, with Nesterov's look ahead; what is remembered of it moves on."""
        gradient = torch.stack([p.grad.flatten(1) for p in params if p.grad is not None])
        momentum = self._momentum(params)
        if self.found_inf is not None:
            gradient = torch.where(self.found_inf > 0, momentum, gradient)
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp_(momentum, MOMENTUM)

    def _momentum(self, params: Sequence[nn.Parameter]) -> torch.Tensor:
        """(n, rows, columns), of which every matrix's own state is a part."""
        known = [self.state[p].get("momentum") for p in params]
        whole = None if known[0] is None else known[0]._base
        if whole is None or len(whole) != len(params) or any(m is None or m._base is not whole for m in known):
            parts = [torch.zeros_like(p) if m is None else m for m, p in zip(known, params, strict=True)]
            whole = torch.stack([part.flatten(1) for part in parts])
            for p, part in zip(params, whole, strict=True):
                self.state[p]["momentum"] = part.view(p.shape)
        return whole


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """(…, m, n) → about U Vᵀ of its singular value decomposition, by five Newton-Schulz iterations.

    Each multiplies the matrix from the left by a polynomial of its own X Xᵀ. Where it is more than twice as wide as high, as
    kernels are, the iterations run on X Xᵀ alone, in float32, and X is multiplied once, by all of them: a kernel of 256 × 2304
    takes a third of the time.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    wide = (matrix.mT if tall else matrix).reshape(-1, *sorted(matrix.shape[-2:]))
    x = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    if x.shape[-1] > 2 * x.shape[-2]:
        gram, turned = x @ x.mT, None
        for _ in range(ITERATIONS):
            step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            step.diagonal(dim1=-2, dim2=-1).add_(a)
            turned, gram = step if turned is None else step @ turned, step @ (step @ gram)
        x = turned @ x
    else:
        x = x.to(matrix_type(matrix.device.type))
        for _ in range(ITERATIONS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: torch.Tensor = (x.mT if tall else x).to(matrix.dtype).reshape(matrix.shape)
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
