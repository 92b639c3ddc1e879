"""The contact sheet: all fixed prompts with their fixed seeds, none left out, beside the nearest training pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

import chashka
from chashka.errors import FileError
from chashka.evaluation.drawing import Drawing, draw_prompts, left_out, network_pixels, settings, weights_of
from chashka.evaluation.gallery import COPIED, Gallery, Nearest, Nearness, galleries, nearness
from chashka.evaluation.prompts import PROMPTS, Prompt
from chashka.families import Bundle
from chashka.images import flatten, from_network, resize

COLUMNS = 6
SIDE = 192
GAP = 12
LABEL = 18
GREY = (237, 237, 237)
STRIP = 8
"""The strip is one line of the first prompts of all that ask for one thing in no named style."""
STRIP_SIDE = 128
BASELINE = 48
"""So many held-out pictures are looked up for comparison."""


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of the sheet; ``nearest`` is None without shards, ``notes`` are the picture's."""

    prompt: Prompt
    notes: tuple[str, ...]
    nearest: Nearest | None


@dataclass(frozen=True, slots=True)
class SheetReport:
    """What was drawn with what. ``drawn`` and ``held_out``: how near training pictures are; None without shards.

    ``weights``: file → sha256. ``settings``: the request's fields that all share.
    """

    model: str
    version: str
    engine: str
    weights: dict[str, str]
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    drawn: Nearness | None = None
    held_out: Nearness | None = None


