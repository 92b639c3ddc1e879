"""What a picture file says about itself: our own JSON, the A1111 text that many programs read, and XMP.

PNG: text chunks ``chashka`` (JSON) and ``parameters`` (A1111), XMP in ``XML:com.adobe.xmp``. JPEG and WebP: EXIF UserComment
(A1111), XMP with our JSON as the property ``chashka:request``; in JPEG files JSON that is too long for one segment goes into
others (``segments``), and the A1111 text is left out if it is. SVG: the same XMP in ``<metadata>``. XMP is written here and never
parsed as XML: reading back uses one fixed pattern. Nothing depends on the time or the machine, so equal pictures are equal files.
"""

from __future__ import annotations

import contextlib
import html
import io
import json
import re
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import quoteattr

from PIL import Image

import chashka
from chashka.errors import FileError
from chashka.images.segments import FITS, digest, rest_in
from chashka.request import LONGEST_PROMPT, Picture

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED, COMPOSED, ALTERED = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "algorithmicallyEnhanced",
)
"""IPTC's codes for a picture that a model made, that it made parts of, and that an algorithm altered."""
NAMESPACE = "urn:chashka:1"
TOOL = f"chashka {chashka.__version__}"
CHUNK = "chashka"
XMP_CHUNK = "XML:com.adobe.xmp"
USER_COMMENT = 0x9286
EXIF_IFD = 0x8769
SOFTWARE = 0x0131
_LONGEST_XMP = 600_000  # the longest request, of characters that become seven bytes each, has 400,000
_LONGEST_PARAMETERS = 32_000
_OURS = re.compile(r'chashka:request=("[^"<>]*"|\'[^\'<>]*\')')
_TYPE = re.compile(r"digitalsourcetype/([A-Za-z]{1,60})\b")
_TOOL = re.compile(r"""xmp:CreatorTool(?:=["']|>)([^"'<>]{1,120})["'<]""")
_MARK = re.compile(r"digitalsourcetype/(trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia)\b")
_SIZE = re.compile(r"\bSize: \d+x\d+(?=, |$)")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Label:
    """What is written into a file. kind: the last part of IPTC's digital source type. own: :func:`describe` as JSON, and
    parameters, the A1111 text: None for a picture that was not drawn here. tool: what made the picture, "" if that is not known.
    """

    kind: str
    prompt: str = ""
    own: str | None = None
    parameters: str | None = None
    tool: str = TOOL


@dataclass(frozen=True, slots=True)
class Told:
    """What a file says: our JSON in a text chunk, XMP (its beginning), the A1111 text."""

    text: str | None
    packet: str
    parameters: str | None

    @property
    def source_type(self) -> str | None:
        """The last part of IPTC's digital source type, whoever wrote it."""
        found = _TYPE.search(self.packet)
        return found.group(1) if found else None

    @property
    def tool(self) -> str:
        """The program that says it made the picture."""
        found = _TOOL.search(self.packet)
        return html.unescape(found.group(1)) if found else ""


def describe(picture: Picture) -> dict[str, Any]:
    """Everything needed to draw the picture again: {family, version, model, request, picture, seed}, and what there is of others.

    checkpoint: {name, sha256} of the file that the U-Net's weights come from.
    sources: the pictures that it was made from. loras, embeddings: lists of {name, sha256}, with a LoRA's ``weight``, and its
    ``text_weight`` if the text encoder got another; those of the prompt's tags too, in the order in which they were added. vae:
    {name, sha256}. Without ``sha256`` nobody knew it.
    """
    sources = [asdict(source) for source in picture.sources]
    return {
        "family": picture.family,
        "version": chashka.__version__,
        "model": picture.model,
        "request": picture.request.model_dump(exclude_none=True),
        "picture": picture.index,
        "seed": picture.seed,
        **({"sources": sources} if sources else {}),
        **_added(picture),
    }


def _added(picture: Picture) -> dict[str, Any]:
    """The part of :func:`describe` that tells what the model was opened with."""
    told: dict[str, list[dict[str, Any]]] = {"checkpoint": [], "lora": [], "embedding": [], "vae": []}
    for one in picture.added:
        said: dict[str, Any] = {"name": one.name} | ({"sha256": one.sha256} if one.sha256 else {})
        if one.kind == "lora":
            said |= {"weight": one.unet} | ({"text_weight": one.text} if one.text != one.unet else {})
        told[one.kind].append(said)
    alone = {kind: next(iter(told[kind]), None) for kind in ("checkpoint", "vae")}
    found = {**alone, "loras": told["lora"], "embeddings": told["embedding"]}
    return {name: value for name, value in found.items() if value}


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
        "Model hash": next((one.sha256[:10] for one in picture.added if one.kind == "checkpoint" and one.sha256), None),
        "Model": picture.model or None,
        **_hashes(picture),
        "Denoising strength": None if request.strength is None else f"{request.strength:g}",
        "Clip skip": getattr(request, "clip_skip", None),
        "Picture": picture.index,
        "Version": f"chashka {chashka.__version__}",
    }
    line = ", ".join(f"{key}: {_quoted(str(value))}" for key, value in pairs.items() if value is not None)
    negative = f"Negative prompt: {request.negative_prompt}\n" if request.negative_prompt else ""
    return f"{_tagged(picture)}\n{negative}{line}"


