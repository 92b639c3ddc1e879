"""``chashka vary``, ``mix`` and ``extend``: new pictures from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from chashka.cli.drawing import FILE, HOW, REST, SIZE, WHICH, options, perform

PIXELS = [
    click.option(f"--{side}", type=int, default=0, show_default=True, help=f"Pixels to add {where}.")
    for side, where in (
        ("left", "on the left"),
        ("right", "on the right"),
        ("top", "above"),
        ("bottom", "below"),
    )
]


@click.command(no_args_is_help=True)
@click.argument("picture", type=FILE)
@click.option(
    "--strength",
    default="1",
    show_default=True,
    help="How far from the picture: 0 to 1, subtle or strong. 1: what it shows alone counts; less: also its shapes and places.",
)
@options(WHICH, HOW, SIZE, REST)
def vary(picture: Path, strength: str, **given: Any) -> None:
    """Draw other pictures of what PICTURE shows.

    Needs a model with a picture encoder. The result is as large as the picture unless --size says otherwise.
    """
    from chashka import images
    from chashka.generate import modes

    whole = {**modes.PICTURE_ALONE, "strength": strength}
    perform(given | whole, lambda: modes.varied(images.read(picture)), f"{picture.stem} variation")


@click.command()
@click.option(
    "--picture",
    "pictures",
    type=(FILE, float),
    multiple=True,
    metavar="FILE WEIGHT",
    help="A picture, and how much of it; repeatable.",
)
@click.option(
    "--text", "texts", type=(str, float), multiple=True, metavar="TEXT WEIGHT", help="Words, and how much; repeatable."
)
@options(WHICH, HOW, SIZE, REST)
def mix(pictures: tuple[tuple[Path, float], ...], texts: tuple[tuple[str, float], ...], **given: Any) -> None:
    """Draw a mixture of pictures and words.

    \b
    chashka mix --picture cat.png 0.6 --text "a teapot" 0.4

    Weights are relative: 3 and 2 are the same as 0.6 and 0.4. Needs a model with a picture encoder.
    """
    from chashka import images
    from chashka.generate import modes
    from chashka.request import Inputs

    whole = modes.mixture([weight for _, weight in pictures], texts)
    about = " ".join([*(file.stem for file, _ in pictures), *(text for text, _ in texts)])
    perform(given | whole, lambda: Inputs(pictures=tuple(images.read(file) for file, _ in pictures)), about)


@click.command(no_args_is_help=True)
@click.argument("picture", type=FILE)
@click.argument("prompt", required=False)
@options(PIXELS, WHICH, HOW, REST)
def extend(picture: Path, prompt: str | None, left: int, right: int, top: int, bottom: int, **given: Any) -> None:
    """Draw on beyond the edges of PICTURE: what the whole shall show is PROMPT.

    Every pixel of the picture is kept. Without a prompt the picture itself says what to draw, for which the model needs a
    picture encoder.
    """
    from chashka import images
    from chashka.generate import modes

    sides = {"left": left, "right": right, "top": top, "bottom": bottom}
    perform(
        given | modes.extending(prompt),
        lambda: modes.extended(images.read(picture), sides, prompt),
        f"{picture.stem} extended",
    )
