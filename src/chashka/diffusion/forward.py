"""The forward process: how data becomes noise. Training and explanation call the same functions.

Network space: x_t = α·data + s·noise, with α = scale(σ) and s = σ·α. Sigma space: x = data + σ·noise, which is x_t/α.
"""

from __future__ import annotations

import math

from chashka.diffusion.arrays import Array, Level, as_rows, is_scalar
from chashka.diffusion.schedule import NoiseSchedule, Table
from chashka.errors import InputError


def forward(
    x0: Array,
    noise: Array,
    schedule: NoiseSchedule,
    *,
    t: Level = None,
    sigma: Level = None,
    space: str = "network",
) -> Array:
    """A sample of q(x_t | x_0): ``x0`` (B, …) with unit ``noise`` of the same shape mixed in.

    Give the level as ``t`` or as ``sigma``: a number, or one value per row (B,). space ``network``: √ᾱ·x0 +
    √(1-ᾱ)·noise (DDPM equation 4) or (1-t)·x0 + t·noise; space ``sigma``: x0 + σ·noise.
    """
    if (t is None) == (sigma is None):
        raise InputError("forward: give the noise level either as t or as sigma, not both and not neither")
    level = schedule.t_to_sigma(t) if sigma is None else sigma
    if not is_scalar(level) and not hasattr(level, "dtype"):
        level = as_rows(level, x0)
    if space == "sigma":
        return x0 + as_rows(level, x0) * noise
    if space != "network":
        raise InputError(f"space {space!r} does not exist; use network or sigma")
    alpha = schedule.scale(level)
    return as_rows(alpha, x0) * x0 + as_rows(level * alpha, x0) * noise


def forward_step(
    x_prev: Array, t: float, noise: Array, schedule: NoiseSchedule, *, t_prev: float | None = None
) -> Array:
    """One step of q(x_t | x_prev) in network space.

    For a Table and t_prev = t - 1 (the default; -1 is clean data) this is √(1-β_t)·x_{t-1} + √β_t·noise (DDPM
    equation 2). In general x_t = a·x_prev + b·noise with a = α_t/α_prev and b² = s_t² - a²·s_prev². A Flow's default
    t_prev is t - 0.001. Steps chained from clean data have exactly the distribution of :func:`forward`.
    """
    alpha, s = levels(schedule, t)
    before = (t - 1 if isinstance(schedule, Table) else max(t - 0.001, 0.0)) if t_prev is None else t_prev
    if not before < t:
        raise InputError(f"forward_step: t_prev {before!r} must lie below t {t!r}")
    alpha_prev, s_prev = levels(schedule, before)
    a = alpha / alpha_prev
    b = math.sqrt(max(s * s - a * a * s_prev * s_prev, 0.0))
    return a * x_prev + b * noise


def levels(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """(α, s) of network space at ``t``: x_t = α·data + s·noise. For a Table, t = -1 is clean data: (1, 0)."""
    if isinstance(schedule, Table) and t == -1:
        return 1.0, 0.0
    sigma = float(schedule.t_to_sigma(t))
    alpha = float(schedule.scale(sigma))
    return alpha, sigma * alpha
