"""``chashka export``: finished training runs as the components that the package ships."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from chashka.errors import MissingExtraError

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--autoencoder", type=FILE, required=True, help="average.safetensors of the autoencoder's run.")
@click.option("--clip", type=FILE, required=True, help="average.safetensors of the contrastive encoder's run.")
@click.option("--t5", type=FILE, required=True, help="average.safetensors of the T5-style encoder's run.")
@click.option("--unet", type=FILE, required=True, help="average.safetensors of the U-Net's run.")
@click.option(
    "--latents", type=FILE, required=True, help="features/latents.safetensors of the U-Net's run (the scale)."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the components."
)
def export(autoencoder: Path, clip: Path, t5: Path, unet: Path, latents: Path, out: Path) -> None:
    """Write the Kandinsky teacup's components: one safetensors file and one graph each, every weight once."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "chashka export")
    from chashka.training.ship import Finished, ship

    for written in ship(Finished(autoencoder, clip, t5, unet, latents), out):
        click.echo(f"{written.weights}  {written.weights.stat().st_size / 1e6:.1f} MB  {written.sha256[:16]}")
