"""``chashka export``: finished training runs as the components that the package ships, or a model's U-Net in int8, measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chashka.cli.calibrate import CALIBRATE, OWN, check, check_runs, measure
from chashka.cli.drawing import options
from chashka.cli.evaluate import _bar
from chashka.cli.numbers import Finite
from chashka.errors import InputError, MissingExtraError

FILE = click.Path(dir_okay=False, path_type=Path)
WEIGHTS = click.Path(path_type=Path)


RUNS = [
    click.option("--autoencoder", type=WEIGHTS, help="Weights of the autoencoder's run.  [required]"),
    click.option("--clip", type=WEIGHTS, help="Weights of the contrastive encoder's run.  [required]"),
    click.option("--t5", type=WEIGHTS, help="Weights of the T5-style encoder's run, for a Kandinsky teacup."),
    click.option("--unet", type=WEIGHTS, help="Weights of the U-Net's run.  [required]"),
    click.option("--picture", type=WEIGHTS, help="Weights of the picture encoder's run, for chashka vary and mix."),
    click.option("--fast", type=WEIGHTS, help="Weights of the run of the stage distil, for drafts in a few steps."),
    click.option("--upscaler", type=WEIGHTS, help="Weights of the upscaler's run, for chashka upscale."),
    click.option(
        "--judge", type=FILE, help="The average.safetensors of a judge's run; with --out, and nothing of a model."
    ),
    click.option(
        "--shards",
        type=click.Path(file_okay=False, path_type=Path),
        help="With --judge: measure it on perfect pictures made of these drawings.",
    ),
    click.option(
        "--latents",
        type=FILE,
        help="features/latents.safetensors of the U-Net's run: the scale. Not needed for an exported autoencoder.",
    ),
    click.option(
        "--guide-without",
        "guide_without",
        multiple=True,
        metavar="BLOCK",
        help="A block of the U-Net, such as output_blocks.3.0, that the guiding half of a guided call lacks; repeatable.",
    ),
    click.option(
        "--sampler",
        help="What draws where a request names no sampler, such as euler_a or \"Euler a\".  [default: the U-Net's recipe's]",
    ),
    click.option(
        "--guidance",
        type=Finite(0, 50),
        help="Guidance scale where a request names none, 0 to 50.  [default: the U-Net's recipe's]",
    ),
    click.option(
        "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the components.  [required]"
    ),
    click.option(
        "--precision",
        "precisions",
        multiple=True,
        metavar="[COMPONENT=]fp16|int8",
        help="How weights are stored: of all components, or of one; repeatable.  "
        "[default: fp16, or as they were exported]",
    ),
]
NEEDED = ("autoencoder", "clip", "unet", "out")


@click.command()
@options(RUNS, CALIBRATE)
def export(int8: bool, calibrate: bool, **given: Any) -> None:
    """Write a teacup's components: one safetensors file and one graph each, every weight once.

    Which family's it is, the U-Net's recipe says: Stable Diffusion's reads the contrastive encoder alone.

    Weights are a run's average.safetensors, or a folder of exported components: what was not trained anew goes through as it is.
    --precision int8 halves the files: one byte a weight and a scale for each output channel, first and last layers in fp16. Whether
    the pictures bear it: chashka evaluate precision.

    --judge writes a judge in place of a model, for chashka evaluate --judge OUT.

    With --int8 --calibrate nothing of a run is exported: the U-Net of --model gets a second graph, for this machine, that
    computes its largest layers with activations in int8 too, and a report of how far that is from the first one. If it holds,
    --precision w8a8 draws with it. Needs the extra [quantise].
    """
    of_runs = {name: value for name, value in given.items() if name not in OWN}
    if int8 or calibrate:
        check(int8, calibrate, [name for name, value in of_runs.items() if value not in (None, ())])
        measure(**{name: given[name] for name in OWN})
        return
    check_runs([name for name in OWN if given[name] not in (None, False)])
    if given["judge"] is not None:
        _export_judge(**of_runs)
        return
    lacking = next((name for name in NEEDED if given[name] is None), None)
    if lacking is not None:
        raise click.UsageError(f"Missing option '--{lacking}'.", click.get_current_context())
    if given["shards"] is not None:
        raise InputError("shards: belongs to --judge; leave it out")
    _export_runs(**{name: value for name, value in of_runs.items() if name not in ("judge", "shards")})


def _export_judge(
    judge: Path, out: Path | None, shards: Path | None, precisions: tuple[str, ...], **others: Any
) -> None:
    from chashka.engines.components import PRECISIONS

    if wrong := [name for name, value in others.items() if value not in (None, ())]:
        raise InputError(f"{wrong[0]}: belongs to a model, and --judge writes a judge alone; leave one of them out")
    if out is None:
        raise click.UsageError("Missing option '--out'.", click.get_current_context())
    if not set(precisions) <= set(PRECISIONS) or len(precisions) > 1:
        raise InputError(f"precision: of a judge it is one of {', '.join(PRECISIONS)}; given: {', '.join(precisions)}")

    def write() -> list[Path]:
        from chashka.evaluation.scene_prompts import PROMPTS
        from chashka.training.ship_judge import ship_judge

        with _bar(None if shards is None else PROMPTS) as advance:
            return [ship_judge(judge, out, (precisions or ("int8",))[0], shards, advance)]

    _written(write)


def _written(write: Callable[[], list[Path]]) -> None:
    """Write components, which needs torch, and say what was written."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "chashka export")
    from chashka.checkpoints.safetensors_file import sha256

    for written in write():
        click.echo(f"{written}  {written.stat().st_size / 1e6:.1f} MB  {sha256(written)[:16]}")


def _export_runs(
    autoencoder: Path,
    clip: Path,
    t5: Path | None,
    unet: Path,
    picture: Path | None,
    fast: Path | None,
    upscaler: Path | None,
    latents: Path | None,
    guide_without: tuple[str, ...],
    sampler: str | None,
    guidance: float | None,
    out: Path,
    precisions: tuple[str, ...],
) -> None:
    from chashka.diffusion.sampler_names import sampler_name
    from chashka.families.kandinsky.opening import PICTURE
    from chashka.families.teacups import FAST, UPSCALER

    usual = None if sampler is None else sampler_name(sampler)
    given = {PICTURE: picture, FAST: fast, UPSCALER: upscaler}
    precision = chosen_precision(precisions, tuple(name for name, weights in given.items() if weights is not None))

    def write() -> list[Path]:
        from chashka.training.ship import Finished, ship

        finished = Finished(
            autoencoder, clip, t5, unet, latents, picture, upscaler, guide_without or None, fast, usual, guidance
        )
        return ship(finished, out, precision)

    _written(write)


def chosen_precision(words: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, str]:
    """``int8`` or ``unet=int8`` … as precision by component; one that names its component wins, whatever the order.

    optional: components that are there beside those which every model has.
    """
    from chashka.engines.components import PRECISIONS
    from chashka.families.kandinsky.opening import COMPONENTS

    known = (*COMPONENTS, *optional)
    everywhere: dict[str, str] = {}
    single: dict[str, str] = {}
    for word in words:
        component, _, precision = word.rpartition("=")
        if precision not in PRECISIONS or (component and component not in known):
            raise InputError(
                f"precision: {word!r} is not known; allowed are {', '.join(PRECISIONS)}, alone or behind one of "
                f"{', '.join(known)} and '='"
            )
        target = {component: precision} if component else dict.fromkeys(known, precision)
        (single if component else everywhere).update(target)
    return everywhere | single
