"""``chashka draw``: text, or text with a picture and a mask, to picture files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.drawing import CHOICES, FILE, HOW, REST, SIZE, WHICH, options, perform
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.request import Inputs

START = [
    click.option("--init", "init_file", type=FILE, help="Start from this picture (PNG, JPEG, WebP)."),
    click.option(
        "--strength",
        help="How much of the picture is replaced: 0 to 1, subtle or strong.  [default: 0.7; 1 with a mask]",
    ),
    click.option("--mask", "mask_file", type=FILE, help="Repaint only where this picture is white."),
    click.option("--mask-blur", type=float, help="How soft the mask's edge is made, in pixels.  [default: 0]"),
    click.option("--only-masked", is_flag=True, help="Draw the masked part alone, as large as the model draws."),
    click.option("--mask-padding", type=int, help="Pixels seen around a part drawn alone.  [default: 32]"),
]
MODES = [
    click.option("--subseed", type=int, help="Another seed, that variations turn to.  [default: a random one]"),
    click.option("--subseed-strength", type=float, help="Variations of one picture: how far they turn, 0 to 1."),
    click.option("--subseed-of", type=int, help="Number of the seed's picture that is varied.  [default: 0]"),
    click.option("--hires", "hires_scale", type=float, help="Enlarge this often and draw over it, in a second pass."),
    click.option("--hires-strength", help="How much the second pass replaces.  [default: 0.5]"),
    click.option("--hires-steps", type=int, help="Its steps.  [default: as many as --steps]"),
    click.option("--tiling", help="x, y or xy: the picture continues at its opposite edge."),
]


@click.command(no_args_is_help=True)
@click.argument("prompt")
@options(WHICH, HOW, CHOICES, SIZE, START, MODES, REST)
def draw(init_file: Path | None, mask_file: Path | None, **given: Any) -> None:
    """Draw pictures of PROMPT, in any language, and print the names of the files.

    White in a mask is repainted, black is kept exactly. Every file carries its request, so that it can be drawn again.
    Exit codes: see chashka --help.
    """
    perform(given, lambda: _inputs(init_file, mask_file))


def _inputs(init_file: Path | None, mask_file: Path | None) -> Inputs | None:
    from chashka import images
    from chashka.request import Inputs

    if init_file is None:
        if mask_file is not None:
            raise InputError("mask: there is no picture to repaint; give it with --init")
        return None
    mask = None if mask_file is None else images.read_mask(mask_file)
    return Inputs(images.read(init_file), mask)
