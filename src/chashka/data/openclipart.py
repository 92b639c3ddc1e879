"""The Open Clip Art Library of Debian's ``openclipart-svg``: which files may be used, and what each of them shows.

Every file speaks for itself: its RDF must name a public-domain licence. Titles are uneven (Italian, "Various Cliparts", or the
title of the file that served as a template), so a title counts only where the file's name begins like it. A clip is taken for
an emoji when its name is the emoji's English name; or, where the folder holds things of the emoji's group, when its name is a
keyword of no other emoji, or its last word or exactly one of its keywords is an emoji's name. Only things count (animals,
food, places, activities, objects). Everything else is its own concept, ``clipart:<slug>``.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from chashka.data.archives import members
from chashka.data.concepts import CLIPART, NOUN_GROUPS, Emoji, EmojiTable, slug
from chashka.data.drawings import Drawing, Refused, check_licence
from chashka.data.licences import spdx_of_address
from chashka.data.sources import Source
from chashka.data.words import concept_id

NAMED, KEYWORDED, UNNAMED = 0.5, 0.25, 0.1
"""Weights: the name is an emoji's; a part of the name or a keyword is; neither."""

MOST_BYTES = 500_000
_SKIPPED = (
    # a neo-Nazi sign, and undressed people
    "decorations/sunwheel_vikingdread",
    "people/hide_girl",
    "people/sexy_lady",
    "signs_and_symbols/sunwheel_vikingdread",
    # what a model would not learn things from
    "buttons/",
    "computer/buttons/",
    "computer/connectors/",
    "computer/diagrams/",
    "computer/icons/",
    "recreation/games/",
    "shapes/",
    "signs_and_symbols/flags/",
    "signs_and_symbols/led/",
    "signs_and_symbols/map_symbols/",
    "special/",
    "transportation/aiga-symbols/",
    "transportation/roadsigns/",
)
"""Folders of icons, flags, cards, spirographs, gradients, patterns and traffic signs; a few single files."""

# What a folder holds; elsewhere only the name itself counts.
_HOLDS = {
    "animals": {"animals-nature"},
    "buildings": {"objects", "travel-places"},
    "computer": {"objects"},
    "education": {"objects"},
    "electronics": {"objects"},
    "food": {"food-drink"},
    "geography": {"travel-places"},
    "office": {"objects"},
    "people/clothing": {"objects"},
    "plants": {"animals-nature", "food-drink"},
    "recreation": {"activities", "objects"},
    "signs_and_symbols/weather": {"travel-places"},
    "tools": {"objects"},
    "transportation": {"travel-places"},
}

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_NOISE = re.compile(r"\b(b (and )?w|bwh?|ganson|(open)?clip ?art)\b", re.IGNORECASE)
_BY = re.compile(r"^clipart by .* - ", re.IGNORECASE)


class Things:
    """Finds the emoji that an English word means, among emoji that are things."""

    def __init__(self, table: EmojiTable, keywords: dict[str, list[str]]) -> None:
        """``keywords``: concept id → English keywords (CLDR)."""
        things = [entry for entry in table.by_concept.values() if entry.group in NOUN_GROUPS]
        self.names: dict[str, Emoji] = {}
        for entry in things:
            self.names.setdefault(slug(entry.english), entry)
        said = Counter(word for words in keywords.values() for word in {slug(word) for word in words})
        self.keywords = {
            word: entry
            for entry in things
            for word in map(slug, keywords.get(entry.concept, ()))
            if said[word] == 1 and word not in self.names
        }

    def find(self, name: str, subjects: list[str], place: str) -> tuple[Emoji, float] | None:
        """The emoji for the slug of a name, or for keywords, with the weight that such a match gives.

        ``place``: the file's path in the library.
        """
        if name in self.names:
            return self.names[name], NAMED
        holds = next((groups for folder, groups in _HOLDS.items() if place.startswith(folder + "/")), set())
        by_keyword = self.keywords.get(name)
        if by_keyword and by_keyword.group in holds:
            return by_keyword, NAMED
        last = self.names.get(name.rpartition("-")[2])
        if last and last.group in holds:
            return last, KEYWORDED
        meant = [self.names[word] for word in dict.fromkeys(map(slug, subjects)) if word in self.names]
        return (meant[0], KEYWORDED) if len(meant) == 1 and meant[0].group in holds else None


