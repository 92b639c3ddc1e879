"""What configurations check of themselves; every function raises InputError with the field, the value and the rule."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from chashka.errors import InputError


def name(config: Any) -> str:
    """How errors call the configuration."""
    return type(config).__name__


def positive(config: Any, *fields: str) -> None:
    """Whole numbers of at least 1."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name(config)}: {field} is {value!r}; it must be a whole number of at least 1")


def divides(config: Any, part: str, whole: str) -> None:
    """The field ``part`` divides the field ``whole``."""
    if getattr(config, whole) % getattr(config, part):
        raise InputError(
            f"{name(config)}: {part} is {getattr(config, part)}; it must divide {whole} ({getattr(config, whole)})"
        )


def one_of(config: Any, field: str, allowed: Sequence[str]) -> None:
    """The field is one of the words ``allowed``."""
    if getattr(config, field) not in allowed:
        raise InputError(
            f"{name(config)}: {field} is {getattr(config, field)!r}; allowed: {', '.join(map(repr, allowed))}"
        )


def widths(config: Any, width: int, field: str) -> list[int]:
    """Channels by level, checked against GroupNorm."""
    mult = getattr(config, field)
    by_level = [int(width * m) for m in mult]
    if not by_level or any(w < 1 or w % config.norm_groups for w in by_level):
        raise InputError(
            f"{name(config)}: {field} {mult} gives {by_level} channels; there must be at least one level, and every"
            f" level's channels must be a multiple of norm_groups ({config.norm_groups})"
        )
    return by_level


def foldable(config: Any, field: str, by_level: Sequence[int]) -> None:
    """DC-AE's paths fold 2×2 places into four times the channels and average groups of them (or repeat, going up)."""
    for fine, coarse in pairwise(by_level):
        if 4 * fine % coarse:
            raise InputError(
                f"{name(config)}: with shortcuts, {field}'s next level ({coarse} channels) must divide four times the"
                f" level before it ({fine} channels)"
            )
