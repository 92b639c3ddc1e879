"""Giving drawings another colour, in OKLCh (Ottosson 2020, bottosson.github.io/posts/oklab), where a hue turns without dirt."""

from __future__ import annotations

import math

import torch

from chashka.data.colours import LMS_TO_LAB, OKLCH, RGB_TO_LMS

COLOURS = torch.tensor(OKLCH)
_LMS, _LAB = torch.tensor(RGB_TO_LMS), torch.tensor(LMS_TO_LAB)
KEPT = 0.35
"""How much of a drawing's own variation of hue is kept around the new one."""


def recolour(pictures: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Premultiplied RGBA (B, 4, H, W) in [0, 1] with its main hue moved to ``colour`` (B,) (-1: as it is), shading kept."""
    chosen = torch.nonzero(colour >= 0).squeeze(1)
    if not len(chosen):
        return pictures
    rows = pictures[chosen]
    alpha = rows[:, 3:]
    light, chroma, hue = to_lch(rows[:, :3] / alpha.clamp(min=1e-3))
    wanted = COLOURS.to(rows)[colour[chosen]][..., None, None]
    weight = alpha[:, 0] * chroma
    x, y = ((weight * f(hue)).sum((1, 2)) for f in (torch.cos, torch.sin))
    main = torch.atan2(y, x)[:, None, None]
    turned = torch.remainder(hue - main + math.pi, 2 * math.pi) - math.pi
    area = alpha[:, 0].sum((1, 2)).clamp(min=1)[:, None, None]
    mean_light = (alpha[:, 0] * light).sum((1, 2))[:, None, None] / area
    mean_chroma = weight.sum((1, 2))[:, None, None] / area
    # Greys take the whole chroma where they are neither black nor white; coloured parts are scaled to it.
    body = (1 - (2 * light - 1).abs()).clamp(0, 1)
    scaled = torch.where(mean_chroma > 0.04, chroma * wanted[:, 1] / mean_chroma.clamp(min=0.04), wanted[:, 1] * body)
    new_light = (light + 0.85 * (wanted[:, 0] - mean_light)).clamp(0, 1)
    new_chroma = torch.where(wanted[:, 1] > 0, scaled.clamp(max=0.26), 0.15 * chroma)
    rgb = from_lch(new_light, new_chroma, wanted[:, 2] * math.pi / 180 + KEPT * turned)
    out = pictures.clone()
    out[chosen] = torch.cat([rgb * alpha, alpha], 1)
    return out


def colour_rgb(colour: torch.Tensor) -> torch.Tensor:
    """(B,) indices → (B, 3) sRGB in [0, 1]."""
    light, chroma, hue = COLOURS.to(colour.device)[colour].unbind(1)
    return from_lch(*(v[:, None, None] for v in (light, chroma, hue * math.pi / 180)))[..., 0, 0]


def to_lch(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """sRGB (B, 3, H, W) in [0, 1] → lightness, chroma, hue in radians, each (B, H, W)."""
    rgb = rgb.clamp(0, 1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lms = torch.einsum("ij,bjhw->bihw", _LMS.to(rgb), linear).clamp(min=0) ** (1 / 3)
    light, a, b = torch.einsum("ij,bjhw->bihw", _LAB.to(rgb), lms).unbind(1)
    return light, (a * a + b * b).sqrt(), torch.atan2(b, a)


def from_lch(light: torch.Tensor, chroma: torch.Tensor, hue: torch.Tensor) -> torch.Tensor:
    """The way back, (B, 3, H, W), clipped to sRGB."""
    lab = torch.stack([light, chroma * torch.cos(hue), chroma * torch.sin(hue)], 1)
    lms = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_LAB).to(lab), lab) ** 3
    linear = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_LMS).to(lab), lms).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
