"""Packages → pictures → shards, with their captions and a manifest of where each picture comes from.

The folder:

========================================  ============================================================================
``pictures-000.safetensors`` …            shards of 2,500 pictures (see :mod:`chashka.data.shards`)
``captions.safetensors``                  names of all concepts in all languages (see :mod:`chashka.data.captions`)
``concepts.json``                         concept id → ``english`` name, ``group``, ``emoji`` (empty for what is none)
``manifest.jsonl.gz``, ``ATTRIBUTION.md``  every picture with its source and licence; the same for people
``refused.json``                          source → reason → number of drawings left out
========================================  ============================================================================

The same packages and options give the same bytes, whatever ``jobs`` is.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from chashka.data.captions import build_captions
from chashka.data.concepts import CLIPART, GROUPS, EmojiTable
from chashka.data.drawings import Drawing, Refused, allowed, check_words, iconify, learn_names, webp
from chashka.data.duplicates import Signature, duplicates, signature
from chashka.data.manifest import Entry, Manifest, attribution
from chashka.data.openclipart import Things, english_keywords, openclipart
from chashka.data.render import NotDrawn, render, require_renderer
from chashka.data.shards import Labels, Record, pack, write_shard
from chashka.data.sources import CATALOGUE, Catalogue, Source, fetch
from chashka.data.wordnet import further_names
from chashka.data.words import Words
from chashka.errors import FileError, InputError
from chashka.prompts import Vocabulary

SHARD_PICTURES = 2500
STYLES = ("flat", "gradient", "3d", "blob", "outlined")
"""The styles of the usual sources, in the order of their numbers; other styles follow, sorted, where they come."""
VOCABULARY = Path(__file__).parents[1] / "teacup" / "vocabulary.tsv"
"""The vocabulary of the embedded models."""


@dataclass(frozen=True, slots=True)
class Options:
    """``size``: side of the pictures, a multiple of 32. ``limit``: only so many drawings of each source, evenly spread.

    ``jobs``: processes that render. ``min_weight``: leave out lighter drawings, 0 to 1 (0.1 drops clock faces, families and
    professions). ``near_duplicates``: leave out pictures that are as good as another one.
    """

    size: int = 256
    limit: int | None = None
    jobs: int = 2
    min_weight: float = 0.0
    near_duplicates: bool = False

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise InputError(f"size: {self.size} is not possible; allowed: multiples of 32, such as 256")
        for name, value in (("jobs", self.jobs), ("limit", self.limit)):
            if value is not None and value < 1:
                raise InputError(f"{name}: {value} is not possible; allowed: whole numbers from 1")
        if not 0 <= self.min_weight <= 1:
            raise InputError(f"min_weight: {self.min_weight} is not possible; allowed: numbers from 0 to 1")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A drawing that gave a picture: packed pixels, their sha256, and what finds its duplicates if that is wanted."""

    drawing: Drawing
    packed: bytes
    sha256: str
    signature: Signature | None


