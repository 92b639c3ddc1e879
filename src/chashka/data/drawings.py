"""From a package to drawings: what each one shows, in which style, under which licence; nothing is rendered here."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from chashka.data.archives import members
from chashka.data.concepts import TONE_WEIGHT, Emoji, EmojiTable
from chashka.data.licences import ALLOWED
from chashka.data.sources import Source
from chashka.errors import FileError

Refused = Counter[str]


@dataclass(frozen=True, slots=True)
class Drawing:
    """One drawing before it is rendered: labels, licence (SPDX), ``title`` in English, and SVG text or encoded pixels.

    ``free`` drawings stand anywhere on their page and are scaled to it as far as needed; others keep about the size that
    their page gives them.
    """

    id: str
    source: str
    concept: str
    group: str
    style: str
    weight: float
    licence: str
    author: str
    title: str
    payload: str | bytes
    free: bool = False
    toned: bool = False


def check_licence(source: Source, said: object, where: str) -> None:
    """Stop when a package says another licence than the table, or one that is not allowed."""
    if source.licence not in ALLOWED or said != source.licence:
        raise FileError(
            f"{source.package.spec}: {where} says licence {said!r}, the table says {source.licence!r}; "
            f"allowed: {', '.join(ALLOWED)}; read the package's licence again before it is used"
        )


def read_iconify(package: Path) -> dict[str, Any]:
    """The JSON files of an iconify package by name (``icons``, ``chars``, ``info``, ``package``)."""
    found: dict[str, Any] = {}
    for name, contents in members(package, (".json",)):
        if name in ("icons.json", "chars.json", "info.json", "package.json"):
            found[name.removesuffix(".json")] = json.loads(contents)
    missing = {"icons", "info", "package"} - found.keys()
    if missing:
        raise FileError(f"{package}: {', '.join(sorted(missing))}.json missing; expected an iconify set")
    return found


def learn_names(table: EmojiTable, package: Path) -> None:
    """Let the table learn the slugs of a set that knows their code points."""
    found = read_iconify(package)
    codes = {name: code for code, name in sorted(found.get("chars", {}).items(), reverse=True)}
    aliases = {name: alias["parent"] for name, alias in found["icons"].get("aliases", {}).items()}
    table.learn(codes, aliases)


def iconify(name: str, source: Source, package: Path, table: EmojiTable, refused: Refused) -> Iterator[Drawing]:
    """The drawings of an iconify set; slugs that are no emoji are counted in ``refused``."""
    found = read_iconify(package)
    check_licence(source, found["info"].get("license", {}).get("spdx"), "info.json")
    check_licence(source, found["package"].get("license"), "package.json")
    icons = found["icons"]
    codes = {slug: code for code, slug in sorted(found.get("chars", {}).items(), reverse=True)}
    seen: set[tuple[str, bool]] = set()
    # Hidden icons are older drawings that the set has replaced; they serve where nothing newer is there.
    for slug, icon in sorted(icons["icons"].items(), key=lambda item: (bool(item[1].get("hidden")), item[0])):
        match = table.of_codes(codes[slug]) if slug in codes else table.of_slug(slug)
        if match is None:
            refused["no emoji of that name"] += 1
            continue
        key = (match[0].concept, match[1])
        if icon.get("hidden") and key in seen:
            refused["replaced by a newer drawing of its set"] += 1
            continue
        seen.add(key)
        box = [float(icon.get(key, icons.get(key, default))) for key, default in _BOX]
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{box[0]:g} {box[1]:g} {box[2]:g} {box[3]:g}">{icon["body"]}</svg>'
        )
        yield _drawing(f"{name}:{slug}", name, source, match, svg)


_BOX = (("left", 0), ("top", 0), ("width", 16), ("height", 16))


def webp(name: str, source: Source, package: Path, table: EmojiTable, refused: Refused) -> Iterator[Drawing]:
    """The drawings of a package of WebP files that are named by code points."""
    files = dict(members(package, (".webp", "package.json")))
    check_licence(source, json.loads(files.pop("package.json", b"{}")).get("license"), "package.json")
    for path, contents in sorted(files.items()):
        codes = PurePosixPath(path).stem
        match = table.of_codes(codes)
        if match is None:
            refused["no emoji of that name"] += 1
            continue
        yield _drawing(f"{name}:{codes}", name, source, match, contents)


def _drawing(id: str, name: str, source: Source, match: tuple[Emoji, bool], payload: str | bytes) -> Drawing:
    emoji, toned = match
    return Drawing(
        id,
        name,
        emoji.concept,
        emoji.group,
        source.style,
        min(TONE_WEIGHT, emoji.weight) if toned else emoji.weight,
        source.licence,
        source.author,
        emoji.english,
        payload,
        toned=toned,
    )


def one_tone_each(drawings: list[Drawing], refused: Refused) -> list[Drawing]:
    """Of the drawings of one source and concept that differ by skin tone keep one, chosen by the hash of its name."""
    chosen: dict[tuple[str, str], str] = {}
    for drawing in drawings:
        if drawing.toned:
            key = (drawing.source, drawing.concept)
            chosen[key] = min(chosen.get(key, drawing.id), drawing.id, key=_hash)
    kept = [d for d in drawings if not d.toned or chosen[d.source, d.concept] == d.id]
    if len(kept) < len(drawings):
        refused["another skin tone of a drawing that is there"] += len(drawings) - len(kept)
    return kept


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
