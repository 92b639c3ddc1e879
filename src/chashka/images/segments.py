"""What does not fit into one segment of a JPEG file, which has 65,533 bytes: the rest of XMP goes into segments of its own.

Adobe's "XMP Specification, Part 3", 1.1.3.1: a segment is its name, the MD5 of the whole rest as 32 letters, how long the whole is,
where this piece of it begins, and the piece. The main packet names the MD5 as ``xmpNote:HasExtendedXMP``.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

FITS = 65_000
"""Bytes of XMP, or of EXIF, that certainly fit into one segment with what stands before them."""
MOST = 600_000
"""Bytes of the rest that are read: a file may say anything."""
_NAME = b"http://ns.adobe.com/xmp/extension/\0"
_APP1 = b"\xff\xe1"
_PIECE = 65_000
_HEAD = len(_NAME) + 32 + 8
_NAMED = re.compile(r"""xmpNote:HasExtendedXMP(?:=["']|>)([0-9A-F]{32})["'<]""")


def digest(rest: bytes | bytearray) -> str:
    """What the main packet calls the rest by."""
    return hashlib.md5(rest, usedforsecurity=False).hexdigest().upper()


def segments(rest: bytes) -> bytes:
    """The rest as segments, one behind the other."""
    found = []
    for at in range(0, len(rest), _PIECE):
        place = len(rest).to_bytes(4, "big") + at.to_bytes(4, "big")
        body = _NAME + digest(rest).encode() + place + rest[at : at + _PIECE]
        found.append(_APP1 + (len(body) + 2).to_bytes(2, "big") + body)
    return b"".join(found)


def rest_in(image: Any, packet: str) -> bytes:
    """The rest that belongs to a main ``packet`` of an opened JPEG file; nothing for other formats, and for a damaged one."""
    named = _NAMED.search(packet)
    if named is None:
        return b""
    wanted, found = named.group(1).encode(), bytearray()
    for name, body in getattr(image, "applist", ()):
        if name == "APP1" and body.startswith(_NAME) and body[len(_NAME) : len(_NAME) + 32] == wanted:
            at = int.from_bytes(body[_HEAD - 4 : _HEAD], "big")
            if at != len(found) or at + len(body) > MOST:
                return b""
            found += body[_HEAD:]
    return bytes(found) if digest(found) == named.group(1) else b""
