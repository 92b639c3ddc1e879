"""Pictures and masks as clients send them, brought to files of ours. In ours white = draw anew, everywhere.

Everything that is opened here is looked at before it is decoded: its format by its first bytes (never by a name or a content type),
and its size.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps

from chashka.errors import FileError, InputError
from chashka.images.metadata import COMPOSED, TRAINED, Label
from chashka.images.privacy import compact_alpha, limited
from chashka.images.segments import rest_in, segments
from chashka.images.writing import encode

FORMATS = ("PNG", "JPEG", "WEBP")
_DATA = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+=-]+)*;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def from_text(text: str, name: str) -> bytes:
    """The bytes of raw base64, or of a data URL. name: the field, for errors. Raises InputError; addresses are refused."""
    if _ADDRESS.match(text):
        raise InputError(
            f"{name}: addresses are not fetched by this server; send the picture itself, as base64 or a data: URL"
        )
    found = _DATA.match(text)
    try:
        data = base64.b64decode("".join((text[found.end() :] if found else text).split()), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise InputError(
            f"{name}: this is no picture; allowed: base64, or a data: URL with base64, of a PNG, JPEG or WebP file"
        )
    return data


def opened(data: bytes, most: int, name: str) -> Image.Image:
    """A picture, decoded and upright; the first one of an animation. most: pixels. Raises FileError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.width * image.height > most:
                size = f"{image.width}x{image.height}"
                raise FileError(f"{name}: {size} pixels are too many; allowed: {most / 1e6:g} megapixels in all")
            image.load()
            return ImageOps.exif_transpose(image)
    except FileError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise FileError(f"{name}: this cannot be read as a picture; allowed: whole PNG, JPEG or WebP files") from error


def mask_of_openai(data: bytes, most: int) -> tuple[bytes, str | None]:
    """(a mask of ours as PNG, a warning) of OpenAI's mask, where transparent = draw anew.

    A mask without any transparency is taken as white on black. Raises InputError for one that marks nothing, FileError.
    """
    image = opened(data, most, "mask")
    note = None
    white = ImageChops.invert(_alpha(image))
    if not _highest(white):
        white = image.convert("RGB").convert("L")
        note = "mask: it has no transparent part; its white part was drawn anew instead"
        if _highest(white) < 128 or int(white.getextrema()[0]) >= 128:  # type: ignore[arg-type]
            raise InputError("mask: nothing in it is transparent; make transparent what is to be drawn anew")
    return _png(white), note


def mask_of_a1111(data: bytes, most: int, *, invert: bool, rounded: bool = True) -> bytes:
    """A mask of ours as PNG of A1111's, where white = draw anew; of a mask with transparency what is opaque is drawn anew.

    invert: black means that. rounded: half transparent is either. Raises FileError.
    """
    image = opened(data, most, "mask")
    alpha = _alpha(image)
    if int(alpha.getextrema()[0]) == 255:  # type: ignore[arg-type]
        mask = image.convert("RGB").convert("L")
    else:
        mask = alpha.point(lambda value: 255 if value > 128 else 0) if rounded else alpha
    mask = ImageChops.invert(mask) if invert else mask
    if not _highest(mask):
        raise InputError(
            "mask: nothing in it is to be drawn anew; paint that white (black with inpainting_mask_invert)"
        )
    return _png(mask)


def cropped(data: bytes, width: int, height: int, most: int, name: str) -> bytes:
    """The middle of a picture in the shape of width x height, as PNG; its pixels are not scaled."""
    image = opened(data, most, name)
    scale = min(image.width / width, image.height / height)
    wide, high = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = (image.width - wide) // 2, (image.height - high) // 2
    return _png(image.crop((left, top, left + wide, top + high)))


def to_text(data: bytes) -> str:
    """Base64 without a prefix."""
    return base64.b64encode(data).decode("ascii")


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


def _highest(image: Image.Image) -> int:
    """The highest value of a picture with one channel."""
    return int(image.getextrema()[1])  # type: ignore[arg-type]


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    kept = image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA")
    kept.save(out, "PNG")
    return out.getvalue()


def forming(data: bytes, file_format: str, given: bool, privacy: str) -> bytes:
    """A picture that still forms in a format for clients, marked unless ``privacy`` is none. given: it is made from pictures."""
    label = limited(Label(COMPOSED if given else TRAINED), privacy)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        pixels = compact_alpha(np.asarray(image.convert("RGBA")))
    return encode(pixels, label, Path(f"forming.{file_format}"))


def reencoded(data: bytes, file_format: str, quality: int) -> bytes:
    """A JPEG or WebP in another quality (0 to 100), with the metadata that its file had."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        out = io.BytesIO()
        kept = {name: image.info[name] for name in ("exif", "xmp") if image.info.get(name)}
        if file_format == "jpeg" and (rest := rest_in(image, (kept.get("xmp") or b"").decode("utf-8", "replace"))):
            kept["extra"] = segments(rest)
        pixels = image if file_format == "webp" else image.convert("RGB")
        pixels.save(out, file_format.upper(), quality=quality, **kept)
        return out.getvalue()
