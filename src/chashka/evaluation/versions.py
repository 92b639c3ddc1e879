"""What every version of a model draws for one fixed list of prompts: six things in the paper's six languages, old beside new."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from chashka.errors import FileError, InputError
from chashka.evaluation.drawing import draw_prompts, settings, weights_of
from chashka.evaluation.prompts import Prompt
from chashka.families import Bundle
from chashka.images import flatten, resize

LANGUAGES = ("en", "ru", "de", "fr", "mn", "fa")
TEXTS = (
    ("a cat", "кошка", "eine Katze", "un chat", "муур", "گربه"),
    ("a red car", "красная машина", "ein rotes Auto", "une voiture rouge", "улаан машин", "ماشین قرمز"),
    ("three apples", "три яблока", "drei Äpfel", "trois pommes", "гурван алим", "سه سیب"),
    (
        "a fox to the left of a tree",
        "лиса слева от дерева",
        "ein Fuchs links von einem Baum",
        "un renard à gauche d’un arbre",
        "модны зүүн талд үнэг",
        "روباه در سمت چپ درخت",
    ),
    (
        "a penguin in the snow",
        "пингвин на снегу",
        "ein Pinguin im Schnee",
        "un manchot dans la neige",
        "цасан дээрх оцон шувуу",
        "پنگوئن در برف",
    ),
    (
        "space inside a teacup",
        "космос внутри чайной чашки",
        "das Weltall in einer Teetasse",
        "l’espace dans une tasse à thé",
        "цайны аяган доторх сансар",
        "فضا درون فنجان چای",
    ),
)
"""One line a thing; the number of the line is the seed, so that a line differs by its languages alone."""
CELL = 96
GROUND = (237, 237, 237)
TABLE = "versions.json"
PAGE = "versions.md"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")


@dataclass(frozen=True, slots=True)
class Version:
    """One sheet. ``weights``: file → sha256; ``settings``: the request's fields that all its drawings share."""

    name: str
    model: str
    engine: str
    weights: dict[str, str]
    settings: dict[str, Any]

    @property
    def file(self) -> str:
        """The picture's name in the folder."""
        return f"{self.name}.webp"


def fixed_prompts() -> list[Prompt]:
    """The list, line by line."""
    return [
        Prompt(seed, text, language, line[0], "version")
        for seed, line in enumerate(TEXTS)
        for language, text in zip(LANGUAGES, line, strict=True)
    ]


def add_version(bundle: Bundle, name: str, out: Path, on_picture: Callable[[], object] | None = None) -> list[Version]:
    """Draw the list, write ``name``.webp into ``out`` and the page of all versions anew; returns them, the oldest first.

    A version of this name is replaced where it stands. Raises InputError for a name that is no file name, and FileError.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"name: {name[:40]!r} is not possible; allowed: small letters, digits, dots and dashes")
    known = read_versions(out)
    drawings = draw_prompts(bundle, fixed_prompts(), on_picture=on_picture)
    sheet = Image.new("RGB", (len(LANGUAGES) * CELL, len(TEXTS) * CELL), GROUND)
    for i, drawing in enumerate(drawings):
        cell = Image.fromarray(flatten(resize(drawing.picture.pixels, CELL, CELL), GROUND))
        sheet.paste(cell, (i % len(LANGUAGES) * CELL, i // len(LANGUAGES) * CELL))
    new = Version(name, bundle.model, bundle.engine, weights_of(bundle), settings(drawings[0].picture.request))
    versions = [new if version.name == name else version for version in known]
    versions += [] if new in versions else [new]
    try:
        out.mkdir(parents=True, exist_ok=True)
        sheet.save(out / new.file, quality=85, method=6)
        table = json.dumps([asdict(version) for version in versions], ensure_ascii=False, indent=1)
        (out / TABLE).write_text(table + "\n", encoding="utf-8")
        (out / PAGE).write_text(page(versions), encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write the versions into {str(out)!r}: {error.strerror or error}") from error
    return versions


def read_versions(out: Path) -> list[Version]:
    """The versions in a folder, the oldest first; none where there is no table. Raises FileError for a foreign one."""
    path = out / TABLE
    if not path.exists():
        return []
    try:
        return [Version(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise FileError(f"{path}: no table of versions ({error})") from error


def page(versions: Sequence[Version]) -> str:
    """Markdown: all sheets, the newest first, and what they were drawn with."""
    rows = "; ".join(f"{line[0]} (seed {seed})" for seed, line in enumerate(TEXTS))
    lines = [
        f"# What the versions of {versions[-1].model} draw",
        "",
        f"The newest first. Lines: {rows}. Columns: {', '.join(LANGUAGES)}. Nothing was picked or drawn again.",
        "",
        *[f'<img src="{v.file}" alt="the version {v.name}" title="{v.name}">' for v in reversed(versions)],
        "",
        "| version | drawn with | weights (sha256) |",
        "|---|---|---|",
    ]
    for version in reversed(versions):
        fields = ", ".join(f"{name} {value}" for name, value in version.settings.items() if value not in ("", False))
        sums = "<br>".join(f"`{name}` `{digest[:16]}`" for name, digest in version.weights.items())
        lines.append(f"| {version.name} | {version.engine}: {fields} | {sums} |")
    return "\n".join(lines) + "\n"
