"""Drawings in other hands: the same thing in other proportions, colours, textures and shading, so that a judge that learns from
a few vendors knows the drawings of others."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

TURN, SHEAR, STRETCH, BEND = 0.22, 0.15, 0.18, 0.05
"""Standard deviations: radians, shear, logarithm of the aspect; and of a smooth field of shifts, in halves of the picture."""
KERNELS = (3, 5, 7)


def restyle(drawings: torch.Tensor, share: float, chance: torch.Generator) -> torch.Tensor:
    """Premultiplied RGBA (n, 4, S, S) in [0, 1] → the same with ``share`` of them changed, each in some of the ways below."""
    chosen = torch.rand(len(drawings), generator=chance) < share
    out = drawings.clone()
    rows = _some(chosen, 0.8, chance).to(out.device)
    if len(rows):
        out[rows] = bend(out[rows], chance)
    alpha = out[:, 3:]
    rgb = out[:, :3] / alpha.clamp(min=1e-3)
    for way, how_often in ((tint, 0.6), (texture, 0.35), (shade, 0.35), (outline, 0.2), (soften, 0.2)):
        rows = _some(chosen, how_often, chance).to(out.device)
        if len(rows):
            rgb[rows] = way(rgb[rows], alpha[rows], chance)
    return torch.cat([rgb.clamp(0, 1) * alpha, alpha], 1)


def bend(drawings: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Turned, sheared, stretched and bent a little."""
    n, device = len(drawings), drawings.device
    u = torch.randn(4, n, generator=chance)
    turn, shear, stretch = TURN * u[0], SHEAR * u[1], torch.exp(0.5 * STRETCH * u[2])
    scale = 1.08 + 0.1 * u[3].abs()  # what is turned needs room
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch, (shear - sin) * stretch, torch.zeros(n)], 1),
            torch.stack([sin / stretch, cos / stretch, torch.zeros(n)], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta.to(device), list(drawings.shape), align_corners=False)
    field = BEND * torch.randn(n, 2, 4, 4, generator=chance).to(device)
    shifts = F.interpolate(field, drawings.shape[2:], mode="bicubic", align_corners=True)
    return F.grid_sample(drawings, grid + shifts.movedim(1, -1), mode="bilinear", align_corners=False)


def tint(rgb: torch.Tensor, alpha: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Other colours: hues turned, more or less of them, lighter or darker; one in eight grey."""
    n = len(rgb)
    u = torch.randn(4, n, 1, 1, 1, generator=chance).to(rgb)
    grey = rgb.mean(1, keepdim=True)
    colour = rgb - grey
    angle, axis = 0.5 * u[0], math.sqrt(1 / 3)
    crossed = axis * (colour.roll(1, 1) - colour.roll(2, 1))  # the cross product with (1, 1, 1)/√3
    colour = colour * torch.cos(angle) + crossed * torch.sin(angle)
    much = torch.where(torch.rand(n, 1, 1, 1, generator=chance).to(rgb) < 0.125, 0.0, torch.exp(0.35 * u[1]))
    return (grey + much * colour).clamp(1e-3, 1) ** torch.exp(0.35 * u[2]) + 0.06 * u[3]


def texture(rgb: torch.Tensor, alpha: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Mixed with what a random convolution makes of it (arXiv 2007.13003): shapes stay, textures and contrasts change."""
    n = len(rgb)
    size = KERNELS[int(torch.randint(len(KERNELS), (), generator=chance))]
    kernel = torch.randn(n * 3, 3, size, size, generator=chance).to(rgb) / (size * math.sqrt(3))
    wide = F.pad(rgb, [size // 2] * 4, mode="replicate")
    other = F.conv2d(wide.flatten(0, 1)[None], kernel, groups=n).reshape(rgb.shape)
    mean = other.mean((2, 3), keepdim=True)
    spread = other.std((2, 3), keepdim=True).clamp(min=1e-3)
    other = 0.5 + 0.25 * (other - mean) / spread
    much = 0.8 * torch.rand(n, 1, 1, 1, generator=chance).to(rgb)
    return torch.lerp(rgb, other, much)


def shade(rgb: torch.Tensor, alpha: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Lit from somewhere: a gradient over the whole, and rounded edges as in rendered drawings."""
    n, side = len(rgb), rgb.shape[-1]
    angle = 2 * math.pi * torch.rand(n, 1, 1, generator=chance).to(rgb)
    ticks = torch.linspace(-1, 1, side).to(rgb)
    across, down = torch.cos(angle), torch.sin(angle)
    slope = across * ticks[None, None] + down * ticks[None, :, None]
    reach = max(side // 16, 1)
    height = F.avg_pool2d(alpha, 2 * reach + 1, 1, reach)[:, 0]
    rise = across * (height - height.roll(reach, 2)) + down * (height - height.roll(reach, 1))
    u = torch.rand(2, n, 1, 1, generator=chance).to(rgb)
    return rgb * (1 + 0.3 * u[0] * slope - 0.9 * u[1] * rise)[:, None]


def outline(rgb: torch.Tensor, alpha: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Dark lines where colours or the thing end."""
    whole = torch.cat([rgb.mean(1, keepdim=True) * alpha, alpha], 1)
    edge = (F.max_pool2d(whole, 3, 1, 1) + F.max_pool2d(-whole, 3, 1, 1)).amax(1, keepdim=True)
    much = 0.4 + 0.6 * torch.rand(len(rgb), 1, 1, 1, generator=chance).to(rgb)
    return rgb * (1 - much * (2 * edge).clamp(0, 1))


def soften(rgb: torch.Tensor, alpha: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Fine lines gone, as in small renders."""
    reach = 2 + int(torch.randint(2, (), generator=chance))
    return F.interpolate(F.avg_pool2d(rgb, reach), rgb.shape[2:], mode="bilinear", align_corners=False)


def _some(chosen: torch.Tensor, share: float, chance: torch.Generator) -> torch.Tensor:
    return torch.nonzero(chosen & (torch.rand(len(chosen), generator=chance) < share)).squeeze(1)
