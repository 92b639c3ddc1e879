"""Where every picture comes from and what its licence asks for: the manifest file and the attribution text."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from chashka.data.licences import ALLOWED, NEEDS_ATTRIBUTION
from chashka.errors import FileError


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture. ``sha256`` is of its stored pixels (premultiplied RGBA rows); ``licence`` an SPDX identifier."""

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


def attribution(manifest: Manifest) -> str:
    """The text for ATTRIBUTION.md: each source with project, authors, licence, address and number of pictures.

    Sources whose pictures have their own authors list them; one by one with their titles where the licence asks for it.
    """
    parts = [
        "# Pictures that the models learnt from",
        "The pictures themselves are not in this package. The models were trained on renderings of them: rasterised, scaled, "
        "centred, and composed with each other.",
    ]
    sources = dict.fromkeys(entry.source for entry in manifest.entries)
    parts += [_of_source([entry for entry in manifest.entries if entry.source == source]) for source in sources]
    return "\n\n".join(parts) + "\n"


def _of_source(entries: list[Entry]) -> str:
    first = entries[0]
    authors = Counter(entry.author for entry in entries)
    licences = Counter(entry.licence for entry in entries)
    lines = [f"## {first.project}", ""]
    if len(authors) == 1:
        lines.append(f"- Author: {first.author}")
    named = ", ".join(f"[{licence}]({ALLOWED[licence]})" for licence in sorted(licences))
    lines += [
        f"- Licence: {named}",
        f"- From: <{first.link}>, package `{first.package}`",
        f"- Pictures: {len(entries)}",
    ]
    if len(authors) > 1:
        lines += ["", *_people(entries)]
    return "\n".join(lines)


def _people(entries: Iterable[Entry]) -> list[str]:
    """Authors by name; with the titles of what asks for attribution, with a number where nothing is asked for."""
    entries = list(entries)
    owed = [entry for entry in entries if entry.licence in NEEDS_ATTRIBUTION]
    lines = [f"- “{entry.title}” by {entry.author}, {entry.licence} (`{entry.id}`)" for entry in owed]
    free = Counter(entry.author for entry in entries if entry.licence not in NEEDS_ATTRIBUTION)
    if free:
        lines.append("Drawn by: " + ", ".join(f"{name} ({count})" for name, count in sorted(free.items())) + ".")
    return lines
