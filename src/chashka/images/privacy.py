"""How much a file says when it is saved or sent, and other formats of a picture with what it said kept.

full: everything that is known. provenance: that a model made the picture, with which program and version; no prompt, no seed.
none: nothing at all. What a camera or another program wrote and what is not ours to judge (GPS, notes) goes only along with the
file's own bytes, never into a new file.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chashka.errors import InputError
from chashka.images import metadata
from chashka.images.foreign import read_foreign
from chashka.images.metadata import COMPOSED, TRAINED, Label
from chashka.images.reading import read
from chashka.images.tracing import about_lines
from chashka.images.writing import encode

LONGEST_TOOL = 120
LEVELS = ("full", "provenance", "none")
TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "svg": "image/svg+xml"}
_ABOUT = re.compile(r"<title>[^<]*</title>\n(?:<desc>[^<]*</desc>\n)?<metadata>.*?</metadata>\n", re.DOTALL)
_TRACED = re.compile(r"Traced from (\d{1,5})x(\d{1,5}) pixels")


def limited(label: Label | None, level: str) -> Label | None:
    """What is left of a label; None: the file says nothing. Raises InputError for a level that does not exist."""
    if level not in LEVELS:
        raise InputError(f"privacy: {level[:40]!r} is not possible; allowed: {', '.join(LEVELS)}")
    if level == "full" or label is None:
        return label
    return Label(label.kind, tool=label.tool) if level == "provenance" else None


def label_in(data: bytes) -> Label | None:
    """What a file says, for writing it into another one; None if it says nothing of how the picture was made.

    A picture that another program made, and said so, is marked as made by a model even if that program did not mark it; a
    photograph is not marked at all. Raises FileError if ``data`` is no picture.
    """
    said = metadata.told(data)
    own = metadata.own_values(said)
    kind = said.source_type
    if own is not None:
        request = own.get("request")
        prompt = request.get("prompt") if isinstance(request, dict) else None
        tool = said.tool or f"chashka {own.get('version', '')}"[:LONGEST_TOOL].strip()
        kind = kind or (COMPOSED if own.get("sources") else TRAINED)
        text = metadata.compact(own)
        label = Label(kind, prompt if isinstance(prompt, str) else "", text, said.parameters, tool)
        return label if metadata.can_be_written(label) else Label(kind, tool=tool)
    foreign = read_foreign(data)
    if kind is None and foreign is None:
        return None
    label = Label(kind or TRAINED, tool=said.tool or (foreign.program if foreign else ""))
    if foreign is not None:
        whole = replace(label, prompt=foreign.prompt, parameters=foreign.parameters())
        return whole if metadata.can_be_written(whole) else label
    return label


def with_privacy(data: bytes, level: str, format: str | None = None) -> tuple[bytes, str]:
    """A file for somebody else: (bytes, media type). format: png, jpeg, webp; None: as it is (SVG stays SVG).

    With everything and in its own format it is the very same bytes. PNG keeps every pixel; JPEG has no transparency. Raises
    InputError for a level or format that is not possible, FileError if ``data`` is no picture.
    """
    limited(None, level)
    own = format_of(data)
    wanted = (format or own).lower().replace("jpg", "jpeg")
    if wanted not in TYPES or (wanted == "svg") != (own == "svg"):
        allowed = ["svg"] if own == "svg" else [name for name in TYPES if name != "svg"]
        raise InputError(f"format: {wanted[:40]!r} is not possible for this picture; allowed: {', '.join(allowed)}")
    if level == "full" and wanted == own:
        return data, TYPES[own]
    label = limited(label_in(data), level)
    if own == "svg":
        return _svg(data, label), TYPES[own]
    return encode(compact_alpha(read(data)), label, Path(f"picture.{wanted}")), TYPES[wanted]


def format_of(data: bytes) -> str:
    """png, jpeg, webp or svg, by what is in the file. Raises InputError for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if metadata.svg_bytes(data):
        return "svg"
    raise InputError("this is no picture that can be read; allowed: PNG, JPEG, WebP")


def compact_alpha(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 4) → (H, W, 3) if nothing is transparent."""
    return pixels[..., :3] if pixels.shape[-1] == 4 and int(pixels[..., 3].min()) == 255 else pixels


def _svg(data: bytes, label: Label | None) -> bytes:
    """A traced picture of ours that says what ``label`` does."""
    text = data.decode("utf-8", "replace")
    size = _TRACED.search(text)
    width, height = (int(part) for part in size.groups()) if size else (0, 0)
    lines = "" if label is None else "\n".join(about_lines(label, width, height)) + "\n"
    return _ABOUT.sub(lambda _: lines, text, count=1).encode()