def _hashes(picture: Picture) -> dict[str, str]:
    """What A1111 tells of an autoencoder and of embeddings: ten and twelve digits of their sums."""
    said: dict[str, str] = {}
    for one in picture.added:
        if one.kind == "vae":
            said |= ({"VAE hash": one.sha256[:10]} if one.sha256 else {}) | {"VAE": one.name}
    words = [f"{one.name}: {one.sha256[:12]}" for one in picture.added if one.kind == "embedding" and one.sha256]
    return said | ({"TI hashes": ", ".join(words)} if words else {})


def _tagged(picture: Picture) -> str:
    """The prompt, with a tag for each LoRA that it does not name: in A1111's text they have no other place."""
    prompt, tags = picture.request.prompt, []
    for one in picture.added:
        named = re.search(rf"<\w+:\s*(?:[^<>:]*/)?{re.escape(one.name)}\s*[:>]", prompt)
        if one.kind == "lora" and not named and not set("<>:\n") & set(one.name):
            weights = [one.text] if one.text == one.unet else [one.text, one.unet]
            tags.append(f"<lora:{one.name}:{':'.join(f'{weight:.10g}' for weight in weights)}>")
    return " ".join([*([prompt] if prompt else []), *tags])


def xmp_packet(picture: Picture, *, own: bool = True) -> bytes:
    """XMP of a picture that was drawn here; see :func:`xmp`."""
    return xmp(label_of(picture), own=own)


def xmp(label: Label, *, own: bool = True) -> bytes:
    """XMP with the IPTC digital source type (made by a trained model, or composed with one), the tool and the prompt.

    own: carry our JSON too, for formats without text chunks.
    """
    return _packet(label, _ours(label) if own and label.own is not None else "")


def jpeg_xmp(label: Label) -> tuple[bytes, bytes]:
    """The same for JPEG files: (the main packet, the rest, b"" unless our JSON is too long for one segment); see ``segments``."""
    whole = xmp(label)
    if len(whole) <= FITS:
        return whole, b""
    rest = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        f'  <rdf:Description rdf:about=""{_ours(label)}/>\n'
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
    ).encode()
    note = f'\n    xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{digest(rest)}"'
    return _packet(label, note), rest


def _ours(label: Label) -> str:
    """Our JSON as a property."""
    return f"\n    xmlns:chashka={quoteattr(NAMESPACE)} chashka:request={_attribute(label.own or '')}"


def _packet(label: Label, more: str) -> bytes:
    """more: properties beyond those that every file has. A file that somebody changed may say a longer prompt than fits."""
    prompt = html.escape(printable(label.prompt[:LONGEST_PROMPT]), quote=False)
    tool = f"    xmp:CreatorTool={_attribute(label.tool)}\n" if label.tool else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about=""\n'
        '    xmlns:xmp="http://ns.adobe.com/xap/1.0/"\n'
        '    xmlns:dc="http://purl.org/dc/elements/1.1/"\n'
        '    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"\n'
        f"{tool}"
        f'    Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}{label.kind}"{more}>\n'
        f'   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{prompt}</rdf:li></rdf:Alt></dc:description>\n'
        "  </rdf:Description>\n"
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    ).encode()


def label_of(picture: Picture) -> Label:
    """The label of a picture that was drawn here."""
    kind = COMPOSED if picture.edited else TRAINED
    return Label(kind, picture.request.prompt, own_json(picture), a1111_parameters(picture))


def own_json(picture: Picture) -> str:
    """:func:`describe` as JSON."""
    return compact(describe(picture))


def exif_block(label: Label) -> Image.Exif:
    """EXIF with the A1111 text as UserComment (``UNICODE`` and UTF-16, big endian) and our name as Software."""
    exif = Image.Exif()
    if label.tool:
        exif[SOFTWARE] = label.tool
    if label.parameters is not None:
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + label.parameters.encode("utf-16-be")
    return exif


