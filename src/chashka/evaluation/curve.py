"""Training logs as a picture: one panel for every figure, runs that follow one another joined along the steps.

Written as SVG by hand: a few lines and words need no plotting library, and the file stays small and sharp at any size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from chashka.errors import FileError, InputError

WIDTH, PANEL, LEFT, RIGHT, GAP, HEAD = 760, 120, 64, 24, 34, 30
TICKS = 4
FIGURES = ("loss",)
"""Of the figures of a training batch only these are drawn; every held-out figure is."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure: ``name``, and its points (step, value) in the order of the logs."""

    name: str
    points: tuple[tuple[int, float], ...]


def read_logs(paths: Sequence[Path]) -> tuple[list[Curve], list[int]]:
    """(curves, the step at which each run begins) of ``log.jsonl`` files in the order of training.

    A run's steps count on from the last one of the run before. Raises FileError for a log that cannot be read and InputError for
    one without figures.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    starts, last = [], 0
    for path in paths:
        begin = last
        starts.append(begin)
        for step, name, value in _figures(path):
            last = max(last, begin + step)
            found.setdefault(name, []).append((begin + step, value))
    if not found:
        raise InputError("logs: there are no figures in them; give the log.jsonl of a training run")
    return [Curve(name, tuple(points)) for name, points in found.items()], starts


def _figures(path: Path) -> Iterable[tuple[int, str, float]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise FileError(f"cannot read {str(path)!r}: {reason}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            step = int(row["step"])
            figures = row["held_out"] if "held_out" in row else {name: row[name] for name in FIGURES if name in row}
            yield from ((step, name, float(value)) for name, value in figures.items() if math.isfinite(float(value)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: not a line of a training log") from error


def as_svg(curves: Sequence[Curve], starts: Sequence[int], title: str) -> str:
    """The picture: dashed lines stand where one run ends and the next begins."""
    end = max(step for curve in curves for step, _ in curve.points) or 1
    height = HEAD + len(curves) * (PANEL + GAP) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="19" font-size="14">{escape(title)}</text>',
    ]
    for i, curve in enumerate(curves):
        parts += _panel(curve, starts, end, HEAD + i * (PANEL + GAP) + 16)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(curve: Curve, starts: Sequence[int], end: int, top: int) -> list[str]:
    values = [value for _, value in curve.points]
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return LEFT + step / end * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return top + (high - value) / (high - low) * PANEL

    parts = [f'<text x="{LEFT}" y="{top - 4}" font-weight="bold">{escape(curve.name)}</text>']
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for start in starts[1:]:
        parts.append(f'<path d="M{x(start):.1f} {top}V{top + PANEL}" stroke="#aaa" stroke-dasharray="3 3"/>')
    runs = [[p for p in curve.points if a < p[0] <= b] for a, b in pairwise([*starts, end])]
    for run in runs:
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in run)
        parts.append(f'<polyline points="{line}" fill="none" stroke="#b8472a" stroke-width="1.6"/>')
    if len(curve.points) <= 60:
        parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="2.4" fill="#b8472a"/>' for s, v in curve.points]
    parts.append(f'<text x="{x(end):.1f}" y="{top + PANEL + 14}" text-anchor="end">{end} steps</text>')
    parts.append(f'<text x="{LEFT}" y="{top + PANEL + 14}">0</text>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers that hold [low, high] between the first and the last."""
    span = (high - low) or abs(high) or 1.0
    raw = span / TICKS
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]
