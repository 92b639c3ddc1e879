"""What is added to the matrices of a trained network so that it does something else: W + up·down, few numbers beside many
(LoRA, arXiv 2106.09685). The network's own weights stay as they are, and stay in one file."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from chashka.checkpoints.low_rank import WEIGHT


class LowRank(nn.Module):
    """Changes of rank ``rank`` to every matrix of ``network`` with more rows and columns than that; none at first.

    Its parameters are called as the layers: ``<layer>.up`` (O, rank) and ``<layer>.down`` (rank, I), where the layer's weight is
    (O, …) with I numbers for each of the O.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        self.layers = [name for name, _ in changeable(network, rank)]
        for name, weight in changeable(network, rank):
            rows, columns = weight.flatten(1).shape
            leaf = self._leaf(name)
            leaf.up = nn.Parameter(torch.zeros(rows, rank))
            leaf.down = nn.Parameter(torch.randn(rank, columns) / math.sqrt(columns))

    def changed(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """The weights that ``network`` has with the changes, float32, by its own names."""
        weights = dict(network.named_parameters())
        out = {}
        for name in self.layers:
            leaf, weight = self.get_submodule(name), weights[name + WEIGHT]
            with torch.autocast(weight.device.type, enabled=False):
                product = leaf.get_parameter("up") @ leaf.get_parameter("down")
                out[name + WEIGHT] = weight + product.view_as(weight)
        return out

    def _leaf(self, name: str) -> nn.Module:
        """The module of this dotted name, made with all above it."""
        module: nn.Module = self
        for part in name.split("."):
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module


def changeable(network: nn.Module, rank: int) -> Iterator[tuple[str, nn.Parameter]]:
    """The layers whose weights a change of this rank is smaller than, and these weights."""
    for name, weight in network.named_parameters():
        if name.endswith(WEIGHT) and weight.ndim > 1 and min(weight.flatten(1).shape) > rank:
            yield name.removesuffix(WEIGHT), weight
