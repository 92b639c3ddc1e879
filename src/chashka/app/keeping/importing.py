"""Files of others, looked at before they are decoded, into the gallery with what they say: uploads, other programs' pictures."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from chashka.app.jobs import NewPicture, Picture
from chashka.errors import FileError

if TYPE_CHECKING:
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.store import Store

STARTS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
UPLOADED, IMPORTED = "uploaded", "imported"
_LONGEST, _MOST, _DEEPEST = 64_000, 2_000, 24


def bring_in(
    store: Store,
    blobs: Blobs,
    data: bytes,
    owner: str,
    source: str = IMPORTED,
    decoding: AbstractContextManager[object] | None = None,
) -> tuple[Picture, bool]:
    """The picture of a PNG, JPEG or WebP file, and whether it is new: the same file twice is one picture.

    One that was deleted and not yet purged comes back. decoding: held while the file is decoded. Raises FileError: no picture,
    damaged, too large, no room on the disk.
    """
    media_type = sniffed(data)
    known = store.pictures.of_file(hashlib.sha256(data).hexdigest(), owner)
    if known is not None:
        return (known if known.deleted is None else store.pictures.restore(known.id) or known), False
    with decoding or nullcontext():
        new, thumbnail = described(data, media_type, source)
    blobs.put(data)
    blobs.put(thumbnail)
    return store.pictures.add(new, owner), True


def sniffed(data: bytes) -> str:
    """The media type of a file by what it begins with, never by its name. Raises FileError for other formats."""
    for start, media_type in STARTS.items():
        if data.startswith(start) and (start != b"RIFF" or data[8:12] == b"WEBP"):
            return media_type
    raise FileError("file: this is no picture that can be read; allowed: PNG, JPEG, WebP")


def check_size(data: bytes, most: int) -> None:
    """Raises FileError for a picture of more than ``most`` pixels, from its header alone: nothing is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                width, height = image.size
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise FileError("file: the picture is damaged; allowed: PNG, JPEG, WebP") from error
    if width * height > most:
        raise FileError(f"file: {width}x{height} pixels; allowed: at most {most} in all (GET /v1/limits)")


def described(data: bytes, media_type: str, source: str) -> tuple[NewPicture, bytes]:
    """What is known of a file, whichever program made it, and its thumbnail. Raises FileError if it is damaged."""
    from dataclasses import asdict, replace

    from chashka.app.kinds.results import made_of
    from chashka.images import read, read_metadata
    from chashka.images.foreign import read_foreign

    pixels = read(data)
    own = tame(read_metadata(data))
    made = made_of(pixels, data, media_type, 0, own or {})
    new = replace(made.picture, source=source)
    foreign = None if own else read_foreign(data)
    if foreign is not None:
        new = replace(
            new,
            prompt=foreign.prompt,
            negative_prompt=foreign.negative_prompt,
            model=foreign.model[:120],
            seed=foreign.seed,
            metadata=tame(asdict(foreign)),
        )
    return new, made.thumbnail


def tame(value: Any, depth: int = 0) -> Any:
    """JSON of somebody else's file as databases and answers can hold it: no NaN, no NUL, no half surrogates, not deep, not long."""
    from chashka.app.store.database import storable

    if isinstance(value, str):
        return storable(value[:_LONGEST])
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int | bool) or value is None:
        return value if value is None or abs(value) < 2**63 else str(value)[:40]
    if depth >= _DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {storable(str(key)[:200]): tame(inner, depth + 1) for key, inner in list(value.items())[:_MOST]}
    if isinstance(value, list | tuple):
        return [tame(inner, depth + 1) for inner in value[:_MOST]]
    return str(value)[:200]
