"""``chashka evaluate``: the contact sheet of the fixed prompts, and figures of the codec, recognition and thresholds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.places import cache_dir
from chashka.errors import FileError, InputError

if TYPE_CHECKING:
    from chashka.evaluation.gallery import Gallery
    from chashka.evaluation.judge import Judge
    from chashka.evaluation.metrics import Recognition
    from chashka.families import Bundle

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EACH = click.option(
    "-n", "n", type=click.IntRange(1, 64), default=1, show_default=True, help="How many pictures of each prompt."
)


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--device", help="The engine's name of a device, such as CPU, GPU or cuda."),
        click.option("--engine", type=click.Choice(["auto", "openvino", "torch"]), default="auto", show_default=True),
        click.option(
            "--model", help="A name (chashka models) or ./FOLDER of chashka export.  [default: the one in the package]"
        ),
    ):
        command = option(command)
    return command


def _drawing_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--fast", is_flag=True, default=None, help="Drafts: the model's quick settings."),
        click.option("--spacing", help="How noise levels are spaced. Default: the model's."),
        click.option("--sampler", help="Sampler. Default: the model's."),
        click.option("--guidance", "guidance_scale", type=float, help="Guidance scale, 0 to 50. Default: the model's."),
        click.option("--steps", type=int, help="Sampling steps, 1 to 1000. Default: the model's."),
    ):
        command = option(command)
    return command


@click.group()
def evaluate() -> None:
    """Draw the fixed prompts and measure the model.

    The 48 prompts and their seeds never change, so that figures of two models can be compared.
    """


@evaluate.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for sheet.png, .md, .json and strip.png (replaced).")
@click.option("--shards", type=FOLDER, help="Also find the nearest training picture of each, in this folder of shards.")
@_drawing_options
@_model_options
def sheet(out: Path, shards: Path | None, **given: Any) -> None:
    """Draw all 48 prompts with seeds 0 to 47, unpicked, on one contact sheet."""
    from chashka.evaluation.prompts import PROMPTS
    from chashka.evaluation.sheet import contact_sheet

    bundle, fields = _bundle(given)
    with _bar(len(PROMPTS)) as advance:
        report = contact_sheet(bundle, out, shards=shards, on_picture=advance, **fields)
    click.echo(str(out / "sheet.png"))
    for name, figures in (("drawn", report.drawn), ("held-out", report.held_out)):
        if figures is not None:
            click.echo(
                f"{name}: {figures.pictures} pictures, nearest training picture at {figures.distance:.3f} (median), "
                f"{figures.copied:.1%} with a ratio below 1/3"
            )


@evaluate.command()
@click.option("--shards", type=FOLDER, required=True, help="Folder of shards; its held-out pictures are used.")
@click.option("--limit", type=click.IntRange(1), help="At most so many pictures, spread evenly.")
@click.option("--out", type=FILE, help="Also write the report as JSON into this file.")
@_model_options
def autoencoder(shards: Path, limit: int | None, out: Path | None, **given: Any) -> None:
    """Encode and decode held-out pictures: PSNR on white, and how well outlines are kept."""
    from chashka.evaluation.metrics import autoencoder_report

    bundle, _ = _bundle(given)
    with _bar(limit) as advance:
        report = autoencoder_report(bundle, shards, limit=limit, on_picture=advance)
    _write(report, out)
    click.echo(
        f"{report.pictures} pictures: PSNR {report.psnr:.2f} dB (5 % below {report.psnr_low:.2f}), "
        f"alpha IoU {report.alpha_iou:.4f} (5 % below {report.alpha_iou_low:.4f})"
    )


@evaluate.command()
@click.option("--shards", type=FOLDER, required=True, help="Folder of shards that the model was trained with.")
@click.option(
    "--picture", type=FILE, help="Judge by the picture encoder in this average.safetensors, not by the nearest picture."
)
@EACH
@click.option("--out", type=FILE, help="Also write the report as JSON into this file.")
@_drawing_options
@_model_options
def recognition(shards: Path, picture: Path | None, n: int, out: Path | None, **given: Any) -> None:
    """How often a judge recognises what was drawn, over the prompts that ask for one thing.

    The judge is the nearest training picture of all; with --picture, an encoder that learnt from them (needs [torch]).
    """
    from chashka.evaluation.gallery import galleries
    from chashka.evaluation.metrics import recognition_report
    from chashka.evaluation.prompts import SINGLE

    bundle, fields = _bundle(given)
    training, held_out = galleries(shards)
    judge = _judge(training, picture)
    with _bar(len(SINGLE) * n) as advance:
        report = recognition_report(bundle, judge, held_out=held_out, on_picture=advance, n=n, **fields)
    _write(report, out)
    click.echo(f"judge: {report.judge}, {report.concepts} concepts")
    for name in ("drawn", "english", "others", "held_out"):
        click.echo(f"{name.replace('_', '-')}: {_shares(getattr(report, name))}")
    click.echo(report.caveat, err=True)


@evaluate.command()
@click.option("--shards", type=FOLDER, help="Also judge what is recognised, by this folder of shards.")
@click.option(
    "--picture", type=FILE, help="Judge by the picture encoder in this average.safetensors, not by the nearest picture."
)
@click.option("--out", type=FILE, help="Also write the report as JSON into this file.")
@click.option("--steps", type=int, help="Sampling steps.  [default: 75, as in the paper's listing]")
@_model_options
def thresholds(shards: Path | None, picture: Path | None, out: Path | None, **given: Any) -> None:
    """The paper's listing with dynamic_threshold, clip_denoised and none on the same seeds."""
    from chashka.evaluation.gallery import galleries
    from chashka.evaluation.metrics import THRESHOLDS, threshold_report
    from chashka.evaluation.prompts import SINGLE

    if picture is not None and shards is None:
        raise InputError("picture: given without shards, whose list of concepts it needs; give --shards too")
    bundle, fields = _bundle(given)
    judge = None if shards is None else _judge(galleries(shards)[0], picture)
    with _bar(len(SINGLE) * len(THRESHOLDS)) as advance:
        report = threshold_report(bundle, judge, on_picture=advance, **fields)
    _write(report, out)
    for kind in report.kinds:
        click.echo(f"{kind.denoised_type}: {kind.clipped:.1%} of colour values clipped; {_shares(kind.recognition)}")
    for pair in report.differences:
        click.echo(
            f"{pair.first} and {pair.second}: PSNR {pair.median:.2f} dB (median; {pair.lowest:.2f} to {pair.highest:.2f})"
        )


