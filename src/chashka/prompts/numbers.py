"""Which numbers a prompt may say. Every parser that reads one asks here, so that none of them becomes infinite."""

from __future__ import annotations

from chashka.errors import InputError

MOST_WEIGHT = 100.0
"""Of a weight, either way, with all the brackets around it: beyond, a picture is none."""
MOST_STEP = 1_000_000.0


def within(value: float, most: float, what: str, allowed: str = "") -> float:
    """``value``, at most ``most`` either way. Raises InputError. allowed: what else to say of it."""
    if not abs(value) <= most:
        raise InputError(
            f"prompt: {what} {value:.10g} is not possible; allowed: from {-most:.0f} to {most:.0f}{allowed}"
        )
    return value
