"""The datasheet of the training pictures, with the attribution that their licences ask for, from the manifest alone.

The questions are those of "Datasheets for Datasets" (Gebru et al., arXiv 1803.09010), as far as a manifest can answer them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from chashka.checkpoints import sha256
from chashka.data.manifest import Manifest, attribution
from chashka.data.sources import CATALOGUE
from chashka.evaluation.registry import Registry

SIZE = 256
"""Pixels of a side, as the shards of the embedded models have it."""


def datasheet(pictures: Path, name: str, registry: Registry | None = None) -> str:
    """Markdown. pictures: the manifest; name: how people find it; registry: for files with another history.

    Raises FileError for a foreign manifest.
    """
    manifest = Manifest.read(pictures)
    digest = sha256(pictures)
    entries, concepts = manifest.entries, len({entry.concept for entry in manifest.entries})
    words = [CATALOGUE.emoji, *CATALOGUE.annotations]
    # The dictionary's synonyms are in tables of captions that the registry knows; weights from before them read none.
    if CATALOGUE.dictionary is not None and registry is not None and any(e.captions for e in registry.weights):
        words.append(CATALOGUE.dictionary)
    parts = [
        attribution(manifest, words, SIZE).strip(),
        "## Composition",
        f"The manifest is `{name}` (sha256 `{digest}`): {len(entries):,} drawings of {concepts:,} concepts. "
        "About 3 % of them, chosen by a hash of their names, are kept from encoders and generators; judges learn from those of "
        "their own vendors.",
        "\n".join(_counted("drawing style", (e.style for e in entries))),
        "\n".join(_counted("licence", (e.licence for e in entries))),
        "They are drawings, not photographs. The only data about people are the names of authors, who are to be credited.",
        "## How it was collected",
        "From the packages named above, in these versions, with their checksums; a drawing enters only if its own or its "
        "package's licence is on a closed list (share-alike, non-commercial, no-derivatives and unstated licences are refused). "
        "Flags and skin tones are left out. `chashka data build` makes the same shards again.",
        "## Keeping it up to date",
        "Another version of a package is another manifest, with its own sha256; the registry of weights names the one that each "
        "file was trained on.",
    ]
    other = _exceptions(registry, digest)
    if other:
        parts += ["## Files with another history", "\n".join(other)]
    return "\n\n".join(parts) + "\n"


def _counted(what: str, values: Iterable[str]) -> list[str]:
    rows = sorted(Counter(values).items(), key=lambda row: (-row[1], row[0]))
    return [f"| {what} | drawings |", "|---|---|", *(f"| {name} | {count:,} |" for name, count in rows)]


def _exceptions(registry: Registry | None, digest: str) -> list[str]:
    """Shipped files that learnt from something else than this manifest, or nobody knows from what: themselves, or the weights
    that they began with."""
    lines: list[str] = []
    if registry is None:
        return lines
    for entry in registry.weights:
        for known in (
            e for e in (entry, *registry.ancestors(entry)) if e.data != digest and e.component == entry.component
        ):
            pictures = "pictures not recorded" if known.data is None else f"manifest `{known.data[:16]}…`"
            whose = pictures if known is entry else f"began with other weights ({pictures})"
            lines.append(f"- `{entry.component}`: {whose}" + (f". {known.note}" if known.note else ""))
    return lines