def english_keywords(annotations: Path) -> dict[str, list[str]]:
    """Concept id → English keywords, from the npm package ``cldr-annotations-full``."""
    found: dict[str, list[str]] = {}
    for _, contents in members(annotations, ("annotations/en/annotations.json",)):
        entries = json.loads(contents)["annotations"]["annotations"]
        found |= {concept_id(emoji): entry.get("default", []) for emoji, entry in entries.items()}
    return found


def openclipart(name: str, source: Source, package: Path, things: Things, refused: Refused) -> Iterator[Drawing]:
    """The usable drawings of the library; others are counted by reason in ``refused``."""
    copyright = "".join(text.decode() for _, text in members(package, ("doc/openclipart-svg/copyright",)))
    check_licence(source, "CC-PDDC" if "Public Domain Dedication" in " ".join(copyright.split()) else None, "copyright")
    for path, contents in sorted(members(package, (".svg",))):
        place = path.partition("openclipart/svg/")[2]
        if place.startswith(_SKIPPED):
            refused["icons, flags, cards, patterns, signs"] += 1
        elif len(contents) > MOST_BYTES:
            refused["file too large"] += 1
        else:
            drawing = _read(name, source, place, contents, things)
            if isinstance(drawing, str):
                refused[drawing] += 1
            else:
                yield drawing


def _read(name: str, source: Source, place: str, contents: bytes, things: Things) -> Drawing | str:
    """The drawing of one file, or why it is refused."""
    try:
        root = ET.fromstring(contents)
    except ET.ParseError:
        return "not well-formed"
    licence = _licence(root)
    if licence is None:
        return "no public-domain licence in the file"
    title = _title(root, PurePosixPath(place).stem)
    subjects = [item.text or "" for subject in root.iter(f"{_DC}subject") for item in subject.iter(f"{_RDF}li")]
    author = next((text for text in _texts(root, "creator")), "") or "unknown"
    match = things.find(slug(title), subjects, place)
    for parent in list(root.iter()):
        for child in [child for child in parent if str(child.tag).endswith("}metadata")]:
            parent.remove(child)
    return Drawing(
        id=f"{name}:{place.removesuffix('.svg')}",
        source=name,
        concept=match[0].concept if match else f"clipart:{slug(title)[:40].strip('-') or 'untitled'}",
        group=match[0].group if match else CLIPART,
        style=source.style,
        weight=match[1] if match else UNNAMED,
        licence=licence,
        author=author[:80],
        title=title,
        payload=ET.tostring(root, encoding="unicode"),
        free=True,
    )


def _licence(root: ET.Element) -> str | None:
    """The licence that all licence statements of the file agree on; None when one of them is not allowed, or none is there."""
    said = [
        element.get(f"{_RDF}resource", "")
        for element in root.iter()
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2] == "license"
    ]
    named = {spdx_of_address(address) for address in said}
    return named.pop() if len(named) == 1 else None


def _title(root: ET.Element, stem: str) -> str:
    """The file's title without numbers where the file's name begins like it, else the file's name."""
    title = _BY.sub("", next(iter(_texts(root, "title")), ""))
    trusted = slug(title)[:6] != "" and slug(stem).startswith(slug(title)[:6])
    words = re.sub(r"[^\w'’-]+|_", " ", title if trusted else stem)
    return " ".join(_NOISE.sub(" ", re.sub(r"\d+\b|\b\d+", " ", words)).split()) or stem


def _texts(root: ET.Element, name: str) -> Iterator[str]:
    """The texts inside the Dublin Core elements of this name, each without line breaks."""
    for element in root.iter(f"{_DC}{name}"):
        text = " ".join("".join(element.itertext()).split())
        if text:
            yield text