def read_metadata(path: str | Path | bytes) -> dict[str, Any] | None:
    """Our metadata in a PNG, JPEG, WebP or SVG file, of its path or its bytes, as :func:`describe` gives it; None if it has none.

    Raises FileError if the file cannot be opened as a picture.
    """
    return own_values(told(path))


def enlarged_label(path: str | Path, by: int, model: str, size: tuple[int, int]) -> Label:
    """The label of the picture in ``path`` for what ``model`` made of it, ``by`` times as large: (width, height) now.

    What the file says of how it was drawn stays, with one entry more in our list ``upscaled``. The mark that a trained
    model made it, or a part of it, stays whoever set it; any other picture is marked as altered by an algorithm. Raises
    FileError as :func:`read_metadata`.
    """
    said = told(path)
    found = _MARK.search(said.packet)
    own = own_values(said)
    if own is None:
        return Label(found.group(1) if found else ALTERED)
    before = own.get("upscaled")
    step = {"by": by, "model": model}
    text = compact(own | {"upscaled": [*(before if isinstance(before, list) else []), step]})
    request = own.get("request")
    prompt = request.get("prompt") if isinstance(request, dict) else None
    kind = found.group(1) if found else COMPOSED if own.get("sources") else TRAINED
    parameters = None
    if said.parameters is not None and len(said.parameters) <= _LONGEST_PARAMETERS:
        before_last, line, last = said.parameters.rpartition("\n")  # prompts may say anything
        parameters = before_last + line + _SIZE.sub(f"Size: {size[0]}x{size[1]}", last)
    label = Label(kind, prompt if isinstance(prompt, str) else "", text, parameters)
    return label if can_be_written(label) else Label(kind)


def can_be_written(label: Label) -> bool:
    """Whether a label that a file brought fits into files again: anything can stand in a file."""
    try:
        sizes = [len(xmp(label)), *(len((text or "").encode()) for text in (label.own, label.parameters))]
        return max(sizes) <= _LONGEST_XMP
    except UnicodeEncodeError:
        return False


def compact(values: dict[str, Any]) -> str:
    """JSON with sorted keys; letters stay letters."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def told(path: str | Path | bytes) -> Told:
    """What a PNG, JPEG, WebP or SVG file says, as it stands there: of its path, or its bytes. Raises FileError."""
    try:
        if isinstance(path, bytes):
            return _svg_told(path) if svg_bytes(path) else _picture_told(io.BytesIO(path))
        if Path(path).suffix.lower() == ".svg":
            with Path(path).open("rb") as file:
                return _svg_told(file.read(2 * _LONGEST_XMP))
        return _picture_told(path)
    except Exception as error:  # see reading.py: Pillow raises nearly anything
        name = "the picture" if isinstance(path, bytes) else repr(str(path))
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise FileError(f"cannot read {name}: {reason}") from error


def svg_bytes(data: bytes) -> bool:
    """Whether a file is SVG as it is written here."""
    return data.startswith(b"<?xml") and b"<svg " in data[:200]


def own_values(said: Told) -> dict[str, Any] | None:
    """Our metadata among what a file says; None if there are none."""
    text = said.text
    if text is None:
        found = _OURS.search(said.packet)
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


def _picture_told(path: str | Path | BinaryIO) -> Told:
    """Of a PNG, JPEG or WebP file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            text, parameters = image.info.get(CHUNK), image.info.get("parameters")
            packet = image.info.get("xmp") or image.info.get(XMP_CHUNK) or b""
            main = packet if isinstance(packet, str) else packet.decode("utf-8", "replace")
            rest = rest_in(image, main).decode("utf-8", "replace")
            if parameters is None:
                with contextlib.suppress(Exception):  # damaged EXIF is no reason to refuse a picture
                    comment = image.getexif().get_ifd(EXIF_IFD)[USER_COMMENT]
                    parameters = comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    # the rest comes first: what the main packet says of the prompt may look like a property of ours
    return Told(text, (rest + main)[:_LONGEST_XMP], parameters if isinstance(parameters, str) else None)


def _svg_told(data: bytes) -> Told:
    """Of an SVG file of ours; the title before its metadata cannot hold a tag, so none is mistaken for it."""
    start = data[: 2 * _LONGEST_XMP].decode("utf-8", "replace")
    return Told(None, start.partition("<metadata>")[2][:_LONGEST_XMP], None)


def _quoted(value: str) -> str:
    """A1111's rule: values with a comma, a colon or a line break are JSON strings."""
    return json.dumps(value, ensure_ascii=False) if any(c in value for c in ",:\n") else value


def _attribute(text: str) -> str:
    return '"' + html.escape(printable(text), quote=True).replace("\n", "&#10;") + '"'