def contact_sheet(
    bundle: Bundle,
    out: Path,
    *,
    shards: Path | None = None,
    prompts: Sequence[Prompt] = PROMPTS,
    on_picture: Callable[[], object] | None = None,
    **fields: Any,
) -> SheetReport:
    """Draw ``prompts``, each with its seed, and write sheet.png, strip.png, sheet.md and sheet.json into the folder ``out``.

    With ``shards`` every picture has its nearest training picture beside it. fields: as :func:`draw_prompts`. The same
    weights, shards and settings give the same files on one machine. Raises InputError, EngineError, TrainingError and FileError.
    """
    _writable(out)
    training, held_out = (None, None) if shards is None else galleries(shards, left_out(bundle))
    drawings = draw_prompts(bundle, prompts, on_picture=on_picture, **fields)
    found: list[Nearest] | None = None
    baseline = None
    if training is not None and held_out is not None:
        found = training.nearest(network_pixels(drawings), bundle.codec.encode)
        known = held_out.spread(BASELINE)
        kept = np.concatenate([known.pixels(i) for i in range(len(known))])
        baseline = nearness(training.nearest(kept, bundle.codec.encode))
    rows = [
        Row(drawing.prompt, drawing.picture.notes, None if found is None else found[i])
        for i, drawing in enumerate(drawings)
    ]
    report = SheetReport(
        bundle.model,
        chashka.__version__,
        bundle.engine,
        weights_of(bundle),
        settings(drawings[0].picture.request),
        tuple(rows),
        None if found is None else nearness(found),
        baseline,
    )
    try:
        _image(drawings, rows, training).save(out / "sheet.png", optimize=True)
        strip(drawings).save(out / "strip.png", optimize=True)
        (out / "sheet.json").write_text(
            json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
        )
        (out / "sheet.md").write_text(as_markdown(report), encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write the sheet into {str(out)!r}: {error.strerror or error}") from error
    return report


def _writable(out: Path) -> None:
    """Make the folder before the long work, so that a wrong one is told at once."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot write the sheet into {str(out)!r}: {error.strerror or error}") from error


def as_markdown(report: SheetReport) -> str:
    """The report as a page: settings, figures, and one table row for every number on the sheet."""
    drawn_with = ", ".join(f"{name} {value}" for name, value in report.settings.items() if value != "")
    lines = [
        f"# Contact sheet of {report.model}",
        "",
        f"Drawn by chashka {report.version} ({report.engine}): {drawn_with}. Prompt number *i* has seed *i*; nothing was "
        "picked or drawn again. Right of each picture on `sheet.png`, in smaller size, is the training picture nearest to it.",
        "",
        "![the sheet](sheet.png)",
        "",
    ]
    if report.drawn is None or report.held_out is None:
        lines[2] = lines[2].split(" Right of")[0]
    else:
        lines += _nearness_lines(report.drawn, report.held_out)
    head = [
        "no.",
        "prompt",
        "language",
        "in English",
        "nearest training picture",
        "licence",
        "distance",
        "ratio",
        "latents",
    ]
    if report.drawn is None:
        head = head[:4]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in report.rows]
    lines += ["", "Weights (sha256):", "", *(f"- `{name}` `{digest}`" for name, digest in report.weights.items())]
    return "\n".join(lines if report.weights else lines[:-3]) + "\n"


def _nearness_lines(drawn: Nearness, held_out: Nearness) -> list[str]:
    lines = [
        "Distance: root mean square of premultiplied RGBA at 64×64 in [0, 1] where either picture is not transparent. Ratio: "
        "to the distance of the second nearest; below 1/3 the nearest one stands out. Latents: the nearest of five by the "
        "encoder. Held-out pictures are no copies of what was trained on, yet other pictures of the same things.",
        "",
        "| | pictures | median distance | median ratio | ratio below 1/3 | median in latents |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in (("drawn", drawn), ("held-out", held_out)):
        latent = "" if figures.latent_distance is None else f"{figures.latent_distance:.3f}"
        share = f"{figures.copied:.1%}"
        lines.append(
            f"| {name} | {figures.pictures} | {figures.distance:.3f} | {figures.ratio:.3f} | {share} | {latent} |"
        )
    return [*lines, ""]


def _cells(row: Row) -> list[str]:
    prompt, nearest = row.prompt, row.nearest
    english = "" if prompt.language == "en" else prompt.english
    cells = [str(prompt.seed), prompt.text, prompt.language, english]
    if nearest is not None:
        stands_out = " **!**" if nearest.ratio < COPIED else ""
        latent = "" if nearest.latent_distance is None else f"{nearest.latent_distance:.3f}"
        cells += [
            f"`{nearest.id}`",
            nearest.licence,
            f"{nearest.distance:.3f}",
            f"{nearest.ratio:.3f}{stands_out}",
            latent,
        ]
    return [cell.replace("|", "\\|") for cell in cells]


def _image(drawings: Sequence[Drawing], rows: Sequence[Row], training: Gallery | None) -> Image.Image:
    """Cells with a number (fonts for every script are not in the package; the words are in sheet.md), on light grey."""
    small = SIDE // 2
    cell_width = SIDE + (small + 4 if training is not None else 0) + GAP
    cell_height = SIDE + LABEL + GAP
    columns = min(COLUMNS, len(rows))
    lines = math.ceil(len(rows) / columns)
    sheet = Image.new("RGB", (columns * cell_width + GAP, lines * cell_height + GAP), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    places = {id_: i for i, id_ in enumerate(training.ids)} if training is not None else {}
    for i, (drawing, row) in enumerate(zip(drawings, rows, strict=True)):
        left, top = GAP + i % columns * cell_width, GAP + i // columns * cell_height
        sheet.paste(_on_grey(drawing.picture.pixels, SIDE), (left, top + LABEL))
        pen.text((left, top), str(row.prompt.seed), (0, 0, 0), font)
        if training is not None and row.nearest is not None:
            known = from_network(training.pixels(places[row.nearest.id]))[0]
            sheet.paste(_on_grey(known, small), (left + SIDE + 4, top + LABEL + SIDE - small))
            pen.text((left + SIDE + 4, top + LABEL), f"{row.nearest.distance:.3f}", (96, 96, 96), font)
    return sheet


def strip(drawings: Sequence[Drawing]) -> Image.Image:
    """The first drawings of one thing, side by side on light grey: enough to see at a glance what the model can do."""
    plain = [d for d in drawings if d.prompt.concept is not None and d.prompt.style is None][:STRIP] or drawings[:STRIP]
    line = Image.new("RGB", (len(plain) * STRIP_SIDE, STRIP_SIDE), GREY)
    for i, drawing in enumerate(plain):
        line.paste(_on_grey(drawing.picture.pixels, STRIP_SIDE), (i * STRIP_SIDE, 0))
    return line


def _on_grey(pixels: npt.NDArray[np.uint8], side: int) -> Image.Image:
    return Image.fromarray(flatten(resize(pixels, side, side), GREY))
