"""Small packages in the shapes of the real ones, so that a whole build runs without the network."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from chashka.data.sources import Catalogue, Package, Source

EMOJI = {
    "☕": ("hot beverage", "Food & Drink"),
    "🐈": ("cat", "Animals & Nature"),
    "🐧": ("penguin", "Animals & Nature"),
    "👍": ("thumbs up", "People & Body"),
    "🕐": ("one o’clock", "Travel & Places"),
    "🇫🇷": ("flag France", "Flags"),
    "🔑": ("key", "Objects"),
    "⚧": ("transgender symbol", "Symbols"),
}
DISC = '<circle cx="64" cy="64" r="{r}" fill="{fill}"/>'
LICENCE_RDF = (
    '<metadata><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:cc="http://web.resource.org/cc/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/"><cc:Work rdf:about=""><dc:title>{title}</dc:title>'
    "<dc:subject><rdf:Bag><rdf:li>{subject}</rdf:li></rdf:Bag></dc:subject>"
    "<dc:creator><cc:Agent><dc:title>{author}</dc:title></cc:Agent></dc:creator>"
    '<cc:license rdf:resource="{licence}"/></cc:Work></rdf:RDF></metadata>'
)
PUBLIC = "http://web.resource.org/cc/PublicDomain"


def tgz(files: Mapping[str, bytes | dict[str, Any]]) -> bytes:
    """An npm tarball: everything under ``package/``; dictionaries become JSON."""
    return _tar({f"package/{name}": data for name, data in files.items()}, "w:gz")


def deb(files: Mapping[str, bytes]) -> bytes:
    """A Debian package with ``data.tar.xz``; its first member has an odd size, as in real ones."""
    data = lzma.compress(_tar({f"./{name}": contents for name, contents in files.items()}, "w"))
    parts = [(b"debian-binary", b"2.0"), (b"data.tar.xz", data)]
    archive = b"!<arch>\n"
    for name, contents in parts:
        archive += name.ljust(16) + b"0".ljust(32) + str(len(contents)).encode().ljust(10) + b"`\n" + contents
        archive += b"\n" * (len(contents) % 2)
    return archive


def _tar(files: Mapping[str, bytes | dict[str, Any]], mode: Literal["w", "w:gz"]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, data in files.items():
            contents = data if isinstance(data, bytes) else json.dumps(data).encode()
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    return stream.getvalue()


def disc(r: float, fill: str = "#c33") -> str:
    """A body of an icon: a disc on a page of 128 × 128."""
    return DISC.format(r=r, fill=fill)


def iconify_set(icons: Mapping[str, dict[str, Any]], chars: Mapping[str, str], licence: str = "MIT") -> bytes:
    """An ``@iconify-json`` package."""
    return tgz(
        {
            "icons.json": {"prefix": "x", "width": 128, "height": 128, "icons": dict(icons)},
            "chars.json": dict(chars),
            "info.json": {"license": {"spdx": licence}},
            "package.json": {"license": licence},
        }
    )


def clip(title: str, subject: str, body: str, licence: str = PUBLIC, author: str = "Ann Artist") -> bytes:
    """A file of the Open Clip Art Library, on an A4 page without a viewBox."""
    rdf = LICENCE_RDF.format(title=title, subject=subject, author=author, licence=licence)
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="210mm" height="297mm">{rdf}{body}</svg>'.encode()


def webp(colour: tuple[int, int, int], side: int = 256) -> bytes:
    image = Image.new("RGBA", (side, side))
    image.paste((*colour, 255), (side // 8, side // 8, side * 7 // 8, side * 7 // 8))
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def packages() -> dict[str, bytes]:
    """Contents of all tiny packages by the names that ``catalogue`` gives them."""
    return {
        "names": tgz(
            {
                "data-by-emoji.json": {char: {"name": name, "group": group} for char, (name, group) in EMOJI.items()},
                "package.json": {"license": "MIT"},
            }
        ),
        "first": _first(),
        "second": _second(),
        "solid": tgz(
            {
                "package.json": {"license": "MIT"},
                "assets/1f427.webp": webp((9, 9, 90)),
                "assets/26a7.webp": webp((90, 9, 90)),
                "assets/26a7-fe0f.webp": webp((90, 9, 90)),
                "assets/2615.webp": webp((90, 50, 9), 32),
                "assets/1f1eb-1f1f7.webp": webp((9, 9, 200)),
                "assets/1f44d-1f3ff.webp": webp((9, 99, 200)),
            }
        ),
        "clips": _clips(),
        "annotations": _annotations("annotations", {"☕": "hot beverage", "🐈": "cat", "🔑": "key"}),
        "derived": _annotations("annotationsDerived", {"👍🏻": "thumbs up: light skin tone"}),
    }


CUP = '<rect x="20" y="40" width="70" height="60" fill="#264"/><path d="M90 50h20v30H90z" fill="#264"/>'


def _first() -> bytes:
    """A set that says the code points of its drawings."""
    icons = {
        "hot-beverage": {"body": CUP},
        "cat": {"body": disc(50, "#a60") + disc(9, "#fff")},
        "cat-too": {"body": disc(20)},
        "thumbs-up": {"body": disc(40, "#fc0")},
        "thumbs-up-dark": {"body": disc(40, "#520")},
        "one-oclock": {"body": disc(60, "#eee") + '<path d="M64 64V10h8v54z"/>'},
        "flag-france": {"body": '<path d="M0 0h64v128H0z" fill="#00f"/>'},
        "key": {"body": ""},
    }
    chars = {"2615-fe0f": "hot-beverage", "1f408": "cat", "1f44d": "thumbs-up", "1f44d-1f3ff": "thumbs-up-dark"}
    chars |= {"1f550": "one-oclock", "1f1eb-1f1f7": "flag-france", "1f511": "key"}
    return iconify_set(icons, chars | {"1f408-fe0f": "cat-too"})


def _second() -> bytes:
    """A set that has names only, and an own page size for one drawing."""
    icons = {
        "hotbeverage": {"body": CUP.replace("#264", "#a28")},
        "cat": {"body": disc(50, "#333"), "width": 160, "left": -16},
        "thumbs-up": {"body": disc(40, "#fc0")},
        "nosuchthing": {"body": disc(9)},
    }
    return iconify_set(icons, {}, "Apache-2.0")


def _clips() -> bytes:
    """A part of the Open Clip Art Library, with everything that is refused."""
    clips = {
        "animals/birds/new_penguin_01": clip("New Penguin", "bird", disc(40, "#123")),
        "tools/key_ann_01": clip("Key", "iron", '<path d="M10 10h50v9H10z" fill="#990"/>', author="Ben"),
        "tools/odd_thing": clip("Odd thing", "x", '<path d="M10 10l50 9L10 60z" fill="#909"/>'),
        "tools/odd_thing_copy": clip("Odd thing", "x", '<path d="M10 10l50 9L10 60z" fill="#909"/>'),
        "tools/gpl": clip("Saw", "x", disc(9), "http://creativecommons.org/licenses/GPL/2.0/"),
        "tools/silent": clip("Saw", "x", disc(9), ""),
        "tools/lettered": clip("Saw", "x", '<text y="50">SAW</text>'),
        "shapes/stars/ring": clip("Ring", "x", disc(9)),
    }
    return deb(
        {f"usr/share/openclipart/svg/{name}.svg": contents for name, contents in clips.items()}
        | {"usr/share/doc/openclipart-svg/copyright": b"creative commons Public Domain\n Dedication\n"}
    )


def _annotations(root: str, names: Mapping[str, str]) -> bytes:
    entries = {emoji: {"default": [f"old {name}"], "tts": [name]} for emoji, name in names.items()}
    return tgz(
        {f"{root}/en/annotations.json": {root: {"annotations": entries}}, "package.json": {"license": "Unicode-3.0"}}
    )


KINDS: dict[str, tuple[Literal["iconify", "webp", "openclipart"], str, str]] = {
    "first": ("iconify", "flat", "MIT"),
    "second": ("iconify", "blob", "Apache-2.0"),
    "solid": ("webp", "3d", "MIT"),
    "clips": ("openclipart", "clipart", "CC-PDDC"),
}


def catalogue(cache: Path, changed: Mapping[str, bytes] | None = None) -> Catalogue:
    """Put the packages, some of them ``changed``, into ``cache``; returns what knows these and no others."""
    made: dict[str, Package] = {}
    cache.mkdir(exist_ok=True)
    for name, contents in (packages() | dict(changed or {})).items():
        registry: Literal["npm", "debian"] = "debian" if name == "clips" else "npm"
        package = Package(registry, f"tiny-{name}", "1.0", hashlib.sha256(contents).hexdigest())
        (cache / package.file_name).write_bytes(contents)
        made[name] = package

    def source(name: str, kind: Any, style: str, licence: str) -> Source:
        link = f"https://example.org/{name}"
        return Source(made[name], kind, style, licence, f"Project {name}", f"Author of {name}", link, name != "clips")

    return Catalogue(
        pictures={name: source(name, *rest) for name, rest in KINDS.items()},
        named_by=("first",),
        emoji=source("names", "emoji", "", "MIT"),
        annotations=tuple(source(name, "annotations", "", "Unicode-3.0") for name in ("annotations", "derived")),
    )
