"""``chashka data``: openly licensed pictures and their captions, from packages to the shards that training reads."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import click

from chashka.cli.numbers import Finite
from chashka.cli.places import cache_dir
from chashka.errors import FileError, MissingExtraError

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
HELD_OUT = "held-out.tsv"


@click.group()
def data() -> None:
    """Make training data: pictures, then captions. Packages are fetched by npm and apt, once, into a cache."""


@data.command()
@click.option("--out", type=FOLDER, required=True, help="Folder for the shards and the manifest.")
@click.option("--cache", type=FOLDER, help="Folder of fetched packages.  [default: the user's cache]")
@click.option("--source", "sources", multiple=True, help="A set of drawings; repeatable. Default: all but openclipart.")
@click.option("--size", type=int, default=256, show_default=True, help="Side of the pictures, a multiple of 32.")
@click.option("--limit", type=int, help="At most so many drawings of each set, spread evenly.")
@click.option("--jobs", type=int, default=2, show_default=True, help="Processes that render.")
@click.option("--min-weight", type=float, default=0.0, show_default=True, help="Leave out lighter drawings, 0 to 1.")
@click.option("--near-duplicates", is_flag=True, help="Leave out pictures that are nearly the same as another one.")
def build(
    out: Path,
    cache: Path | None,
    sources: tuple[str, ...],
    size: int,
    limit: int | None,
    jobs: int,
    min_weight: float,
    near_duplicates: bool,
) -> None:
    """Fetch, render and pack pictures; the manifest names every picture's source, author and licence."""
    _needs("resvg_py", "chashka data build")
    from chashka.data.build import build as build_shards

    manifest = build_shards(
        out,
        _packages(cache),
        sources=sources or None,
        size=size,
        limit=limit,
        jobs=jobs,
        min_weight=min_weight,
        near_duplicates=near_duplicates,
        say=lambda line: click.echo(line, err=True),
    )
    click.echo(f"{len(manifest.entries)} pictures in {out}")


@data.command()
@click.option("--shards", type=FOLDER, required=True, help="Folder made by chashka data build; the captions join it.")
@click.option("--cache", type=FOLDER, help="Folder of fetched packages.  [default: the user's cache]")
@click.option("--vocabulary", type=FILE, help="A vocabulary file.  [default: the one in the package]")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of what is drawn at random, such as misspellings."
)
def captions(shards: Path, cache: Path | None, vocabulary: Path | None, seed: int) -> None:
    """Write captions in all languages for the concepts of a folder of shards."""
    from chashka.data.captions import build_captions
    from chashka.data.sources import ANNOTATIONS, CATALOGUE, fetch
    from chashka.data.wordnet import further_names
    from chashka.data.words import Words
    from chashka.prompts import Vocabulary

    described, styles = _described(shards)
    words = Words.read([fetch(package, _packages(cache)) for package in ANNOTATIONS])
    synonyms = CATALOGUE.dictionary
    dictionary = None if synonyms is None else fetch(synonyms, _packages(cache))
    extra = further_names(described, words, dictionary)
    read = Vocabulary.load(vocabulary or _own_vocabulary())
    table = build_captions(words, read, list(described), styles, seed, extra)
    table.write(shards / "captions.safetensors")
    click.echo(
        f"{len(table.offsets) - 1} captions in {len(table.locales)} languages in {shards / 'captions.safetensors'}"
    )


@data.command()
@click.option("--shards", type=FOLDER, required=True, help="Folder made by chashka data build; the scenes join it.")
@click.option(
    "--count", type=click.IntRange(1, 5_000_000), default=100_000, show_default=True, help="Number of scenes."
)
@click.option("--languages", type=click.IntRange(1, 12), default=3, show_default=True, help="Captions of each scene.")
@click.option("--vocabulary", type=FILE, help="A vocabulary file.  [default: the one in the package]")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other scenes.")
@click.option(
    "--other-words",
    type=Finite(0, 1),
    default=0.5,
    show_default=True,
    help='Share of captions in other words: "cat beside dog" for "a cat next to a dog".',
)
def scenes(shards: Path, count: int, languages: int, vocabulary: Path | None, seed: int, other_words: float) -> None:
    """Compose scenes of several things, with captions in ten languages; training draws their pictures."""
    _needs("pymorphy3", "chashka data scenes")
    from chashka.data.scenes import write_held_out, write_scenes
    from chashka.prompts import Vocabulary

    described, styles = _described(shards)
    drawn = [concept.removeprefix("emoji:") for concept, known in described.items() if known["emoji"]]
    read = Vocabulary.load(vocabulary or _own_vocabulary())
    out = shards / "scenes.safetensors"
    write_scenes(out, count, seed, drawn, styles, lambda text: read.encode(text).ids, languages, other_words)
    kept = write_held_out(shards / HELD_OUT)
    click.echo(f"{count} scenes with {count * languages} captions in {out}; {kept} kinds held out: {shards / HELD_OUT}")


@data.command()
@click.option("--out", type=FILE, required=True, help="The vocabulary file to write.")
@click.option("--cache", type=FOLDER, help="Folder of fetched packages.  [default: the user's cache]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the composed captions among the texts.")
def vocabulary(out: Path, cache: Path | None, seed: int) -> None:
    """Train the vocabulary of the text encoders on names and keywords in all languages."""
    _needs("pymorphy3", "chashka data vocabulary")
    from chashka.data.sources import ANNOTATIONS, fetch
    from chashka.data.vocabulary_build import build as build_vocabulary

    digest, covered = build_vocabulary(out, [fetch(package, _packages(cache)) for package in ANNOTATIONS], seed)
    worst = min(covered, key=lambda locale: covered[locale])
    click.echo(f"{out}  sha256 {digest[:16]}  lowest coverage: {worst} {covered[worst]:.3f}")


def _needs(package: str, command: str) -> None:
    """Say which extra is missing before anything is fetched."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError("train", command)


def _packages(cache: Path | None) -> Path:
    return cache or cache_dir() / "packages"


def _own_vocabulary() -> Path:
    import chashka

    return Path(chashka.__file__).parent / "teacup" / "vocabulary.tsv"


def _described(shards: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Concepts of a folder of shards with what is known of them, in the order of their numbers, and the styles."""
    from chashka.checkpoints import read_metadata

    first = min(shards.glob("pictures-*.safetensors"), default=None)
    if first is None:
        raise FileError(f"{str(shards)!r} holds no shards; make them with chashka data build")
    metadata = read_metadata(first)
    try:
        described = json.loads((shards / "concepts.json").read_text(encoding="utf-8"))
        return {concept: described[concept] for concept in json.loads(metadata["concepts"])}, json.loads(
            metadata["styles"]
        )
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__} {error}"
        raise FileError(f"{str(shards)!r} is not a complete folder of shards ({reason}); make it again") from error
