"""Muon: what it orthogonalises, how large its steps are, and which parameters it leaves to AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chashka.errors import TrainingError
from chashka.nets.multilingual import ContrastiveTextEncoder
from chashka.nets.teacup_configs import TEACUP_TEXT
from chashka.training.optimisers import (
    ADAM_SIZE,
    COEFFICIENTS,
    ITERATIONS,
    Muon,
    hidden_matrices,
    optimisers,
    orthogonal,
)
from chashka.training.recipes import Optimiser

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("shape", [(64, 64), (32, 200), (200, 32)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    matrix = u @ torch.diag(torch.logspace(-1.5, 0, min(shape))) @ v
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert found.shape == shape and found.dtype == torch.float32
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3
    assert float(torch.nn.functional.cosine_similarity(found.flatten(), (u @ v).flatten(), dim=0)) > 0.95


def test_wide_matrices_take_a_shorter_way_to_the_same() -> None:
    wide = torch.randn(48, 500, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 0, 48)[:, None]
    a, b, c = COEFFICIENTS
    x = wide / wide.norm()
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    assert torch.allclose(orthogonal(wide), x, atol=1e-4)


def test_matrices_of_one_shape_move_as_they_would_alone() -> None:
    chance = torch.Generator().manual_seed(2)
    start = [torch.randn(32, 64, generator=chance) for _ in range(3)] + [torch.randn(64, 32, generator=chance)]
    gradients = [torch.randn(w.shape, generator=chance) for w in start]
    together, alone = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    for params in (together, alone):
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient.clone()
    Muon(together, lr=0.1, weight_decay=0.1).step()
    for p in alone:
        Muon([p], lr=0.1, weight_decay=0.1).step()
    for p, q in zip(together, alone, strict=True):
        assert torch.allclose(p, q, atol=1e-5)


def test_rare_directions_move_as_far_as_common_ones() -> None:
    p = nn.Parameter(torch.zeros(32, 32))
    p.grad = torch.diag(torch.tensor([1.0] * 31 + [0.01]))
    Muon([p], lr=1.0, weight_decay=0.0).step()
    moved = p.detach().diagonal().abs()
    assert float(moved[-1] / moved[:-1].mean()) > 0.5
    assert float(p.detach().square().mean().sqrt()) == pytest.approx(ADAM_SIZE, rel=0.2), "a step of Adam's size"


def test_a_kernel_counts_as_one_matrix() -> None:
    conv = nn.Conv2d(32, 64, 3, bias=False)
    before = conv.weight.detach().clone()
    conv(torch.randn(2, 32, 8, 8)).square().mean().backward()
    Muon(hidden_matrices({"net": conv}), lr=0.1, weight_decay=0.0).step()
    change = torch.linalg.svdvals((conv.weight.detach() - before).flatten(1))
    assert float(change.max() / change.min()) < 2.2


def test_tables_vectors_and_narrow_layers_go_by_adamw() -> None:
    encoder = ContrastiveTextEncoder(TEACUP_TEXT)
    net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3), nn.LayerNorm(64))
    modules: dict[str, nn.Module] = {"text": encoder, "net": net}
    adamw, muon = optimisers(modules, Optimiser(kind="muon", weight_decay=0.1))
    by_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    by_adamw = [p for group in adamw.param_groups for p in group["params"]]
    assert id(net[0].weight) in by_muon and id(net[1].weight) not in by_muon
    assert id(encoder.embed.weight) not in by_muon
    assert len(by_muon) + len(by_adamw) == sum(1 for m in modules.values() for _ in m.parameters())
    assert adamw.param_groups[1]["weight_decay"] == 0.0 and all(p.ndim < 2 for p in adamw.param_groups[1]["params"])
    assert len(optimisers(modules, Optimiser())) == 1
    with pytest.raises(TrainingError, match="'sgd'; use adamw or muon"):
        optimisers(modules, Optimiser(kind="sgd"))


def test_momentum_is_one_tensor_in_parts_and_survives_a_restore() -> None:
    """Of each shape; a run that resumes puts other tensors there, which are taken in at the next step."""
    chance = torch.Generator().manual_seed(3)
    start = [torch.randn(32, 64, generator=chance) for _ in range(2)]
    gradients = [torch.randn(32, 64, generator=chance) for _ in range(4)]

    def run(restored: bool) -> list[nn.Parameter]:
        params = [nn.Parameter(w.clone()) for w in start]
        muon = Muon(params, lr=0.1, weight_decay=0.1)
        for step in range(2):
            for p, gradient in zip(params, gradients[2 * step :], strict=False):
                p.grad = gradient.clone()
            if restored:
                for p in params:
                    state = {k: v.clone() for k, v in muon.state[p].items()}
                    muon.state[p] = state
            muon.step()
        whole = {muon.state[p]["momentum"]._base.data_ptr() for p in params}
        assert len(whole) == 1
        return params

    for p, q in zip(run(True), run(False), strict=True):
        assert torch.equal(p, q)
