"""From a package to drawings: what each one shows, in which style, under which licence; nothing is rendered here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from chashka.data.archives import members
from chashka.data.concepts import Emoji, EmojiTable
from chashka.data.licences import ALLOWED
from chashka.data.sources import Source
from chashka.errors import FileError

Refused = Counter[str]


MARGIN = 0.04
"""Empty border on each side of a drawing, as a share of its page."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One drawing before it is rendered: labels, licence (SPDX), ``title`` in English, and SVG text or encoded pixels.

    ``free`` drawings stand anywhere on their page and are scaled to it as far as needed; others are rendered as they stand.
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


def check_licence(source: Source, said: object, where: str) -> None:
    """Raise FileError when a package says another licence than the table does."""
    if said != source.licence:
        raise FileError(
            f"{source.package.spec}: {where} says licence {said!r}, the table says {source.licence!r}; "
            "read the package's licence again before it is used"
        )


def allowed(drawings: Iterable[Drawing], refused: Refused) -> Iterator[Drawing]:
    """The drawings whose own licence is on the list of ``licences.ALLOWED``; the others are counted."""
    for drawing in drawings:
        if drawing.licence in ALLOWED:
            yield drawing
        else:
            refused[f"licence {drawing.licence} is not allowed"] += 1


def check_words(source: Source, package: Path) -> Path:
    """Check the licence of a package of words, which nothing in it overrides; returns ``package``.

    Raises FileError when it says another licence than the table does, or one that is not allowed.
    """
    for _, contents in members(package, ("package.json",)):
        check_licence(source, json.loads(contents).get("license"), "package.json")
    if source.licence not in ALLOWED:
        raise FileError(
            f"{source.package.spec}: licence {source.licence} is not allowed; allowed: {', '.join(ALLOWED)}"
        )
    return package


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
    """Let the table learn the names of an iconify set that says the code points of its drawings."""
    table.learn(read_iconify(package).get("chars", {}))


def iconify(name: str, source: Source, package: Path, table: EmojiTable, refused: Refused) -> Iterator[Drawing]:
    """The drawings of an iconify set, the first of each emoji; the others are counted in ``refused``."""
    found = read_iconify(package)
    check_licence(source, found["info"].get("license", {}).get("spdx"), "info.json")
    check_licence(source, found["package"].get("license"), "package.json")
    icons = found["icons"]
    codes = {name: codes for codes, name in found.get("chars", {}).items()}
    seen: set[str] = set()
    for icon_name, icon in icons["icons"].items():
        emoji = table.of_codes(codes[icon_name]) if icon_name in codes else table.of_name(icon_name)
        if emoji is None:
            refused["no emoji of that name, or one with a skin tone"] += 1
        elif emoji.group == "flags":
            refused["flag"] += 1
        elif emoji.concept in seen:
            refused["another drawing of the same emoji in its set"] += 1
        else:
            seen.add(emoji.concept)
            yield _drawing(f"{name}:{icon_name}", name, source, emoji, _page(icon, icons))


def _page(icon: dict[str, Any], icons: dict[str, Any]) -> str:
    """The icon as SVG on a square page with a margin, without a size."""
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    side = max(width, height)
    left = icon.get("left", 0) - (side - width) / 2 - side * MARGIN
    top = icon.get("top", 0) - (side - height) / 2 - side * MARGIN
    padded = side + 2 * (side * MARGIN)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {padded} {padded}">{icon["body"]}</svg>'
    )


def webp(name: str, source: Source, package: Path, table: EmojiTable, refused: Refused) -> Iterator[Drawing]:
    """The drawings of a package of WebP files that are named by code points.

    Two emoji are there twice, with and without U+FE0F in the name; both stay, under one id, as the shipped models saw them.
    """
    files = dict(members(package, (".webp", "package.json")))
    check_licence(source, json.loads(files.pop("package.json", b"{}")).get("license"), "package.json")
    for path, contents in sorted(files.items()):
        emoji = table.of_codes(PurePosixPath(path).stem)
        if emoji is None:
            refused["no emoji of that name, or one with a skin tone"] += 1
        elif emoji.group == "flags":
            refused["flag"] += 1
        else:
            yield _drawing(f"{name}:{emoji.concept.removeprefix('emoji:')}", name, source, emoji, contents)


def _drawing(id: str, name: str, source: Source, emoji: Emoji, payload: str | bytes) -> Drawing:
    return Drawing(
        id,
        name,
        emoji.concept,
        emoji.group,
        source.style,
        emoji.weight,
        source.licence,
        source.author,
        emoji.english,
        payload,
    )
