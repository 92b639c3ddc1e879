"""Random masks for inpainting networks, and how a network without mask channels gets them. 1 is what is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from chashka.nets.configs import UNetConfig

STEM = "input_blocks.0.0.weight"
KINDS = 4
"""Boxes, everything but a box, strokes, and one side of the picture: repairs, and the four directions of outpainting."""


def random_masks(like: torch.Tensor, share: float, chance: torch.Generator) -> torch.Tensor:
    """(B, 1, h, w) of 0 and 1 for latents (B, C, h, w): a random mask in about ``share`` of the rows, ones in the others."""
    b, _, h, w = like.shape
    u = torch.rand(12, b, 1, 1, generator=chance, device=like.device)
    y = ((torch.arange(h, device=like.device) + 0.5) / h)[None, :, None]
    x = ((torch.arange(w, device=like.device) + 0.5) / w)[None, None, :]
    box = ((x - u[0]).abs() < 0.1 + 0.3 * u[2]) & ((y - u[1]).abs() < 0.1 + 0.3 * u[3])
    # a stroke through three points, 1 to 4 cells of 16 wide
    width = 0.03 + 0.09 * u[6]
    stroke = (_distance(x, y, u[0], u[1], u[2], u[3]) < width) | (_distance(x, y, u[2], u[3], u[4], u[5]) < width)
    along = torch.where(u[7] < 0.5, x + 0 * y, y + 0 * x)
    side = torch.where(u[8] < 0.5, along, 1 - along) < 0.15 + 0.7 * u[9]
    kind = (u[10] * KINDS).long()
    mask = torch.where(kind == 0, box, torch.where(kind == 1, ~box, torch.where(kind == 2, stroke, side)))
    return (mask | (u[11] >= share)).to(like.dtype)[:, None]


def _distance(x: torch.Tensor, y: torch.Tensor, *ends: torch.Tensor) -> torch.Tensor:
    """(B, h, w): how far the places are from the line between two points."""
    ax, ay, bx, by = ends
    dx, dy = bx - ax, by - ay
    along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).clamp(min=1e-6)).clamp(0, 1)
    return ((x - ax - along * dx).square() + (y - ay - along * dy).square()).sqrt()


def with_mask_channels(weights: Mapping[str, torch.Tensor], network: UNetConfig) -> dict[str, torch.Tensor]:
    """Weights of a network that takes x alone, for ``network``, which takes masks: zeros for the new channels.

    The network says what it said before, whatever the mask. Weights that have the channels come back as they are.
    """
    stem = weights.get(STEM)
    data = network.out_channels
    if stem is None or stem.shape[1] != data + 4 * network.places:
        return dict(weights)
    new = stem.new_zeros(stem.shape[0], data + 1, *stem.shape[2:])
    return {**weights, STEM: torch.cat([stem[:, :data], new, stem[:, data:]], 1)}
