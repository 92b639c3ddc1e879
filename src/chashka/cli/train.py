"""``chashka train``: one command per stage; the same function as ``python -m chashka.training`` on a bare machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import click

from chashka.cli.numbers import Finite
from chashka.errors import MissingExtraError

FOLDER = click.Path(file_okay=False, path_type=Path)
WEIGHTS = click.Path(path_type=Path)


@click.command()
@click.argument(
    "stage", type=click.Choice(["autoencoder", "clip", "t5", "picture", "upscale", "unet", "distil", "judge"])
)
@click.option("--recipe", help="A recipe's name or JSON file. Default: the stage's own recipe.")
@click.option("--shards", type=FOLDER, help="Folder made by chashka data build.")
@click.option("--run", type=FOLDER, help="Folder of the run; the same folder again goes on where it stopped.")
@click.option("--minutes", type=Finite(0), help="Stop cleanly after so many minutes; go on another time.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--start", type=WEIGHTS, help="Begin with these weights.")
@click.option(
    "--frozen",
    multiple=True,
    metavar="STAGE=WEIGHTS",
    help="Weights of earlier stages, for clip, picture, upscale, unet, distil and judge.",
)
@click.option("--show-recipe", is_flag=True, help="Print the recipe as JSON and stop: a start for your own.")
def train(
    stage: str,
    recipe: str | None,
    shards: Path | None,
    run: Path | None,
    minutes: float | None,
    device: str,
    start: Path | None,
    frozen: tuple[str, ...],
    show_recipe: bool,
) -> None:
    """Train a stage of the embedded models: autoencoder, clip, t5, unet, then distil; picture on top of clip; upscale; a judge.

    \b
    chashka train autoencoder --shards data/shards --run runs/autoencoder --minutes 60
    chashka train unet --shards data/shards --run runs/unet --frozen autoencoder=runs/autoencoder/average.safetensors …

    Weights are a run's average.safetensors or a folder of exported components (the package's own, say).
    The learning rate is a function of the recipe's whole length, so that a run may be cut into slices of any size; a killed run
    goes on from its last state. Every slice leaves average.safetensors in the run's folder, for chashka export.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("train", "chashka train")
    # Asked at torch's first allocation: large pages, up to a tenth of a U-Net's step on a CPU.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from chashka.training import catalogue
    from chashka.training.__main__ import frozen_files

    chosen = catalogue.load(recipe or stage, stage)
    if show_recipe:
        click.echo(catalogue.to_json(chosen), nl=False)
        return
    if shards is None or run is None:
        raise click.UsageError("--shards and --run are needed to train: the folder of data and the folder of the run")
    from chashka.training.stages import train as train_stage

    files = frozen_files(list(frozen))
    if not train_stage(chosen, shards, run, minutes=minutes, device=device, start=start, frozen=files):
        click.echo("everything is saved; the same command goes on", err=True)
        raise click.Abort
