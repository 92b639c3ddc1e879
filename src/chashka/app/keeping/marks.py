"""Where a file comes from, as far as it or the log of files tells, offline.

Metadata can be removed and invented; the log cannot be asked by others. A verdict says what was found, in this order: our
metadata, our mark alone, the file in the log (its sha256), a file in the log that looks the same, another program's metadata,
another maker's mark. ``unknown`` means that nothing was found, not that no model made the picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chashka.images import metadata, read
from chashka.images.carried import has_credentials
from chashka.images.foreign import read_foreign
from chashka.images.pixels import flatten

if TYPE_CHECKING:
    from chashka.app.keeping.made import Made
    from chashka.app.store import Store
    from chashka.app.store.pictures import Pictures, Sent

KINDS = ("full", "mark", "logged", "alike", "foreign", "marked", "unknown")
NEAR = 5
"""Bits of 64 in which two pictures' hashes may differ to look the same.

Of 773 pictures, 98.6 % and more stay within 5 when they are saved as JPEG 70 or 50, WebP 50, at half, a quarter of or twice their
size, with noise or brighter; cropping by 5 % leaves 39 %. Drawings of different things by the embedded model differ by 10 and more.
"""
FLAT = 6
"""A hash with fewer bits set, or fewer not set, is of a picture with hardly anything on it: many look like that."""
_STEP = 4.0
"""Levels of 255 that neighbours must differ by: what compression adds to flat parts is less."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a file.

    kind: one of ``KINDS``. message: one line for people. by_model: whether a trained model made it, wholly or in part; None: not
    known. picture: its id in the gallery. distance: bits that differ, for ``alike``. program: who made it. source_type: IPTC's.
    credentials: it carries C2PA, which is not checked. details: what the metadata say.
    """

    kind: str
    message: str
    sha256: str
    by_model: bool | None = None
    logged: bool = False
    picture: str | None = None
    distance: int | None = None
    program: str = ""
    source_type: str = ""
    credentials: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)


def verify(data: bytes, store: Store | None = None, made: Made | None = None) -> Verdict:
    """What a PNG, JPEG, WebP or SVG file says of its origin, and what the logs know: that of ``store``, and of what commands made.

    Raises FileError: no picture.
    """
    sum = hashlib.sha256(data).hexdigest()
    said = metadata.told(data)
    own = metadata.own_values(said)
    pictures = None if store is None else store.pictures
    logged = None if pictures is None else _drawn(pictures, pictures.sent(sum))
    here = logged is not None or (made is not None and made.holds(sum))
    facts: dict[str, Any] = {
        "sha256": sum,
        "logged": here,
        "picture": logged.picture if logged else None,
        "program": said.tool,
        "source_type": said.source_type or "",
        "credentials": has_credentials(data),
        "by_model": True if said.source_type in _BY_MODEL else None,
    }
    known = ", and this very file is in the log of this machine" if here else ""
    if own is not None:
        model, version = str(own.get("model", ""))[:80], str(own.get("version", ""))[:20]
        message = f"made with chashka {version} and the model {model}; its whole request is in the file{known}"
        return Verdict(
            "full", message, **facts | {"by_model": True, "details": own, "program": f"chashka {version}".strip()}
        )
    if said.tool.partition(" ")[0] == "chashka" and said.source_type:
        kinds = "a model made it" if facts["by_model"] else f"its digital source type is {said.source_type}"
        return Verdict("mark", f"marked by {said.tool}: {kinds}{known}", **facts)
    if here:
        message = "this very file was made or sent here; it says nothing of that itself"
        return Verdict("logged", message, **facts | {"by_model": True})
    return _not_ours(data, pictures, made, facts)


def dhash(pixels: NDArray[np.uint8]) -> str:
    """uint8 (H, W, 3 or 4) → 16 hexadecimal digits of what a picture looks like: 64 bits, on white, brighter to the right or not.

    The picture is brought to 9x8 grey pixels; a bit says that one is brighter than its left neighbour (Krawetz, "Kind of Like
    That", 2013). It hardly changes with size, format and compression.
    """
    image = Image.fromarray(flatten(pixels)).convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(image, dtype=np.float32)
    bits = (values[:, 1:] - values[:, :-1] > _STEP).ravel()
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


_BY_MODEL = (metadata.TRAINED, metadata.COMPOSED, "compositeSynthetic")


def _not_ours(data: bytes, pictures: Pictures | None, made: Made | None, facts: dict[str, Any]) -> Verdict:
    """Of a file that carries nothing of ours and is in no log."""
    alike = None if metadata.svg_bytes(data) else _alike(data, pictures, made)
    foreign = read_foreign(data)
    if foreign is not None:
        facts |= {"program": foreign.program, "details": foreign.as_json()}
    if alike is not None:
        found, distance = alike
        message = f"looks like a picture that was made or sent here ({distance} of 64 bits differ); it says nothing of that itself"
        return Verdict("alike", message, **facts | {"picture": found, "distance": distance, "by_model": True})
    if foreign is not None:
        message = f"made with {foreign.program}, says its metadata"
        return Verdict("foreign", message, **facts | {"by_model": True})
    signed = "it carries C2PA content credentials, which are not checked here"
    if facts["source_type"]:
        who = f" by {facts['program']}" if facts["program"] else ""
        more = f"; {signed}" if facts["credentials"] else ""
        return Verdict("marked", f"marked{who}: its digital source type is {facts['source_type']}{more}", **facts)
    if facts["credentials"]:
        return Verdict("marked", signed, **facts)
    return Verdict(
        "unknown", "nothing is known of this file: no metadata, no mark, not in the log of this machine", **facts
    )


def _alike(data: bytes, pictures: Pictures | None, made: Made | None) -> tuple[str | None, int] | None:
    """The picture's id in the gallery, if it is there, and the distance of the nearest file that was drawn here, if one is near."""
    if pictures is None and made is None:
        return None
    hash = dhash(read(data))
    if not FLAT <= int(hash, 16).bit_count() <= 64 - FLAT:
        return None
    near: list[tuple[str | None, int]] = []
    if pictures is not None:
        drawn = ((_drawn(pictures, sent), distance) for sent, distance in pictures.alike(hash, NEAR))
        near = [(sent.picture, distance) for sent, distance in drawn if sent is not None]
    if made is not None and (distance := made.nearest(hash)) is not None and distance <= NEAR:
        near.append((None, distance))
    return min(near, key=lambda one: one[1], default=None)


def _drawn(pictures: Pictures, sent: Sent | None) -> Sent | None:
    """A row of the log, unless it is of a picture that somebody brought: those are logged when they are sent back."""
    if sent is None or sent.picture is None:
        return sent
    picture = pictures.get(sent.picture)
    return None if picture is not None and picture.new.source != "drawn" else sent