def build(
    out: Path,
    cache: Path,
    *,
    sources: Sequence[str] | None = None,
    size: int = 256,
    limit: int | None = None,
    jobs: int = 2,
    min_weight: float = 0.0,
    near_duplicates: bool = False,
    catalogue: Catalogue = CATALOGUE,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Fetch, render and pack the pictures of ``sources`` (None: the usual ones) into the folder ``out``; returns the manifest.

    For the other options see ``Options``; the shipped models were made with the defaults. ``say`` gets a line a source.
    Files of an earlier build are replaced one by one when everything is ready. Raises InputError for options out of range,
    MissingExtraError without the renderer, FileError for what cannot be fetched, read or written.
    """
    options = Options(size, limit, jobs, min_weight, near_duplicates)
    chosen = catalogue.choose(sources)
    require_renderer()
    table = EmojiTable.read(check_words(catalogue.emoji, fetch(catalogue.emoji, cache)))
    for name in catalogue.named_by:
        learn_names(table, fetch(catalogue.pictures[name], cache))
    annotations = [check_words(source, fetch(source, cache)) for source in catalogue.annotations]
    synonyms = catalogue.dictionary
    dictionary = None if synonyms is None else check_words(synonyms, fetch(synonyms, cache))
    refused: dict[str, Refused] = {name: Counter() for name in chosen}
    pictures: list[Rendered] = []
    with _mapping(jobs) as run:
        for name, source in chosen.items():
            read = _read(name, source, fetch(source, cache), table, annotations, refused[name])
            drawings = _selected(list(allowed(read, refused[name])), options, refused[name])
            kept = _render_all(drawings, options, run, refused[name])
            say(f"{name}: {len(kept)} pictures, {sum(refused[name].values())} left out")
            pictures += kept
    if near_duplicates:
        pictures = _distinct(pictures, refused)
    if not pictures:
        raise FileError(f"{out}: no picture to write; see what was left out and why: {json.dumps(refused)}")
    pictures.sort(key=lambda picture: (picture.drawing.concept, picture.drawing.id))
    manifest = Manifest(
        tuple(_entry(picture, chosen[picture.drawing.source]) for picture in pictures),
        {name: dict(sorted(counts.items())) for name, counts in refused.items()},
    )
    words = [catalogue.emoji, *catalogue.annotations, *([] if synonyms is None else [synonyms])]
    _write(out, pictures, manifest, table, words, (annotations, dictionary), size)
    return manifest


def _read(
    name: str, source: Source, package: Path, table: EmojiTable, annotations: Sequence[Path], refused: Refused
) -> Iterator[Drawing]:
    if source.kind == "iconify":
        return iconify(name, source, package, table, refused)
    if source.kind == "webp":
        return webp(name, source, package, table, refused)
    if source.kind == "openclipart":
        return openclipart(name, source, package, Things(table, english_keywords(annotations[0])), refused)
    raise InputError(f"sources: {name} is of kind {source.kind}, which has no pictures")


def _selected(drawings: list[Drawing], options: Options, refused: Refused) -> list[Drawing]:
    """Without the light ones, and evenly spread to at most ``limit``; what the limit leaves out is not counted as refused."""
    heavy = [drawing for drawing in drawings if drawing.weight >= options.min_weight]
    if len(heavy) < len(drawings):
        refused["lighter than the least weight"] += len(drawings) - len(heavy)
    if options.limit is None or len(heavy) <= options.limit:
        return heavy
    return [heavy[i * len(heavy) // options.limit] for i in range(options.limit)]


Run: TypeAlias = Callable[[Callable[[Drawing], "Rendered | str"], Sequence[Drawing]], Iterable["Rendered | str"]]


@contextmanager
def _mapping(jobs: int) -> Iterator[Run]:
    """``map`` over so many processes, in the order of its arguments."""
    if jobs == 1:
        yield map
        return
    # Fresh processes: forking one that has threads (a caller's torch, say) can hang.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield partial(pool.map, chunksize=16)
        except BrokenProcessPool as error:
            raise FileError(f"rendering stopped ({error}); is there enough memory? try again with 1 job") from error


def _render_all(drawings: Sequence[Drawing], options: Options, run: Run, refused: Refused) -> list[Rendered]:
    kept: list[Rendered] = []
    for result in run(partial(_render_one, size=options.size, signed=options.near_duplicates), drawings):
        if isinstance(result, str):
            refused[result] += 1
        else:
            kept.append(result)
    return kept


def _render_one(drawing: Drawing, size: int, signed: bool) -> Rendered | str:
    """The picture, or the reason why there is none."""
    try:
        pixels = render(drawing.payload, size, drawing.free)
    except NotDrawn as reason:
        return str(reason)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Rendered(drawing, pack(pixels), digest, signature(pixels) if signed else None)


def _distinct(pictures: Sequence[Rendered], refused: dict[str, Refused]) -> list[Rendered]:
    """Without repetitions, over all sources; of equal pictures the heaviest stays, then the one of the earlier source."""
    ordered = sorted(pictures, key=lambda picture: -picture.drawing.weight)
    repeats = duplicates([picture.signature for picture in ordered if picture.signature])
    kept = []
    for picture, first in zip(ordered, repeats, strict=True):
        if first is None:
            kept.append(picture)
        else:
            refused[picture.drawing.source]["nearly the same picture as another"] += 1
    return kept


def _entry(picture: Rendered, source: Source) -> Entry:
    drawing = picture.drawing
    return Entry(
        drawing.id,
        picture.sha256,
        drawing.concept,
        drawing.title,
        drawing.style,
        drawing.source,
        source.project,
        drawing.author,
        drawing.licence,
        source.package.spec,
        source.link,
    )


def _write(
    out: Path,
    pictures: Sequence[Rendered],
    manifest: Manifest,
    table: EmojiTable,
    words: Sequence[Source],
    packages: tuple[Sequence[Path], Path | None],
    size: int,
) -> None:
    """Write everything into a folder beside the old files, then move file by file. ``packages``: annotations, dictionary."""
    described = _concepts(pictures, table)
    labels = _labels(pictures, described)
    annotations, dictionary = packages
    known = Words.read(annotations)
    named = further_names(described, known, dictionary)
    captions = build_captions(
        known, Vocabulary.load(VOCABULARY), list(labels.concepts), list(labels.styles), 0, extra=named
    )
    new: Path | None = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=out, prefix=".new-"))
        for start in range(0, len(pictures), SHARD_PICTURES):
            path = new / f"pictures-{start // SHARD_PICTURES:03d}.safetensors"
            write_shard(path, _records(pictures[start : start + SHARD_PICTURES], labels), labels, size)
        captions.write(new / "captions.safetensors")
        (new / "concepts.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")
        manifest.write(new / "manifest.jsonl.gz")
        (new / "ATTRIBUTION.md").write_text(attribution(manifest, words, size), encoding="utf-8")
        (new / "refused.json").write_text(json.dumps(manifest.refused, indent=1) + "\n", encoding="utf-8")
        files = sorted(new.iterdir())
        for file in files:
            file.replace(out / file.name)
        for stale in set(out.glob("pictures-*.safetensors")) - {out / file.name for file in files}:
            stale.unlink()
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        if new is not None:
            shutil.rmtree(new, ignore_errors=True)


def _labels(pictures: Sequence[Rendered], concepts: Iterable[str]) -> Labels:
    """The numbers of styles and groups are the same for every choice of sources."""
    others = {picture.drawing.style for picture in pictures} - set(STYLES)
    groups = set(GROUPS.values()) | {picture.drawing.group for picture in pictures}
    ordered = sorted(groups - {CLIPART}) + sorted(groups & {CLIPART})
    return Labels(tuple(concepts), (*STYLES, *sorted(others)), tuple(ordered))


def _records(pictures: Sequence[Rendered], labels: Labels) -> list[Record]:
    concept, style, group = (
        {value: number for number, value in enumerate(names)}
        for names in (labels.concepts, labels.styles, labels.groups)
    )
    records = []
    for picture in pictures:
        drawing = picture.drawing
        numbers = concept[drawing.concept], style[drawing.style], group[drawing.group]
        records.append(Record(drawing.id, drawing.source, *numbers, drawing.weight, picture.packed))
    return records


def _concepts(pictures: Iterable[Rendered], table: EmojiTable) -> dict[str, dict[str, str]]:
    """Concept → English name, group, emoji; in the order of the pictures, which is that of the ids."""
    described: dict[str, dict[str, str]] = {}
    for picture in pictures:
        drawing = picture.drawing
        emoji = table.by_concept.get(drawing.concept)
        described.setdefault(
            drawing.concept,
            {
                "english": emoji.english if emoji else drawing.title,
                "group": drawing.group,
                "emoji": emoji.emoji if emoji else "",
            },
        )
    return described