@evaluate.command()
@click.argument("logs", nargs=-1, required=True, type=FILE)
@click.option("--out", type=FILE, required=True, help="The SVG file to write (replaced).")
@click.option("--title", help="Stands above the curves.  [default: the logs' names]")
@click.option(
    "--anew",
    multiple=True,
    metavar="RUN",
    help="From this run on figures do not compare with those before: they are drawn apart; repeatable.",
)
@click.option(
    "--presentations", is_flag=True, help="Count presentations, not steps: by the recipes, ../recipes/RUN.json."
)
def curve(logs: tuple[Path, ...], out: Path, title: str | None, anew: tuple[str, ...], presentations: bool) -> None:
    """Draw the figures in training logs (log.jsonl), given in the order of training."""
    from chashka.evaluation.curve import as_svg, families, run_of

    drawn = families(logs, anew, presentations)
    unit = "presentations" if presentations else "steps"
    _write_text(as_svg(drawn, title or ", ".join(map(run_of, logs)), unit), out)
    click.echo(str(out))


@evaluate.command()
@click.option("--fp16", "reference", help="The reference: a name, or ./FOLDER.  [default: the one in the package]")
@click.option("--int8", "smaller", required=True, help="The same model in fewer bits: ./FOLDER of chashka export.")
@click.option("--shards", type=FOLDER, help="Also held-out figures, from this folder of shards: they decide.")
@click.option("--engine", type=click.Choice(["auto", "openvino", "torch"]), default="auto", show_default=True)
@EACH
@click.option("--out", type=FILE, help="Also write the report as JSON into this file.")
@_drawing_options
def precision(
    reference: str | None, smaller: str, shards: Path | None, engine: str, n: int, out: Path | None, **fields: Any
) -> None:
    """Whether smaller weights hold: two models on the same seeds, in float32, so that only their weights differ.

    Held-out figures may get worse by 1 %; pictures need not be equal. Of few pictures 1 % is less than one of them: -n.
    """
    from chashka import families
    from chashka.evaluation.precision import precision_report, told
    from chashka.evaluation.prompts import PROMPTS

    pair = [families.load(name, engine=engine, precision="f32") for name in (reference or families.DEFAULT, smaller)]
    with _bar(2 * len(PROMPTS) * n) as advance:
        report = precision_report(pair[0], pair[1], shards, on_picture=advance, n=n, **fields)
    _write(report, out)
    for line in told(report):
        click.echo(line)


def _bundle(given: dict[str, Any]) -> tuple[Bundle, dict[str, Any]]:
    """The opened model, and what is left of the options: fields of the request."""
    from chashka import families

    fields = dict(given)
    engine, device, model = (fields.pop(name) for name in ("engine", "device", "model"))
    name = model or families.DEFAULT
    wanted = {key: value for key, value in fields.items() if value is not None}
    families.options(name)(prompt="-", **wanted)  # wrong values are refused before anything is loaded
    return families.load(name, engine=engine, device=device, cache_dir=cache_dir()), fields


def _judge(training: Gallery, picture: Path | None) -> Judge:
    from chashka.evaluation.judge import NearestJudge, PrototypeJudge

    return NearestJudge(training) if picture is None else PrototypeJudge(picture, training.names)


def _shares(figures: Recognition | None) -> str:
    if figures is None:
        return "recognition not judged"
    return f"{figures.top1:.1%} recognised at once, {figures.top5:.1%} among five ({figures.pictures} pictures)"


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[], object]]:
    """A progress bar on stderr, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="picture", file=sys.stderr, leave=False, dynamic_ncols=True) as bar:
        yield bar.update


def _write(report: Any, out: Path | None) -> None:
    if out is None:
        return
    _write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1) + "\n", out)


def _write_text(text: str, out: Path) -> None:
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write {str(out)!r}: {error.strerror or error}") from error
