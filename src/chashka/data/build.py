"""Packages → pictures → shards, with a manifest of where each picture comes from.

The folder: ``pictures-000.safetensors`` … (see :mod:`chashka.data.shards`), ``manifest.jsonl.gz`` (one line a picture),
``concepts.json`` (concept id → ``group``, ``english`` name, ``emoji``), ``refused.json`` (source → reason → number of drawings
left out). The same packages and options give the same bytes, whatever ``jobs`` is.
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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from chashka.data.concepts import EmojiTable
from chashka.data.drawings import Drawing, Refused, iconify, learn_names, one_tone_each, webp
from chashka.data.duplicates import Signature, duplicates, signature
from chashka.data.manifest import Entry, Manifest
from chashka.data.openclipart import Things, english_keywords, openclipart
from chashka.data.render import NotDrawn, render
from chashka.data.shards import Labels, Record, pack, write_shard
from chashka.data.sources import ANNOTATIONS, EMOJI_NAMES, SOURCES, Source, choose, fetch
from chashka.errors import FileError, InputError

NAMED_BY = ("noto", "twemoji", "fluent-emoji-flat")
"""Sets that say slug and code points; the slugs of the others are looked up in theirs."""
SHARD_BYTES = 48 * 2**20
"""A shard is closed before its pictures take more than this."""


Mapper: TypeAlias = Callable[[Callable[[Drawing], "Rendered | str"], Iterable[Drawing]], Iterable["Rendered | str"]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A drawing that gave a picture: packed pixels, their sha256, and what finds its duplicates."""

    drawing: Drawing
    packed: bytes
    sha256: str
    signature: Signature


