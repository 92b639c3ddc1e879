"""Files in and out: what people upload, looked at before it is decoded, and pictures sent with as much as they may say."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chashka.app.guard.access import Who
from chashka.app.jobs import Picture
from chashka.app.keeping.blobs import StorageFullError
from chashka.app.keeping.importing import bring_in, check_size, sniffed, tame
from chashka.errors import FileError

if TYPE_CHECKING:
    from chashka.app.compute import runner
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.settings import Settings
    from chashka.app.store import Store

DECODERS = 2
"""So many pictures are decoded at once: the largest one that may come takes some hundred megabytes."""
_LOGGED = 5_000
_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp", "image/svg+xml": "svg"}


class Files:
    """Used by the service alone; from any thread."""

    def __init__(self, settings: Settings, store: Store, blobs: Blobs) -> None:
        self._settings, self._store, self._blobs = settings, store, blobs
        self._decoding = threading.Semaphore(DECODERS)
        self._logged: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, who: Who, data: bytes, source: str) -> Picture:
        """Keep an upload; see ``Service.upload``."""
        if len(data) > self._settings.max_upload:
            raise FileError(f"file: {len(data)} bytes; allowed: at most {self._settings.max_upload}")
        sniffed(data)
        check_size(data, self._settings.max_picture)
        if self._blobs.low():
            raise StorageFullError("the disk is nearly full; free some space, or delete pictures, and try again")
        return bring_in(self._store, self._blobs, data, who.id, source, self._decoding)[0]

    def give(
        self, picture: Picture, privacy: str, format: str | None, finish: Callable[[bytes], bytes] | None = None
    ) -> tuple[bytes, str]:
        """The bytes and media type of a picture; see ``Service.file``."""
        from chashka.images.privacy import with_privacy

        data, media_type = self.read(picture.new.sha256), picture.new.media_type
        sum = picture.new.sha256
        if privacy != "full" or format not in (None, _FORMATS[media_type]) or finish is not None:
            with self._decoding:
                data, media_type = with_privacy(data, privacy, format)
                data = data if finish is None else finish(data)
            sum = hashlib.sha256(data).hexdigest()
        self._log(sum, picture.new.dhash, picture.id, privacy)
        return data, media_type

    def send(self, made: runner.Made, privacy: str) -> tuple[bytes, str]:
        """The bytes and media type of a picture that is kept nowhere. That it was sent is logged by its sha256."""
        from chashka.images.privacy import with_privacy

        data, media_type = made.data, made.picture.media_type
        if privacy != "full":
            data, media_type = with_privacy(data, privacy, None)
        self._log(hashlib.sha256(data).hexdigest(), made.picture.dhash, None, privacy)
        return data, media_type

    def loose(self, data: bytes, privacy: str) -> bytes:
        """The same bytes, which are sent as they are and are no picture of the gallery; see ``Service.sent``."""
        from chashka.app.keeping.marks import dhash
        from chashka.images import read

        with self._decoding:
            look = dhash(read(data))
        self._log(hashlib.sha256(data).hexdigest(), look, None, privacy)
        return data

    def verify(self, data: bytes) -> dict[str, Any]:
        """What a file says of its origin; it is looked at like an upload, and not kept."""
        from dataclasses import asdict

        from chashka.app.keeping.made import Made
        from chashka.app.keeping.marks import verify

        sniffed(data)
        check_size(data, self._settings.max_picture)
        with self._decoding:
            found: dict[str, Any] = tame(asdict(verify(data, self._store, Made(self._settings.data))))
        return found

    def read(self, sha256: str) -> bytes:
        """The bytes of a blob. Raises FileError."""
        return self._blobs.read(sha256)

    def _log(self, sha256: str, dhash: str, picture: str | None, privacy: str) -> None:
        """The one place where a file that leaves is logged: by the sum of the bytes that are sent, after their last encoding.

        Once for each file: reading the same picture again writes nothing.
        """
        key = (sha256, picture or "")
        with self._lock:
            if key in self._logged:
                return
        if self._store.pictures.sent(sha256) is None:
            self._store.pictures.log(sha256, dhash, picture, privacy)
        with self._lock:
            self._logged[key] = None
            while len(self._logged) > _LOGGED:
                self._logged.popitem(last=False)
