"""The drawn grounds of composed scenes: a plain colour, sky, grass, sea, night, snow, space, a room."""

from __future__ import annotations

import torch

from chashka.training.recolour import colour_rgb

PLAIN, SKY, GRASS, SEA, NIGHT, SNOW, SPACE, ROOM = range(8)
# top colour, colour at the horizon, colour below it (sRGB in [0, 1]), height of the horizon, share of pixels that are stars
LANDS: dict[int, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...], float, float]] = {
    SKY: ((0.42, 0.70, 0.95), (0.80, 0.92, 1.00), (0.80, 0.92, 1.00), 1.0, 0.0),
    GRASS: ((0.60, 0.83, 0.98), (0.86, 0.95, 1.00), (0.45, 0.72, 0.30), 0.62, 0.0),
    SEA: ((0.65, 0.86, 0.98), (0.88, 0.96, 1.00), (0.15, 0.47, 0.75), 0.55, 0.0),
    NIGHT: ((0.05, 0.07, 0.22), (0.14, 0.18, 0.40), (0.14, 0.18, 0.40), 1.0, 0.0015),
    SNOW: ((0.66, 0.78, 0.90), (0.85, 0.91, 0.97), (0.96, 0.98, 1.00), 0.60, 0.0),
    SPACE: ((0.03, 0.02, 0.09), (0.13, 0.06, 0.24), (0.13, 0.06, 0.24), 1.0, 0.004),
    ROOM: ((0.96, 0.90, 0.80), (0.96, 0.90, 0.80), (0.66, 0.47, 0.32), 0.70, 0.0),
}


def paint(ground: torch.Tensor, colour: torch.Tensor, canvas: tuple[int, int], chance: torch.Generator) -> torch.Tensor:
    """Grounds (B,) (-1: transparent) → premultiplied RGBA (B, 4, *canvas) in [0, 1]. ``colour`` is that of a plain one."""
    b, device, (tall, wide) = len(ground), ground.device, canvas
    out = torch.zeros(b, 4, tall, wide, device=device)
    height = (torch.arange(tall, device=device) + 0.5) / tall
    shift = (torch.rand(b, 2, generator=chance) - 0.5).to(device)
    plain = torch.nonzero(ground == PLAIN).squeeze(1)
    if len(plain):
        shade = colour_rgb(colour[plain]) + 0.06 * shift[plain, :1]
        out[plain, :3] = shade[:, :, None, None].expand(-1, -1, tall, wide)
    stars = torch.rand(tall, wide, generator=chance).to(device)
    for kind, (top, horizon, below, line, share) in LANDS.items():
        rows = torch.nonzero(ground == kind).squeeze(1)
        if not len(rows):
            continue
        first, last, under = (torch.tensor(c, device=device)[None, :, None] for c in (top, horizon, below))
        edge = (line + 0.12 * shift[rows, 1] if line < 1 else torch.ones(len(rows), device=device))[:, None, None]
        mix = (height[None, None] / edge).clamp(0, 1)
        column = torch.where(height[None, None] < edge, first + (last - first) * mix, under)
        picture = (column + 0.05 * shift[rows, :1, None])[..., None].expand(-1, -1, -1, wide)
        bright = torch.roll(stars, int(shift[rows[0], 0] * wide), 1) < share
        out[rows, :3] = torch.where(bright, torch.ones_like(picture), picture)
    out[:, 3] = (ground >= 0).float()[:, None, None]
    out[:, :3] *= out[:, 3:]
    return out.clamp(0, 1)