def build(
    out: Path,
    cache: Path,
    *,
    sources: Sequence[str] | None = None,
    size: int = 256,
    limit: int | None = None,
    jobs: int = 2,
    min_weight: float = 0.0,
    say: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Fetch, render and pack the pictures of ``sources`` (None: all) into the folder ``out``; returns the manifest.

    ``size``: side of the pictures, a multiple of 32. ``limit``: only so many drawings of each source, spread evenly.
    ``min_weight``: leave out lighter drawings (0.06 drops skin tones, flags, letters and keycaps). ``jobs``: processes that
    render. ``say`` gets a line a source. Files of an earlier build are replaced one by one when everything is ready.
    Raises InputError for options out of range, FileError for what cannot be fetched, read or written.
    """
    if size < 32 or size % 32:
        raise InputError(f"size: {size}; a multiple of 32 is needed, such as 256")
    if jobs < 1 or (limit is not None and limit < 1):
        raise InputError(f"jobs and limit: {jobs} and {limit}; both are at least 1")
    chosen = choose(sources)
    table = _names(cache)
    drawings, refused = _collect(chosen, cache, table, limit, min_weight)
    pictures: list[Rendered] = []
    with _mapper(jobs) as mapper:
        for name in chosen:
            kept = _distinct(_render_all(drawings[name], size, mapper, refused[name]), refused[name])
            say(f"{name}: {len(kept)} pictures, {sum(refused[name].values())} left out")
            pictures += kept
    pictures.sort(key=lambda picture: (picture.drawing.concept, picture.drawing.id))
    manifest = Manifest(
        tuple(_entry(picture, chosen[picture.drawing.source]) for picture in pictures),
        {name: dict(sorted(counts.items())) for name, counts in refused.items()},
    )
    _write(out, pictures, manifest, _concepts(pictures, table), size)
    return manifest


def _names(cache: Path) -> EmojiTable:
    table = EmojiTable.read(fetch(EMOJI_NAMES, cache))
    for name in NAMED_BY:
        if name in SOURCES:
            learn_names(table, fetch(SOURCES[name].package, cache))
    return table


def _collect(
    chosen: dict[str, Source], cache: Path, table: EmojiTable, limit: int | None, min_weight: float
) -> tuple[dict[str, list[Drawing]], dict[str, Refused]]:
    drawings: dict[str, list[Drawing]] = {}
    refused: dict[str, Refused] = {name: Counter() for name in chosen}
    for name, source in chosen.items():
        found = one_tone_each(list(_read(name, source, cache, table, refused[name])), refused[name])
        heavy = [drawing for drawing in found if drawing.weight >= min_weight]
        if len(heavy) < len(found):
            refused[name]["lighter than min_weight"] += len(found) - len(heavy)
        if limit is not None and len(heavy) > limit:
            heavy = [heavy[i * len(heavy) // limit] for i in range(limit)]
        drawings[name] = heavy
    return drawings, refused


def _read(name: str, source: Source, cache: Path, table: EmojiTable, refused: Refused) -> Iterator[Drawing]:
    package = fetch(source.package, cache)
    match source.kind:
        case "iconify":
            return iconify(name, source, package, table, refused)
        case "webp":
            return webp(name, source, package, table, refused)
        case "openclipart":
            return openclipart(
                name, source, package, Things(table, english_keywords(fetch(ANNOTATIONS[0], cache))), refused
            )


@contextmanager
def _mapper(jobs: int) -> Iterator[Mapper]:
    """A ``map`` that keeps the order, in ``jobs`` processes."""
    if jobs == 1:
        yield map
        return
    # Fresh processes: forking one that has threads (a caller's torch, say) can hang.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=16)


def _render_all(drawings: Iterable[Drawing], size: int, mapper: Mapper, refused: Refused) -> list[Rendered]:
    pictures = []
    for result in mapper(partial(_render_one, size=size), drawings):
        if isinstance(result, Rendered):
            pictures.append(result)
        else:
            refused[result] += 1
    return pictures


def _render_one(drawing: Drawing, size: int) -> Rendered | str:
    """The picture, or the reason why there is none."""
    try:
        pixels = render(drawing.payload, size, drawing.free)
    except NotDrawn as reason:
        return str(reason)
    return Rendered(drawing, pack(pixels), hashlib.sha256(pixels.tobytes()).hexdigest(), signature(pixels))


def _distinct(pictures: list[Rendered], refused: Refused) -> list[Rendered]:
    """Without repetitions; of equal pictures the heaviest stays, then the one whose id comes first."""
    ordered = sorted(pictures, key=lambda picture: (-picture.drawing.weight, picture.drawing.id))
    repeats = duplicates([picture.signature for picture in ordered])
    kept = [picture for picture, first in zip(ordered, repeats, strict=True) if first is None]
    if len(kept) < len(ordered):
        refused["the same picture as another of its set"] += len(ordered) - len(kept)
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
    out: Path, pictures: Sequence[Rendered], manifest: Manifest, described: dict[str, dict[str, str]], size: int
) -> None:
    """Write everything into a folder beside the old files, then move file by file."""
    labels = Labels(
        tuple(described),
        tuple(sorted({picture.drawing.style for picture in pictures})),
        tuple(sorted({picture.drawing.group for picture in pictures})),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=out, prefix=".new-"))
    except OSError as error:
        raise FileError(f"{out}: cannot be written ({error.strerror or error})") from error
    try:
        for number, records in enumerate(_shards(pictures, labels)):
            write_shard(new / f"pictures-{number:03d}.safetensors", records, labels, size)
        manifest.write(new / "manifest.jsonl.gz")
        for name, value in (("concepts.json", described), ("refused.json", manifest.refused)):
            (new / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        files = sorted(new.iterdir())
        for file in files:
            file.replace(out / file.name)
        for stale in set(out.glob("pictures-*.safetensors")) - {out / file.name for file in files}:
            stale.unlink()
    except OSError as error:
        raise FileError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _shards(pictures: Sequence[Rendered], labels: Labels) -> Iterator[list[Record]]:
    numbers = [{value: i for i, value in enumerate(names)} for names in (labels.concepts, labels.styles, labels.groups)]
    held: list[Record] = []
    taken = 0
    for picture in pictures:
        if held and taken + len(picture.packed) > SHARD_BYTES:
            yield held
            held, taken = [], 0
        drawing = picture.drawing
        labelled = (numbers[0][drawing.concept], numbers[1][drawing.style], numbers[2][drawing.group])
        held.append(Record(drawing.id, drawing.source, *labelled, drawing.weight, picture.packed))
        taken += len(picture.packed)
    if held:
        yield held


def _concepts(pictures: Iterable[Rendered], table: EmojiTable) -> dict[str, dict[str, str]]:
    """Concept → group, English name, emoji (empty for what is none); in the order of the ids."""
    described: dict[str, dict[str, str]] = {}
    for picture in pictures:
        drawing = picture.drawing
        emoji = table.by_concept.get(drawing.concept)
        described[drawing.concept] = {
            "group": drawing.group,
            "english": emoji.english if emoji else drawing.title,
            "emoji": emoji.emoji if emoji else "",
        }
    return described
