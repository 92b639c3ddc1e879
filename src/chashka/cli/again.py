"""``chashka again``: a picture drawn once more, by what its file says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.delivering import Wish, deliver
from chashka.cli.drawing import FILE, MODEL, OUT, PRIVACY, REPORT, SVG, drawn, options
from chashka.cli.places import cache_dir, models_dir
from chashka.errors import FileError, InputError, WeightsError

if TYPE_CHECKING:
    from chashka.families import Bundle
    from chashka.request import Inputs, Request

GIVEN = [
    click.option("--init", "init_file", type=FILE, help="The picture that it was made from, if it was."),
    click.option("--mask", "mask_file", type=FILE, help="The mask that it was made with."),
    click.option(
        "--with",
        "files",
        type=FILE,
        multiple=True,
        help="A LoRA, an embedding or an autoencoder that it was drawn with, where it is not in --models; repeatable.",
    ),
    click.option(
        "--anyway", is_flag=True, help="Take files, and a model, of other contents than it was drawn with, and say so."
    ),
]
USES = ("init", "mask")
"""What can be given here; pictures that are mixed cannot."""


@click.command(no_args_is_help=True)
@click.argument("picture", type=FILE)
@options(GIVEN, MODEL, OUT, [SVG, PRIVACY], REPORT)
def again(
    picture: Path,
    init_file: Path | None,
    mask_file: Path | None,
    files: tuple[Path, ...],
    anyway: bool,
    model: str | None,
    models: Path | None,
    engine: str,
    device: str | None,
    precision: str | None,
    **given: Any,
) -> None:
    """Draw PICTURE, a file of chashka's, once more: the same request, seed, LoRAs, embeddings and autoencoder.

    Files that its LoRAs, embeddings and autoencoder come from are looked for by their names, and told by their sha256. On
    another machine, engine or precision the last bits may differ.
    """
    from chashka import families
    from chashka.again import kept, same_checkpoint
    from chashka.generate.modes import wanted
    from chashka.prompts import policy

    started = time.perf_counter()
    models = models_dir(models)
    stored = _stored(picture)
    name = model or _model(stored, models)
    request = _request(families.options(name, models), stored)
    policy.check(wanted(request))
    wish = Wish.of(given | {"grid": False})
    read, notes = _inputs(stored, init_file, mask_file, anyway)
    found = kept(stored, models, files, anyway=anyway, cache_dir=cache_dir())
    if stored.get("upscaled"):
        notes.append(
            "the file was enlarged after it was drawn; what is drawn is the picture before: see chashka upscale"
        )
    running: dict[str, Any] = {"engine": engine, "device": device, "precision": precision, "cache_dir": cache_dir()}
    notes += found.notes

    def opening(**adapters: Any) -> Bundle:
        bundle = families.load(name, models=models, vae=found.vae, **running, **adapters)
        note = same_checkpoint(stored, bundle, anyway=anyway, cache_dir=cache_dir())
        notes.extend([note] if note else [])
        return bundle

    bundle, pictures, seconds = drawn(opening, {(found.loras, found.embeddings): [0]}, [request], read)
    deliver(bundle, pictures, wish, None, started, seconds, notes)


def _stored(file: Path) -> Mapping[str, Any]:
    """What the file says. Raises FileError for one that does not say how it was drawn."""
    from chashka import images

    stored = images.read_metadata(file)
    if stored is None or not isinstance(stored.get("request"), dict):
        raise FileError(
            f"{str(file)!r} does not say how it was drawn; chashka again needs a file of chashka's with everything in it "
            "(--privacy full)"
        )
    return stored


def _model(stored: Mapping[str, Any], models: Path | None) -> str:
    """The name by which the model is found: its own, or that of a published one in the folder. Raises InputError."""
    from chashka import families

    said, family = (str(stored.get(name) or "")[:200] for name in ("model", "family"))
    for name in dict.fromkeys((said, said.removeprefix(f"{family}-"))):
        # a file of somebody else's shall not choose which path is opened
        if name and not {"/", "\\"} & set(name) and not name.lower().endswith(families.CHECKPOINTS):
            with suppress(InputError, WeightsError):
                families.find(name, models)
                return name
    where = "--models is not given" if models is None else str(models)
    raise InputError(
        f"model: the picture was drawn with {said[:60]!r}, which is not found ({where}); give it with --model"
    )


def _request(options: type[Request], stored: Mapping[str, Any]) -> Request:
    """The one picture's request. Raises InputError."""
    number, seed = stored.get("picture", 0), stored.get("seed")
    return options.of({"seed": seed, **stored["request"], "n": 1, "first": number})


def _inputs(
    stored: Mapping[str, Any], init_file: Path | None, mask_file: Path | None, anyway: bool
) -> tuple[Inputs | None, list[str]]:
    """The pictures that it was made from, and notes. Raises InputError where they are missing, or are others."""
    from chashka import images
    from chashka.generate.given import sources
    from chashka.request import Inputs

    rows = [row for row in stored.get("sources") or () if isinstance(row, dict)]
    sums = {str(row.get("use")): str(row.get("sha256")) for row in rows}
    others = [use for use in sums if use not in USES]
    if others:
        raise InputError(
            f"{others[0][:40]}: the picture is a mixture of given ones, which this cannot draw; use chashka mix, vary or extend"
        )
    for use, file in (("init", init_file), ("mask", mask_file)):
        if use in sums and file is None:
            raise InputError(f"{use}: the picture was made from one that its file does not hold; give it with --{use}")
        if use not in sums and file is not None:
            raise InputError(f"{use}: the picture was made without; leave it out")
    if init_file is None:
        return None, []
    given = Inputs(images.read(init_file), None if mask_file is None else images.read_mask(mask_file))
    changed = [one.use for one in sources(given) if one.sha256 != sums[one.use]]
    if changed and not anyway:
        raise InputError(
            f"{changed[0]}: this is another one than the picture was made from; give that one, or take this one with --anyway"
        )
    return given, [f"{use}: another one than the picture was made from was taken" for use in changed]
