"""What the judge of the composition test saw: the first pictures of every task in one language, and its word on each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from chashka.errors import FileError
from chashka.evaluation.cached import DrawnPictures, Order
from chashka.evaluation.composition import Outcome
from chashka.evaluation.scene_prompts import TASKS
from chashka.images import flatten, from_network, resize

COLUMNS = 8
SIDE, GAP, FRAME, LINE = 144, 10, 4, 14
GREY = (237, 237, 237)
RIGHT, WRONG = (20, 140, 70), (200, 50, 40)


def write_composition_sheet(drawn: DrawnPictures, outcomes: Sequence[Outcome], n: int, path: Path) -> None:
    """WebP: a row for each task, framed in green where the judge found all that was asked for. n: pictures of each prompt, of which
    the first is shown. Raises FileError."""
    locale = outcomes[0].locale
    shown = [[o for o in outcomes if (o.task, o.locale, o.picture) == (task, locale, 0)][:COLUMNS] for task in TASKS]
    cell, row = SIDE + GAP, SIDE + 2 * LINE + 2 * GAP
    sheet = Image.new("RGB", (COLUMNS * cell + GAP, sum(map(bool, shown)) * (row + LINE) + GAP), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    top = GAP
    for task, own in zip(TASKS, shown, strict=True):
        if own:
            pen.text((GAP, top), task, (0, 0, 0), font)
            top += LINE + GAP // 2
        for column, outcome in enumerate(own):
            left = GAP + column * cell
            pixels = from_network(drawn(Order(outcome.text, outcome.prompt, n)))[0]
            pen.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), RIGHT if outcome.correct else WRONG)
            inner = SIDE - 2 * FRAME
            picture = Image.fromarray(flatten(resize(pixels, inner, inner), GREY))
            sheet.paste(picture, (left + FRAME, top + FRAME))
            text = textwrap.wrap(outcome.text, 27, max_lines=2, placeholder="…")
            pen.multiline_text((left, top + SIDE + 2), "\n".join(text), (0, 0, 0), font, spacing=1)
        top += row - GAP // 2 if own else 0
    try:
        sheet.save(path, quality=88, method=6)
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
