"""Which of the training timesteps a run visits: integer lists, ascending, as the original code bases make them.

These are part of a reproduction, not a detail: ``ddim75`` of a table of 1000 visits 77 timesteps, not 75.
"""

from __future__ import annotations

from collections.abc import Sequence

from chashka.errors import InputError


def ddim_respacing(steps: int, total: int = 1000, offset: int = 1) -> list[int]:
    """Every ``total // steps``-th timestep, moved up by ``offset``; members ≥ ``total`` are dropped.

    offset 1: Kandinsky 2.0 (2022) ``ddimN`` and CompVis ``make_ddim_timesteps`` (which raises IndexError where this
    drops). offset 0: guided-diffusion and Disco Diffusion. The list is often longer than ``steps``: the stride is
    rounded down (75 → 77, 30 → 31).
    """
    check_steps(steps, total)
    return [t + offset for t in range(0, total, total // steps) if t + offset < total]


def section_respacing(counts: int | Sequence[int], total: int = 1000) -> list[int]:
    """``"N"`` or ``"N,M,…"`` of guided-diffusion ``space_timesteps``: equal sections, evenly spaced inside each.

    One count N gives round(i·(total - 1)/(N - 1)), both ends included; with several counts the timesteps are cut into
    as many sections, the first ones one longer where the division leaves a rest.
    """
    sections = [counts] if isinstance(counts, int) else list(counts)
    if not sections:
        raise InputError("respacing: no section given; give at least one count, for example 50")
    size, rest = divmod(total, len(sections))
    result: list[int] = []
    start = 0
    for index, count in enumerate(sections):
        length = size + (1 if index < rest else 0)
        check_steps(count, length)
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0
        for _ in range(count):  # the original adds up the stride, and its rounding errors with it
            result.append(start + round(position))
            position += stride
        start += length
    return result


def parse_respacing(text: str, total: int = 1000, offset: int = 1) -> list[int]:
    """``"ddim75"``, ``"100"`` or ``"10,15,20"`` as guided-diffusion's command lines write it, to a timestep list."""
    body = text.removeprefix("ddim")
    try:
        counts = [int(part) for part in body.split(",")]
    except ValueError:
        raise InputError(f"respacing {text!r} is not understood; use 'ddim50', '50' or '10,15,20'") from None
    if body == text:
        return section_respacing(counts, total)
    if len(counts) != 1:
        raise InputError(f"respacing {text!r}: 'ddim' takes one number, for example 'ddim50'")
    return ddim_respacing(counts[0], total, offset)


def check_steps(steps: int, total: int) -> None:
    """Raise InputError unless 1 ≤ ``steps`` ≤ ``total``."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= total:
        raise InputError(f"steps: {steps!r} is not possible here; give a whole number from 1 to {total}")
