"""Presentations a second of the U-Net's training: nets/unet.py's forward pass beside training/swift.py's, in one run.

    .venv/bin/python benchmarks/training.py [RECIPE [BATCH [STEPS]]]

RECIPE is docs/models/recipes/unet-seventeenth.json, BATCH its own, STEPS of each way are 5, unless told. The numbers are random; a
step is forward, backward and the recipe's optimiser, as the training loop does it. The ways take turns, the shortest step counts.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from chashka.training import catalogue, swift
from chashka.training.arithmetic import autocast
from chashka.training.optimisers import optimisers
from chashka.training.recipes import UNetRecipe
from chashka.training.unet import Conditioned

SHIPPED = Path(__file__).parent.parent / "docs/models/recipes/unet-seventeenth.json"
SIDE = 16
"""Of the latents of a square picture."""


def main() -> None:
    name, batch, steps = (*sys.argv[1:], *(str(SHIPPED), "", "5")[len(sys.argv) - 1 :])
    recipe = catalogue.load(name, "unet")
    assert isinstance(recipe, UNetRecipe)
    measure(recipe, int(batch or recipe.run.batch), int(steps))


def measure(recipe: UNetRecipe, batch: int, steps: int) -> None:
    torch.manual_seed(0)
    head, unet = KandinskyTextHead(recipe.head) if recipe.head else None, UNet(recipe.network)
    moving = optimisers({"unet": unet} | ({"text_head": head} if head else {}), recipe.run.optimiser)
    x = torch.randn(batch, recipe.network.in_channels, SIDE, SIDE)
    t = torch.rand(batch) * 1000
    context, pooled = recipe.network.context or 0, recipe.network.pooled or 0
    widths = (recipe.head.tokens1, recipe.head.tokens2, recipe.head.pooled1) if recipe.head else (context, 0, pooled)
    text = {f"tokens{i + 1}": torch.randn(batch, recipe.text_block, widths[i]) for i in (0, 1)}
    text["pooled1"] = torch.randn(batch, widths[2])
    ways = {"plain": Conditioned(unet, head)}
    if swift.usable(unet, "cpu"):
        ways["swift"] = Conditioned(unet, head, [tuple(x.shape)])
    else:
        print("swift is left out: no bfloat16, or no C++ compiler, on this machine")

    def step(network: Conditioned) -> tuple[float, float]:
        """Seconds of the network, forward and backward, and of the optimisers."""
        started = time.perf_counter()
        with autocast("cpu"):
            loss = network(x, t, **text).float().square().mean()
        for p in network.parameters():
            p.grad = None
        loss.backward()
        learnt = time.perf_counter()
        for optimiser in moving:
            optimiser.step()
        return learnt - started, time.perf_counter() - learnt

    for network in ways.values():
        step(network)  # compiles, and makes what the optimisers remember
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(steps):
        for name, network in ways.items():
            taken[name].append(step(network))
    weights = sum(p.numel() for p in ways["plain"].parameters())
    print(f"training: {weights / 1e6:.1f} M weights, batches of {batch}, {torch.get_num_threads()} threads")
    best = {name: [min(part) for part in zip(*rows, strict=True)] for name, rows in taken.items()}
    for name, (network, optimiser) in best.items():
        ratio = sum(best["plain"]) / (network + optimiser)
        print(
            f"  {name:6} {batch / (network + optimiser):5.1f} a second  network {network:.2f} s  optimisers {optimiser:.2f} s"
            f"  {ratio:.2f} times as fast as plain"
        )


if __name__ == "__main__":
    main()
