"""What a picture file says about itself: our own JSON, the A1111 text that many programs read, and XMP.

PNG: text chunks ``chashka`` (JSON) and ``parameters`` (A1111), XMP in ``XML:com.adobe.xmp``. JPEG and WebP: EXIF UserComment
(A1111), XMP with our JSON as the property ``chashka:request``. SVG: the same XMP in ``<metadata>``. XMP is written here and
never parsed as XML: reading back uses one fixed pattern. Nothing depends on the time or the machine, so equal pictures are
equal files.
"""

from __future__ import annotations

import html
import json
import re
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image

import chashka
from chashka.errors import FileError
from chashka.request import Picture

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
NAMESPACE = "urn:chashka:1"
CHUNK = "chashka"
XMP_CHUNK = "XML:com.adobe.xmp"
USER_COMMENT = 0x9286
EXIF_IFD = 0x8769
SOFTWARE = 0x0131
_LONGEST_XMP = 65_536
_OURS = re.compile(r'chashka:request=("[^"<>]*"|\'[^\'<>]*\')')
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def describe(picture: Picture) -> dict[str, Any]:
    """Everything needed to draw the picture again: {family, version, model, request, picture, seed}, and sources if any."""
    sources = [asdict(source) for source in picture.sources]
    return {
        "family": picture.family,
        "version": chashka.__version__,
        "model": picture.model,
        "request": picture.request.model_dump(exclude_none=True),
        "picture": picture.index,
        "seed": picture.seed,
    } | ({"sources": sources} if sources else {})


def a1111_parameters(picture: Picture) -> str:
    """The ``parameters`` text of AUTOMATIC1111's web UI: prompt, negative prompt, then one line of ``Key: value`` pairs."""
    request = picture.request
    width, height = picture.size
    pairs: dict[str, Any] = {
        "Steps": request.steps,
        "Sampler": request.sampler,
        "Schedule type": request.spacing,
        "CFG scale": None if request.guidance_scale is None else f"{request.guidance_scale:g}",
        "Seed": picture.seed,
        "Size": f"{width}x{height}",
        "Model": picture.model or None,
        "Denoising strength": None if request.strength is None else f"{request.strength:g}",
        "Picture": picture.index,
        "Version": f"chashka {chashka.__version__}",
    }
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value is not None)
    negative = f"Negative prompt: {request.negative_prompt}\n" if request.negative_prompt else ""
    return f"{request.prompt}\n{negative}{line}"


def xmp_packet(picture: Picture, *, own: bool = True) -> bytes:
    """XMP with the IPTC digital source type (made by a trained model, or composed with one), the tool and the prompt.

    own: carry our JSON too, for formats without text chunks.
    """
    kind = "compositeWithTrainedAlgorithmicMedia" if picture.edited else "trainedAlgorithmicMedia"
    ours = f"\n    xmlns:chashka={quoteattr(NAMESPACE)} chashka:request={_attribute(own_json(picture))}" if own else ""
    prompt = html.escape(printable(picture.request.prompt), quote=False)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about=""\n'
        '    xmlns:xmp="http://ns.adobe.com/xap/1.0/"\n'
        '    xmlns:dc="http://purl.org/dc/elements/1.1/"\n'
        '    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"\n'
        f'    xmp:CreatorTool="chashka {chashka.__version__}"\n'
        f'    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}{kind}"{ours}>\n'
        f'   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{prompt}</rdf:li></rdf:Alt></dc:description>\n'
        "  </rdf:Description>\n"
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    ).encode()


def own_json(picture: Picture) -> str:
    """:func:`describe` as JSON with sorted keys; letters stay letters."""
    return json.dumps(describe(picture), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def exif_block(picture: Picture) -> Image.Exif:
    """EXIF with the A1111 text as UserComment (``UNICODE`` and UTF-16, big endian) and our name as Software."""
    exif = Image.Exif()
    exif[SOFTWARE] = f"chashka {chashka.__version__}"
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + a1111_parameters(picture).encode("utf-16-be")
    return exif


def read_metadata(path: str | Path) -> dict[str, Any] | None:
    """Our metadata in a PNG, JPEG, WebP or SVG file, as :func:`describe` gives it; None if the file carries none.

    Raises FileError if the file cannot be opened as a picture.
    """
    try:
        text, packet = _svg_texts(Path(path)) if Path(path).suffix.lower() == ".svg" else _picture_texts(path)
    except Exception as error:  # see reading.py: Pillow raises nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise FileError(f"cannot read {str(path)!r}: {reason}") from error
    if text is None:
        found = _OURS.search(packet[:_LONGEST_XMP])
        text = html.unescape(found.group(1)[1:-1]) if found else None
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def printable(text: str) -> str:
    """The text without the characters that XML cannot hold."""
    return _NOT_XML.sub("", text)


def _picture_texts(path: str | Path) -> tuple[str | None, str]:
    """(our JSON or None, XMP or nothing) of a PNG, JPEG or WebP file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            packet = image.info.get("xmp") or image.info.get(XMP_CHUNK) or b""
            return image.info.get(CHUNK), packet if isinstance(packet, str) else packet.decode("utf-8", "replace")


def _svg_texts(path: Path) -> tuple[None, str]:
    """(None, XMP or nothing) of an SVG file of ours; the title before it cannot hold a tag, so none is mistaken for it."""
    with path.open("rb") as file:
        start = file.read(2 * _LONGEST_XMP)
    return None, start.decode("utf-8", "replace").partition("<metadata>")[2]


def _quoted(value: str) -> str:
    """A1111's rule: values with a comma, a colon or a line break are JSON strings."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value


def _attribute(text: str) -> str:
    return '"' + html.escape(printable(text), quote=True).replace("\n", "&#10;") + '"'
