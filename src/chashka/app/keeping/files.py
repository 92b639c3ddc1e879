"""Files in and out: what people upload, looked at before it is decoded, and pictures sent with as much as they may say."""

from __future__ import annotations

import hashlib
import io
import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chashka.app.guard.access import Who
from chashka.app.jobs import NewPicture, Picture
from chashka.app.keeping.blobs import StorageFullError
from chashka.errors import FileError

if TYPE_CHECKING:
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.settings import Settings
    from chashka.app.store import Store

STARTS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
DECODERS = 2
"""So many pictures are decoded at once: the largest one that may come takes some hundred megabytes."""
_LOGGED = 5_000
_LONGEST, _MOST, _DEEPEST = 64_000, 2_000, 24
_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "image/svg+xml": "svg"}


class Files:
    """Used by the service alone; from any thread."""

    def __init__(self, settings: Settings, store: Store, blobs: Blobs) -> None:
        self._settings, self._store, self._blobs = settings, store, blobs
        self._decoding = threading.Semaphore(DECODERS)
        self._logged: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, who: Who, data: bytes) -> Picture:
        """Keep an upload; see ``Service.upload``."""
        if len(data) > self._settings.max_upload:
            raise FileError(f"file: {len(data)} bytes; allowed: at most {self._settings.max_upload}")
        media_type = sniffed(data)
        _check_size(data, self._settings.max_picture)
        if self._blobs.low():
            raise StorageFullError("the disk is nearly full; free some space, or delete pictures, and try again")
        known = self._store.pictures.of_file(hashlib.sha256(data).hexdigest(), who.id)
        if known is not None:  # the same file twice is one picture
            return known if known.deleted is None else self._store.pictures.restore(known.id) or known
        with self._decoding:
            new, small = described(data, media_type)
        self._blobs.put(data)
        self._blobs.put(small)
        return self._store.pictures.add(new, who.id)

    def give(self, picture: Picture, privacy: str, format: str | None) -> tuple[bytes, str]:
        """The bytes and media type of a picture; see ``Service.file``. What leaves is logged by its sha256."""
        from chashka.images.privacy import with_privacy

        data = self.read(picture.new.sha256)
        own = _FORMATS[picture.new.media_type]
        if privacy == "full" and format in (None, own):
            self._log(picture.new.sha256, picture, privacy)
            return data, picture.new.media_type
        with self._decoding:
            data, media_type = with_privacy(data, privacy, format)
        self._log(hashlib.sha256(data).hexdigest(), picture, privacy)
        return data, media_type

    def verify(self, data: bytes) -> dict[str, Any]:
        """What a file says of its origin; it is looked at like an upload, and not kept."""
        from dataclasses import asdict

        from chashka.app.keeping.marks import verify

        sniffed(data)
        _check_size(data, self._settings.max_picture)
        with self._decoding:
            found: dict[str, Any] = tame(asdict(verify(data, self._store)))
        return found

    def read(self, sha256: str) -> bytes:
        """The bytes of a blob. Raises FileError."""
        return self._blobs.read(sha256)

    def _log(self, sha256: str, picture: Picture, privacy: str) -> None:
        """Remember what was sent, once for each file: reading the same picture again writes nothing."""
        key = (sha256, picture.id)
        with self._lock:
            if key in self._logged:
                return
        if self._store.pictures.sent(sha256) is None:
            self._store.pictures.log(sha256, picture.new.dhash, picture.id, privacy)
        with self._lock:
            self._logged[key] = None
            while len(self._logged) > _LOGGED:
                self._logged.popitem(last=False)


def sniffed(data: bytes) -> str:
    """The media type of a file by what it begins with, never by its name. Raises FileError for other formats."""
    for start, media_type in STARTS.items():
        if data.startswith(start) and (start != b"RIFF" or data[8:12] == b"WEBP"):
            return media_type
    raise FileError("file: this is no picture that can be read; allowed: PNG, JPEG, WebP")


def _check_size(data: bytes, most: int) -> None:
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


def described(data: bytes, media_type: str) -> tuple[NewPicture, bytes]:
    """What is known of an uploaded file, whichever program made it, and its thumbnail. Raises FileError if it is damaged."""
    from dataclasses import asdict, replace

    from chashka.app.kinds.results import made_of
    from chashka.images import read, read_metadata
    from chashka.images.foreign import read_foreign

    pixels = read(data)
    own = tame(read_metadata(data))
    made = made_of(pixels, data, media_type, 0, own or {})
    new = replace(made.picture, source="uploaded")
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
