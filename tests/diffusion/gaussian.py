"""Closed form for tests: data N(mean, std²) has an exact denoiser and an exact probability-flow solution."""

from __future__ import annotations

import math
from typing import Any

MEAN, STD = 0.3, 0.5


def exact_denoise(x: Any, sigma: float) -> Any:
    """E[data | x] for x = data + σ·noise."""
    return (MEAN * sigma * sigma + x * STD * STD) / (sigma * sigma + STD * STD)


def flow_to(x: Any, sigma: float, sigma_end: float) -> Any:
    """The solution of dx/dσ = (x - D)/σ from ``sigma`` to ``sigma_end``."""
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + sigma_end**2) / (STD**2 + sigma**2))
