"""``chashka export --int8 --calibrate``: a model's U-Net with int8 activations, and what that changes, measured."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from chashka.cli.drawing import size_of
from chashka.cli.evaluate import _bar
from chashka.cli.places import cache_dir, models_dir
from chashka.errors import FileError, InputError, MissingExtraError

CALIBRATE = [
    click.option("--int8", is_flag=True, help="A model's U-Net with activations in int8 too; only with --calibrate."),
    click.option("--calibrate", is_flag=True, help="Take the ranges from its own drawings, and measure the drift."),
    click.option(
        "--model", help="With --calibrate: whose; a name, ./FOLDER or ./FILE.  [default: the one in the package]"
    ),
    click.option(
        "--models",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="CHASHKA_MODELS",
        show_envvar=True,
        help="With --calibrate: where published models are kept.",
    ),
    click.option(
        "--prompts",
        type=click.Path(dir_okay=False, path_type=Path),
        help="With --calibrate: a text file, a prompt a line; every second one is kept to measure with.  [default: 12 fixed ones]",
    ),
    click.option("--calls", type=int, help="With --calibrate: calls that the ranges are taken from.  [default: 60]"),
    click.option("--steps", type=int, help="With --calibrate: steps of each drawing.  [default: the model's]"),
    click.option("--size", help="With --calibrate: WIDTHxHEIGHT of each drawing.  [default: the model's]"),
    click.option("--json", "as_json", is_flag=True, help="With --calibrate: print the report as one JSON object."),
]
OWN = ("model", "models", "prompts", "calls", "steps", "size", "as_json")
"""Fields of the options above, apart from the two that ask for it."""


def check(int8: bool, calibrate: bool, of_runs: list[str]) -> None:
    """Raises InputError unless both flags are given and nothing that belongs to training runs."""
    if not calibrate:
        raise InputError(
            "int8: activations in int8 are offered only where they were measured; add --calibrate, or store weights alone "
            "in int8 with --precision int8"
        )
    if not int8:
        raise InputError("calibrate: belongs to int8; give --int8 --calibrate")
    if of_runs:
        _refuse(of_runs, "belongs to the export of training runs; leave it or --int8 --calibrate out")


def check_runs(own: list[str]) -> None:
    """Raises InputError for options of the calibration without it. The folder of models may come from the environment."""
    given = [name for name in own if name != "models"]
    if given:
        _refuse(given, "belongs to --int8 --calibrate; give these two, or leave it out")


def _refuse(names: list[str], why: str) -> NoReturn:
    option = {"as_json": "json", "precisions": "precision"}.get(names[0], names[0]).replace("_", "-")
    raise InputError(f"{option}: {why}")


def measure(
    model: str | None,
    models: Path | None,
    prompts: Path | None,
    calls: int | None,
    steps: int | None,
    size: str | None,
    as_json: bool,
) -> None:
    """Draw, quantise, measure, keep, and print the report."""
    if importlib.util.find_spec("nncf") is None:
        raise MissingExtraError("quantise", "chashka export --int8 --calibrate")
    from chashka import families
    from chashka.evaluation.calibration import CALLS, calibrate, split, told

    name, folder = model or families.DEFAULT, models_dir(models)
    said = None if prompts is None else _lines(prompts)
    fields = {**({} if steps is None else {"steps": steps}), **size_of(size)}
    families.options(name, folder)(prompt="-", **fields)  # what is wrong is refused before anything is loaded
    drawings = sum(len(part) * times for part, times in zip(split(said), (1, 3), strict=True))
    bundle = families.load(name, engine="openvino", precision="f32", cache_dir=cache_dir(), models=folder)
    with _bar(drawings) as advance:
        report, file = calibrate(bundle, cache_dir(), said, CALLS if calls is None else calls, advance, **fields)
    if as_json:
        shown: dict[str, Any] = asdict(report)
        shown |= {"holds": report.holds, "verdict": report.verdict, "ratio": report.ratio, "file": str(file)}
        click.echo(json.dumps(shown, ensure_ascii=False, indent=1))
        return
    for line in told(report):
        click.echo(line)
    click.echo(f"report: {file}")


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {str(file)!r}: {error}") from error
    return [line for line in lines if line and not line.startswith("#")]
