"""Named ways to place N noise levels on a schedule, each as descending numbers without the final one.

Timestep spacings follow the names of diffusers (``linspace``, ``leading``, ``trailing``; table 2 of arXiv 2305.08891);
sigma spacings follow the papers named at each function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

AYS_TIMESTEPS: dict[str, tuple[int, ...]] = {
    # "Align Your Steps", arXiv 2404.14507: optimised for 10 steps; the last entry is where the tenth step ends.
    "ays": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24, 0),
    "ays_sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13, 0),
}
"""Timesteps tuned for Stable Diffusion 1.5 (``ays``) and SDXL (``ays_sdxl``), both for tables of 1000."""


def linspace(steps: int, total: int) -> list[float]:
    """total - 1 down to 0, both included, as floats (k-diffusion ``get_sigmas``)."""
    if steps == 1:
        return [float(total - 1)]
    return [(total - 1) * (1 - i / (steps - 1)) for i in range(steps)]


def leading(steps: int, total: int, offset: int = 1) -> list[float]:
    """Every (total // steps)-th timestep plus ``offset``, exactly ``steps`` of them (diffusers, ``steps_offset=1``).

    The offset is left out where it would pass the table's end (steps = total).
    """
    stride = total // steps
    top = (steps - 1) * stride
    shift = offset if top + offset < total else 0
    return [float(top - i * stride + shift) for i in range(steps)]


def trailing(steps: int, total: int) -> list[float]:
    """round(total - i·total/steps) - 1: starts at the table's last timestep, so few steps see pure noise."""
    return [float(round(total - i * total / steps) - 1) for i in range(steps)]


def karras(steps: int, low: float, high: float, rho: float = 7.0) -> list[float]:
    """Sigmas of EDM, arXiv 2206.00364 equation 5: uniform in σ^(1/ρ)."""
    if steps == 1:
        return [high]
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    # the ends are given back exactly: high ** (1/7) ** 7 is one rounding away from high
    inner = [(top + i / (steps - 1) * (bottom - top)) ** rho for i in range(1, steps - 1)]
    return [high, *inner, low]


def exponential(steps: int, low: float, high: float) -> list[float]:
    """Sigmas uniform in log σ."""
    if steps == 1:
        return [high]
    inner = [math.exp(math.log(high) + i / (steps - 1) * math.log(low / high)) for i in range(1, steps - 1)]
    return [high, *inner, low]


def resample_log(sigmas: Sequence[float], count: int) -> list[float]:
    """``count`` sigmas along ``sigmas`` (positive, descending), piecewise linear in log σ over the index.

    This is how Align Your Steps stretches its tables of 10 steps to other counts (its ``loglinear_interp``).
    """
    if count == len(sigmas):
        return list(sigmas)
    result = []
    for i in range(count):
        position = i * (len(sigmas) - 1) / (count - 1) if count > 1 else 0.0
        below = min(int(position), len(sigmas) - 2)
        part = position - below
        result.append(sigmas[below] ** (1 - part) * sigmas[below + 1] ** part)
    return result
