"""``chashka upscale``: a picture at twice or four times its size."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from chashka.cli.delivering import DEFAULT_SUFFIX, target
from chashka.cli.drawing import FILE, MODEL, OUT, REPORT, options
from chashka.cli.places import cache_dir, remember


@click.command(no_args_is_help=True)
@click.argument("picture", type=FILE)
@click.option("--by", type=int, default=2, show_default=True, help="How many times as wide and as high: 2 or 4.")
@options(MODEL, OUT, REPORT)
def upscale(
    picture: Path,
    by: int,
    model: str | None,
    models: Path | None,
    engine: str,
    device: str | None,
    precision: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Enlarge PICTURE (PNG, JPEG, WebP), with crisp edges, to at most 4096 pixels a side.

    Made for flat drawings such as the embedded model's; transparency stays. What the file says of how it was drawn goes
    along. Needs a model with an upscaler.
    """
    from chashka import enlarge, families, images

    folder, file_name = target(out, svg=False)
    enlarge.check(by)
    pixels = images.read(picture)
    height, width = pixels.shape[:2]
    enlarge.check(by, width, height)
    bundle = families.load(
        model or families.DEFAULT,
        engine=engine,
        device=device,
        precision=precision,
        cache_dir=cache_dir(),
        models=models,
    )
    started = time.perf_counter()
    larger = enlarge.upscale(bundle, pixels, by)
    seconds = time.perf_counter() - started
    if int(pixels[..., 3].min()) == 255:
        larger = larger[..., :3]  # a picture without transparency stays one
    size = (larger.shape[1], larger.shape[0])
    result = images.Labelled(larger, images.enlarged_label(picture, by, bundle.model, size))
    if file_name is None:
        file = images.save_new(result, folder, f"{picture.stem}-x{by}", DEFAULT_SUFFIX)
    else:
        file = images.save(result, folder / file_name)
    for note in remember([(file, larger)]):
        click.echo(f"note: {note}", err=True)
    if as_json:
        report = {
            "model": bundle.model,
            "engine": bundle.engine,
            "file": str(file),
            "by": by,
            "width": size[0],
            "height": size[1],
            "seconds": round(seconds, 3),
        }
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        click.echo(str(file))
        click.echo(f"{width}x{height} to {size[0]}x{size[1]}, {seconds:.1f} s", err=True)
