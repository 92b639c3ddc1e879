"""Training logs as a picture: one panel for every figure, runs that follow one another joined along the steps, and in other colours
those whose figures do not compare with theirs.

Written as SVG by hand: a few lines and words need no plotting library, and the file stays small and sharp at any size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

from chashka.errors import FileError, InputError

WIDTH, PANEL, LEFT, RIGHT, GAP, HEAD, LINE = 760, 120, 64, 24, 34, 30, 18
COLOURS = ("#b8472a", "#2a6ab8", "#3c8a3c", "#7a4fa3")
TICKS = 4
FIGURES = ("loss",)
"""Of the figures of a training batch only these are drawn; every held-out figure is."""
LESSON = "reading"
"""Where this is all of a U-Net's loss, its head learnt alone (``UNetRecipe.reading_first``): that is no error of drawing."""
RUNS_OWN = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure: ``name``, and its points (how far, value) in the order of the logs."""

    name: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Runs that follow one another: their curves, and where each of them begins. Figures of two families need not compare."""

    name: str
    curves: tuple[Curve, ...]
    starts: tuple[int, ...]


def read_logs(paths: Sequence[Path], presentations: bool = False) -> Family:
    """``log.jsonl`` files in the order of training as one family, counted in steps or in presentations.

    A run counts on from the end of the run before. Raises FileError for a log that cannot be read and InputError for one without
    figures, or, for presentations, without its recipe.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    starts, last = [], 0
    for path in paths:
        begin, batch = last, batch_of(path) if presentations else 1
        starts.append(begin)
        for step, name, value in _figures(path):
            last = max(last, begin + step * batch)
            found.setdefault(name, []).append((begin + step * batch, value))
    if not found:
        raise InputError("logs: there are no figures in them; give the log.jsonl of a training run")
    names = [run_of(path) for path in paths]
    curves = tuple(Curve(name, tuple(points)) for name, points in found.items())
    return Family(" to ".join(dict.fromkeys((names[0], names[-1]))), curves, tuple(starts))


def families(paths: Sequence[Path], anew: Collection[str], presentations: bool) -> list[Family]:
    """The logs, cut before each run of a name in ``anew``. Raises InputError for a name that is not among them."""
    unknown = set(anew) - {run_of(path) for path in paths}
    if unknown:
        raise InputError(f"anew: {min(unknown)!r} is not among the logs; given are {', '.join(map(run_of, paths))}")
    cut: list[list[Path]] = []
    for path in paths:
        if not cut or run_of(path) in anew:
            cut.append([])
        cut[-1].append(path)
    return [read_logs(part, presentations) for part in cut]


def run_of(log: Path) -> str:
    """The name of a log's run: a ``log.jsonl`` lies in the run's folder, others are named after it."""
    return log.stem if log.name != RUNS_OWN else log.parent.name


def batch_of(log: Path) -> int:
    """Presentations a step, by the recipe beside a ``log.jsonl``, or of the log's name in ``../recipes``. Raises InputError."""
    beside = log.name == RUNS_OWN
    recipe = log.with_name("recipe.json") if beside else log.parent.parent / "recipes" / f"{log.stem}.json"
    try:
        return int(json.loads(recipe.read_text(encoding="utf-8"))["run"]["batch"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{log}: its recipe, {recipe}, cannot be read; count steps instead") from error


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
            if "loss" in row and row.get(LESSON) == row["loss"]:
                continue
            yield from ((step, name, float(value)) for name, value in figures.items() if math.isfinite(float(value)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: not a line of a training log") from error


def as_svg(drawn: Sequence[Family], title: str, unit: str = "steps") -> str:
    """The picture: dashed lines stand where one run ends and the next begins; each family begins at 0, in its own colour."""
    end = max(place for family in drawn for curve in family.curves for place, _ in curve.points) or 1
    figures = dict.fromkeys(curve.name for family in drawn for curve in family.curves)
    head = HEAD + LINE * (len(drawn) > 1)
    height = head + len(figures) * (PANEL + GAP) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="19" font-size="14">{escape(title)}</text>',
    ]
    if len(drawn) > 1:
        names = (f'<tspan fill="{_colour(i)}">{escape(family.name)}</tspan>' for i, family in enumerate(drawn))
        parts.append(f'<text x="{LEFT}" y="{19 + LINE}">{"; ".join(names)}</text>')
    for i, name in enumerate(figures):
        parts += _panel(name, drawn, end, head + i * (PANEL + GAP) + 16, unit)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colour(family: int) -> str:
    return COLOURS[family % len(COLOURS)]


def _panel(name: str, drawn: Sequence[Family], end: int, top: int, unit: str) -> list[str]:
    shown = [(i, curve, f.starts) for i, f in enumerate(drawn) for curve in f.curves if curve.name == name]
    values = [value for _, curve, _ in shown for _, value in curve.points]
    ticks = _ticks(min(values), max(values))

    def x(place: float) -> float:
        return LEFT + place / end * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return top + (ticks[-1] - value) / (ticks[-1] - ticks[0]) * PANEL

    parts = [f'<text x="{LEFT}" y="{top - 4}" font-weight="bold">{escape(name)}</text>']
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for i, curve, starts in shown:
        colour = _colour(i)
        dashed = "#aaa" if len(drawn) == 1 else colour
        for start in starts[1:]:
            parts.append(f'<path d="M{x(start):.1f} {top}V{top + PANEL}" stroke="{dashed}" stroke-dasharray="3 3"/>')
        for run in _by_run(curve, starts):
            line = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in run)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if len(curve.points) <= 60:
            parts += [f'<circle cx="{x(p):.1f}" cy="{y(v):.1f}" r="2.4" fill="{colour}"/>' for p, v in curve.points]
    parts.append(f'<text x="{x(end):.1f}" y="{top + PANEL + 14}" text-anchor="end">{end:,} {unit}</text>')
    parts.append(f'<text x="{LEFT}" y="{top + PANEL + 14}">0</text>')
    return parts


def _by_run(curve: Curve, starts: Sequence[int]) -> list[list[tuple[int, float]]]:
    """The curve's points, run by run: what a run says at its end belongs to it. Runs without any are left out."""
    cut = [[p for p in curve.points if a < p[0] <= b] for a, b in pairwise([*starts, math.inf])]
    return [run for run in cut if run]


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers that hold [low, high] between the first and the last."""
    span = (high - low) or abs(high) or 1.0
    raw = span / TICKS
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]
