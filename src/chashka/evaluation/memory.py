"""Whether a model repeats what it learnt from: nearest training pictures of many drawings, beside those of held-out pictures.

By pixels as in ``gallery``; by features in a space of ``distribution``, there by Euclidean distance. The ratio of the distances to
the nearest and the second nearest one is below 1/3 where the nearest stands out; what counts is how much more often that happens
to drawings than to held-out pictures, which are no copies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import chashka
from chashka.errors import FileError
from chashka.evaluation.cached import DrawnPictures, Order
from chashka.evaluation.distribution import Features, of_gallery, of_pictures
from chashka.evaluation.drawing import Float
from chashka.evaluation.gallery import Gallery, Nearest, Nearness, nearness
from chashka.images import flatten, from_network, resize

PAIRS = 10
SIDE, GAP, LABEL = 160, 12, 16
GREY = (237, 237, 237)
BLOCK = 32


@dataclass(frozen=True, slots=True)
class Pair:
    """A drawing (number of its prompt, which is its seed) and its nearest training picture."""

    prompt: int
    text: str
    id: str
    licence: str
    distance: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Memory:
    """In one space: figures of the drawings and of held-out pictures, and the closest pairs, the closest first."""

    space: str
    drawn: Nearness
    held_out: Nearness
    excess: float
    closest: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """``excess``: how much larger the share of drawings with a ratio below 1/3 is than that of held-out pictures."""

    model: str
    version: str
    weights: dict[str, str]
    settings: dict[str, Any]
    training: int
    spaces: tuple[Memory, ...]


def memory_report(
    drawn: DrawnPictures,
    training: Gallery,
    held_out: Gallery,
    names: Sequence[str],
    spaces: Sequence[Features],
    out: Path,
    *,
    on_picture: Callable[[], object] | None = None,
) -> MemoryReport:
    """Draw ``names`` (seed i), find their nearest training pictures, and write memory.png, memory.md and memory.json."""
    pictures = np.concatenate([drawn(Order(name, i), on_picture) for i, name in enumerate(names)])
    rows = range(len(held_out))
    known = np.concatenate([held_out.pixels(row) for row in rows])
    found = [_memory("pixels", _by_pixels(training, pictures), _by_pixels(training, known), names)]
    for space in spaces:
        learnt = of_gallery(space, training, range(len(training)))
        near, same = (_by_features(training, learnt, of_pictures(space, pixels)) for pixels in (pictures, known))
        found.append(_memory(space.name, near, same, names))
    report = MemoryReport(
        drawn.bundle.model, chashka.__version__, drawn.weights, drawn.settings(), len(training), tuple(found)
    )
    try:
        _sheet(report, training, pictures).save(out / "memory.png", optimize=True)
        text = json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n"
        (out / "memory.json").write_text(text, encoding="utf-8")
        (out / "memory.md").write_text(as_markdown(report), encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write the report into {str(out)!r}: {error.strerror or error}") from error
    return report


def as_markdown(report: MemoryReport) -> str:
    """Figures of every space, and what the numbers on the sheet are."""
    lines = [
        f"# Nearest training pictures of {report.model}",
        "",
        f"Names of training pictures drawn by chashka {report.version}, compared with {report.training} training pictures. Ratio: "
        "to the distance of the second nearest; below 1/3 the nearest one stands out. Held-out pictures are no copies.",
        "",
        "| by | | pictures | median distance | median ratio | ratio below 1/3 |",
        "|---|---|---|---|---|---|",
    ]
    for memory in report.spaces:
        for name, figures in (("drawn", memory.drawn), ("held-out", memory.held_out)):
            cells = [f"{figures.distance:.3f}", f"{figures.ratio:.3f}", f"{figures.copied:.1%}"]
            lines.append(f"| {memory.space} | {name} | {figures.pictures} | {' | '.join(cells)} |")
        lines.append(f"| {memory.space} | **excess** | | | | {memory.excess:+.1%} |")
    lines += [
        "",
        "![the closest pairs](memory.png)",
        "",
        "| by | no. | prompt | nearest | licence | distance | ratio |",
    ]
    lines.append("|" + "---|" * 7)
    for memory in report.spaces:
        for i, pair in enumerate(memory.closest):
            text = pair.text.replace("|", "\\|")
            cells = [f"`{pair.id}`", pair.licence, f"{pair.distance:.3f}", f"{pair.ratio:.3f}"]
            lines.append(f"| {memory.space} | {i + 1} | {text} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _memory(space: str, near: Sequence[Nearest], known: Sequence[Nearest], names: Sequence[str]) -> Memory:
    drawn, held_out = nearness(near), nearness(known)
    order = np.argsort([n.distance for n in near], kind="stable")[:PAIRS].tolist()
    pairs = [Pair(i, names[i], near[i].id, near[i].licence, near[i].distance, near[i].ratio) for i in order]
    return Memory(space, drawn, held_out, drawn.copied - held_out.copied, tuple(pairs))


def _by_pixels(training: Gallery, pixels: Float) -> list[Nearest]:
    return [n for i in range(0, len(pixels), BLOCK) for n in training.nearest(pixels[i : i + BLOCK])]


def _by_features(training: Gallery, learnt: Float, wanted: Float) -> list[Nearest]:
    found = []
    for row in wanted.astype(np.float64):
        away = np.linalg.norm(learnt - row, axis=1)
        first, second = (int(i) for i in np.argsort(away, kind="stable")[[0, min(1, len(away) - 1)]])
        ratio = float(away[first] / away[second]) if away[second] > 0 else 1.0
        found.append(
            Nearest(training.ids[first], training.concepts[first], training.licence(first), float(away[first]), ratio)
        )
    return found


def _sheet(report: MemoryReport, training: Gallery, pictures: Float) -> Image.Image:
    """One line of pairs for each space: the drawing above, its nearest training picture below."""
    cell, line = SIDE + GAP, 2 * SIDE + LABEL + 2 * GAP
    most = max(len(memory.closest) for memory in report.spaces)
    sheet = Image.new("RGB", (most * cell + GAP, len(report.spaces) * line + GAP), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    places = {id_: i for i, id_ in enumerate(training.ids)}
    for row, memory in enumerate(report.spaces):
        for column, pair in enumerate(memory.closest):
            left, top = GAP + column * cell, GAP + row * line
            pen.text((left, top), f"{column + 1}: {pair.distance:.3f}  {pair.ratio:.2f}", (0, 0, 0), font)
            for i, network in enumerate((pictures[pair.prompt : pair.prompt + 1], training.pixels(places[pair.id]))):
                pixels = flatten(resize(from_network(network)[0], SIDE, SIDE), GREY)
                sheet.paste(Image.fromarray(pixels), (left, top + LABEL + i * (SIDE + 4)))
    return sheet
