"""Pictures of other programs into the gallery, with what their files say."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from chashka.app.jobs import Picture
from chashka.app.keeping.files import described, sniffed

if TYPE_CHECKING:
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.store import Store

IMPORTED = "imported"


def bring_in(store: Store, blobs: Blobs, data: bytes, owner: str) -> tuple[Picture, bool]:
    """The picture of a PNG, JPEG or WebP file, and whether it is new: the same file twice is one picture.

    One that was deleted and not yet purged comes back. Raises FileError: no picture, damaged, too large, no room on the disk.
    """
    known = store.pictures.of_file(hashlib.sha256(data).hexdigest(), owner)
    if known is not None:
        return (known if known.deleted is None else store.pictures.restore(known.id) or known), False
    new, thumbnail = described(data, sniffed(data))
    blobs.put(data)
    blobs.put(thumbnail)
    return store.pictures.add(replace(new, source=IMPORTED), owner), True
