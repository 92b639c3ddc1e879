"""Pictures into files: whole or not at all, never over another file by accident."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from chashka.errors import FileError, InputError
from chashka.images.metadata import CHUNK, XMP_CHUNK, Label, exif_block, jpeg_xmp, label_of, xmp
from chashka.images.pixels import flatten
from chashka.images.segments import FITS, segments
from chashka.images.tracing import svg_document
from chashka.request import Picture

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".svg": "SVG"}
_LONGEST_SLUG = 100
"""Bytes of UTF-8: file names may have 255, and seed, number and suffix need some."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pixels, uint8 (H, W, 3 or 4), and what the file shall say of them: for pictures that are no answer to a request."""

    pixels: NDArray[np.uint8]
    label: Label | None


def save(picture: Picture | Labelled, path: str | Path) -> Path:
    """Write a picture with its metadata; the suffix decides the format. An existing file is replaced in one moment.

    JPEG has no transparency: transparent parts become white. SVG is traced from the picture (tracing.py). Raises FileError
    (not writable, disk full, …), after which nothing new is left behind and an existing file is as it was; InputError for a
    suffix that is not known; MissingExtraError for SVG without the extra [svg].
    """
    target = Path(path)
    data = encode(picture.pixels, _label(picture), target)
    _put(target, data, lambda part: os.replace(part, target))  # noqa: PTH105
    return target


def save_new(picture: Picture | Labelled, folder: str | Path, name: str, suffix: str = ".png") -> Path:
    """Write a picture as ``name`` in ``folder`` (made if it is not there), or as ``name-2``, ``name-3`` … if that exists."""
    data = encode(picture.pixels, _label(picture), Path(name + suffix))
    return write_new(data, folder, name, suffix)


def write_new(data: bytes, folder: str | Path, name: str, suffix: str) -> Path:
    """Write a file's bytes as :func:`save_new` does a picture. Raises FileError."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {str(place)!r}: {error.strerror or error}") from error
    chosen: list[Path] = []

    def publish(part: str) -> None:
        number = 1
        while True:
            target = place / (f"{name}-{number}{suffix}" if number > 1 else name + suffix)
            number += 1
            if _publish_new(part, target):
                chosen.append(target)
                return

    _put(place / (name + suffix), data, publish)
    return chosen[0]


def _label(picture: Picture | Labelled) -> Label | None:
    return picture.label if isinstance(picture, Labelled) else label_of(picture)


def encode(pixels: NDArray[np.uint8], label: Label | None, target: Path) -> bytes:
    """The bytes of a file: ``pixels`` (H, W, 3 or 4) in the format of ``target``'s suffix. label: what it says, or nothing."""
    file_format = SUFFIXES.get(target.suffix.lower())
    if file_format is None:
        raise InputError(f"out: {target.name!r} has no suffix that is known; allowed: {', '.join(SUFFIXES)}")
    if file_format == "SVG":
        return svg_document(pixels, label)
    out = io.BytesIO()
    if file_format == "PNG":
        Image.fromarray(pixels).save(out, "PNG", pnginfo=_chunks(label))
        return out.getvalue()
    if file_format == "JPEG":
        said = {} if label is None else _segments(label)
        Image.fromarray(flatten(pixels)).save(out, "JPEG", quality=95, subsampling=0, **said)
    else:
        options: dict[str, Any] = {} if label is None else {"exif": exif_block(label), "xmp": xmp(label)}
        Image.fromarray(pixels).save(out, "WEBP", quality=95, method=4, **options)
    return out.getvalue()


def _segments(label: Label) -> dict[str, Any]:
    """What a JPEG file says, as Pillow takes it. The A1111 text is left out if it does not fit: our JSON says the same."""
    main, rest = jpeg_xmp(label)
    exif = exif_block(label).tobytes()
    if len(exif) > FITS:
        exif = exif_block(replace(label, parameters=None)).tobytes()
    return {"exif": exif, "xmp": main} | ({"extra": segments(rest)} if rest else {})


def _chunks(label: Label | None) -> PngImagePlugin.PngInfo:
    """What a PNG file says, as its text chunks."""
    info = PngImagePlugin.PngInfo()
    if label is not None:
        if label.parameters is not None:
            info.add_text("parameters", label.parameters)
        if label.own is not None:
            info.add_text(CHUNK, label.own)
        info.add_itxt(XMP_CHUNK, xmp(label, own=False).decode())
    return info


def slug(text: str) -> str:
    """A file name made of a prompt: letters and digits of any script, lower case, joined by dashes; never empty."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower())
    name = "-".join(words).encode()[:_LONGEST_SLUG].decode(errors="ignore").strip("-")
    return name or "picture"


def _put(target: Path, data: bytes, publish: Callable[[str], None]) -> None:
    """Write ``data`` beside ``target``, make it durable, then ``publish`` it; on any failure remove the part."""
    part = None
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise FileError(f"cannot write {str(target)!r}: it is not a regular file")
        handle, part = tempfile.mkstemp(prefix=".chashka-", suffix=".part", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o666 & ~_umask())  # noqa: PTH101  (mkstemp makes private files; pictures follow the user's umask)
        publish(part)
        part = None
        _sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)  # noqa: PTH108


def _publish_new(part: str, target: Path) -> bool:
    """Give the part its name unless that exists: a hard link is the one call that does both at once."""
    try:
        os.link(part, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EACCES, errno.EINVAL):
            raise
        if target.exists():  # a file system without hard links
            return False
        os.replace(part, target)  # noqa: PTH105
        return True
    os.unlink(part)  # noqa: PTH108
    return True


def _umask() -> int:
    """The process's umask; reading it means setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the new name durable where folders can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
