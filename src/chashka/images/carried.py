"""What a PNG, JPEG or WebP file carries beside its pixels, by key, without decoding it: text chunks, EXIF, content credentials.

Nothing here raises for a damaged file, and sizes are bounded: what is too long, or too much, is not there.
"""

from __future__ import annotations

import contextlib
import io
import warnings
import zlib
from collections.abc import Iterator

from PIL import Image

LONGEST = 1_000_000
"""Bytes of one text, unpacked."""
MOST = 4_000_000
"""Bytes of all texts of a file."""
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_IFD = 0x8769
_USER_COMMENT, _MAKER_NOTE = 0x9286, 0x927C
_NAMES = {0x010E: "Description", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}


def texts_in(data: bytes) -> dict[str, str]:
    """Texts by key: of PNG chunks under their own keys, EXIF as UserComment, MakerNote, Software, Make, Model, Description.

    Bytes that are UTF-8 are read as UTF-8, whatever the chunk's kind says: some programs put it where Latin-1 belongs. NUL and
    halves of surrogate pairs are left out.
    """
    found: dict[str, str] = {}
    size = 0
    for key, text in (*_chunk_texts(data), *_exif_texts(data)):
        size += len(text)
        if key not in found and size <= MOST:
            found[key] = text.replace("\0", "").encode("utf-8", "replace").decode()
    return found


def has_credentials(data: bytes) -> bool:
    """Whether a file carries C2PA content credentials; they are not checked."""
    if data.startswith(_PNG):
        return any(kind == b"caBX" for kind, _ in _png_chunks(data))
    if data[:4] == b"RIFF":
        return any(kind == b"C2PA" for kind, _ in _riff_chunks(data))
    if data.startswith(b"\xff\xd8"):
        return any(marker == 0xEB and b"jumb" in body and b"c2pa" in body for marker, body in _segments(data))
    return False


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of a JPEG file's segments up to its pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + max(2, length)


def _chunk_texts(data: bytes) -> Iterator[tuple[str, str]]:
    if not data.startswith(_PNG):
        return
    for kind, body in _png_chunks(data):
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        key, _, rest = body.partition(b"\0")
        packed: bool | None = kind == b"zTXt"
        if kind == b"zTXt":
            rest = rest[1:]
        elif kind == b"iTXt":
            packed = rest[:1] == b"\1"
            rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after the language and the translated key
        text = _unpacked(rest) if packed else rest
        if text is not None and len(text) <= LONGEST:
            yield key[:80].decode("latin-1"), _decoded(text)


def _unpacked(data: bytes) -> bytes | None:
    """What was compressed; None if it is damaged or longer than allowed."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, LONGEST + 1)
    except zlib.error:
        return None
    return text if len(text) <= LONGEST else None


def _exif_texts(data: bytes) -> Iterator[tuple[str, str]]:
    values: dict[str, object] = {}
    with contextlib.suppress(Exception), warnings.catch_warnings():  # damaged EXIF makes Pillow raise nearly anything
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            comment = image.info.get("comment")
            exif = image.getexif()
            inner = exif.get_ifd(_EXIF_IFD)
        values = {name: exif.get(tag) for tag, name in _NAMES.items()}
        values |= {"UserComment": inner.get(_USER_COMMENT), "MakerNote": inner.get(_MAKER_NOTE), "Comment": comment}
    for name, value in values.items():
        text = _comment(value) if isinstance(value, bytes) else value
        if isinstance(text, str) and 0 < len(text) <= LONGEST:
            yield name, text


def _comment(value: bytes) -> str:
    """An EXIF comment: eight bytes say how it is written; UTF-16 comes in both byte orders, whatever they say."""
    code, text = value[:8], value[8:]
    if len(value) > LONGEST:
        return ""
    if code == b"UNICODE\0":
        big, little = (text[: len(text) // 2 * 2].decode(name, "replace") for name in ("utf-16-be", "utf-16-le"))
        return max(big.removeprefix("\ufeff"), little.removeprefix("\ufeff"), key=_plain)
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        return _decoded(text)
    return _decoded(value)


def _plain(text: str) -> int:
    """How many of the first signs are blanks, digits, ASCII letters: of a text in the wrong byte order hardly any."""
    return sum(character.isascii() for character in text[:2000])


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
