"""Where every picture comes from and what its licence asks for: the manifest file and the attribution text."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chashka.data.licences import ALLOWED, NEEDS_ATTRIBUTION
from chashka.data.sources import Source
from chashka.errors import FileError

_NAMES = {
    "Apache-2.0": "Apache License 2.0",
    "CC-BY-3.0": "Creative Commons Attribution 3.0 Unported",
    "CC-BY-4.0": "Creative Commons Attribution 4.0 International",
    "CC-PDDC": "Creative Commons Public Domain Dedication",
    "CC0-1.0": "Creative Commons Zero 1.0 Universal",
    "ISC": "ISC License",
    "MIT": "MIT License",
    "Unicode-3.0": "Unicode License v3",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture. ``licence`` is an SPDX identifier. An id may come twice, for two files of one emoji.

    ``sha256`` is of the pixels of the shard, size × size premultiplied RGBA in rows, before they are deflated: another version
    of zlib gives other bytes for the same picture.
    """

    id: str
    sha256: str
    concept: str
    title: str
    style: str
    source: str
    project: str
    author: str
    licence: str
    package: str
    link: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All pictures in the order of the shards; ``refused``: source → reason → how many drawings were left out."""

    entries: tuple[Entry, ...]
    refused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.entries)

    def write(self, path: Path) -> None:
        """One JSON object a line, gzipped; the same manifest gives the same bytes. Counts of refused are not in the file."""
        lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in self.entries)
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
            part.replace(path)
        except OSError as error:
            raise FileError(f"{path}: cannot write the manifest ({error.strerror or error})") from error

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what ``write`` wrote. Raises FileError for a missing or foreign file."""
        try:
            lines = gzip.decompress(path.read_bytes()).decode().splitlines()
            return cls(tuple(Entry(**json.loads(line)) for line in lines))
        except (OSError, EOFError, TypeError, ValueError) as error:
            raise FileError(f"{path}: not a readable manifest of pictures ({error})") from error


def attribution(manifest: Manifest, words: Sequence[Source], size: int) -> str:
    """The text for ATTRIBUTION.md: each source with project, author, licence, package, number of pictures; what was changed.

    ``words``: the packages of names and keywords. Sources whose pictures have their own authors list them; one by one with
    their titles where the licence asks for it. What was trained on which pictures is for the person to add who ships weights.
    """
    named = {entry.source: entry.project for entry in manifest.entries}
    of = {source: [entry for entry in manifest.entries if entry.source == source] for source in sorted(named)}
    parts = [
        "# Attribution",
        "Weights that are trained on these shards learn from drawings and words of others, all under open licences. Every "
        "picture, with the sha256 of its pixels, is a line of `manifest.jsonl.gz`.",
        "## Drawings",
        f"Changes made: rendered at {size}×{size} pixels with transparency; training mirrors, shifts and scales them a little.",
        "\n".join([*_HEAD, *(_row(entries) for entries in of.values())]),
        f"{len(manifest):,} drawings in all.",
    ]
    for source, entries in of.items():
        if len({entry.author for entry in entries}) > 1:
            parts += [f"### Authors: {named[source]}", "\n".join(_people(entries))]
    parts += [
        "## Words",
        "Changes made: names and keywords are cut into the pieces of a vocabulary and joined with words for drawing styles.",
        "\n".join(
            f"- [{source.project}]({source.link}), {source.author}, {_licence(source.licence)}, `{source.package.spec}`"
            for source in words
        ),
    ]
    return "\n\n".join(parts) + "\n"


_HEAD = ("| project | author | licence | package | drawings |", "|---|---|---|---|---|")


def _row(entries: Sequence[Entry]) -> str:
    first = entries[0]
    authors = len({entry.author for entry in entries})
    licences = ", ".join(map(_licence, sorted({entry.licence for entry in entries})))
    author = first.author if authors == 1 else f"{authors} people, below"
    return f"| [{first.project}]({first.link}) | {author} | {licences} | `{first.package}` | {len(entries)} |"


def _licence(licence: str) -> str:
    return f"[{_NAMES[licence]}]({ALLOWED[licence]})"


def _people(entries: Iterable[Entry]) -> list[str]:
    """Authors by name; with the titles of what asks for attribution, with a number where nothing is asked for."""
    entries = list(entries)
    owed = [entry for entry in entries if entry.licence in NEEDS_ATTRIBUTION]
    lines = [f"- “{entry.title}” by {entry.author}, {entry.licence} (`{entry.id}`)" for entry in owed]
    free = Counter(entry.author for entry in entries if entry.licence not in NEEDS_ATTRIBUTION)
    if free:
        drawn = "Drawn by: " + ", ".join(f"{name} ({count})" for name, count in sorted(free.items())) + "."
        lines += [*([""] if owed else []), drawn]
    return lines
