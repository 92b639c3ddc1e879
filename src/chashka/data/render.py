"""Drawings → premultiplied RGBA at the model's resolution, filling about nine tenths of the square.

SVG is drawn twice: small, to find where the drawing stands on its page, then at the final size straight from the curves.
Rasters are only ever made smaller. Needs the extra [train] (``resvg_py``).
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from chashka.errors import MissingExtraError

Array: TypeAlias = npt.NDArray[Any]

FILL = 0.90
"""Share of the square's side that the longer side of a drawing takes."""
MAX_ZOOM = 1.3
"""A drawing that is small on its page (a dot, a small star) is not enlarged beyond this, so that it stays small."""
LEAST_RASTER = 200
"""Rasters whose longer side is smaller than this are refused: they would be blurred."""
LEAST_COVER = 0.02
LEAST_CONTRAST = 3.0
_PROBE = 128
_SVG = "http://www.w3.org/2000/svg"
# CSS pixels in one unit of length
_UNITS = {"px": 1.0, "": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "em": 16.0}


class NotDrawn(Exception):  # noqa: N818 (an outcome, counted by its message, not a failure)
    """A drawing gave no usable picture; the message is the reason, the same for all drawings with that reason."""


def render(payload: str | bytes, size: int, free: bool = False) -> Array:
    """SVG text, or an encoded raster with alpha → uint8 (size, size, 4), premultiplied.

    ``free`` lifts the limit on enlarging a small drawing. Raises NotDrawn with the reason.
    """
    straight = _svg(payload, size, free) if isinstance(payload, str) else _raster(payload, size)
    pixels = premultiply(straight)
    if (pixels[..., 3] > 16).mean() < LEAST_COVER:
        raise NotDrawn("nearly empty")
    over_grey = pixels[..., :3] + (255 - pixels[..., 3:].astype(np.float32)) * 0.5
    if over_grey.std() < LEAST_CONTRAST:
        raise NotDrawn("nearly one colour")
    return pixels


def premultiply(straight: Array) -> Array:
    """uint8 (H, W, 4) straight alpha → premultiplied, rounded to nearest."""
    wide = straight.astype(np.uint16)
    wide[..., :3] = (wide[..., :3] * wide[..., 3:] + 127) // 255
    return wide.astype(np.uint8)


def _svg(text: str, size: int, free: bool) -> Array:
    root = _parse(text)
    page = _page(root)
    probe = _draw(root, page, page, _PROBE)
    box = Image.fromarray(probe[..., 3]).point([0] * 8 + [255] * 248).getbbox()
    if box is None:
        raise NotDrawn("nearly empty")
    left, top, width, height = page
    scale = max(width, height) / _PROBE
    # The probe shows the page centred in a square.
    x0, y0 = left - (max(width, height) - width) / 2, top - (max(width, height) - height) / 2
    side = max(box[2] - box[0], box[3] - box[1]) * scale / FILL
    if not free:
        side = max(side, max(width, height) / FILL / MAX_ZOOM)
    x = x0 + (box[0] + box[2]) / 2 * scale - side / 2
    y = y0 + (box[1] + box[3]) / 2 * scale - side / 2
    return _draw(root, page, (x, y, side, side), size)


def _parse(text: str) -> ET.Element:
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        raise NotDrawn("not well-formed") from None
    if root.tag != f"{{{_SVG}}}svg":
        raise NotDrawn("no SVG")
    for element in root.iter():
        if element.tag == f"{{{_SVG}}}image":
            raise NotDrawn("has a raster inside")
        if element.tag == f"{{{_SVG}}}text" and "".join(element.itertext()).strip():
            raise NotDrawn("has text inside")
    return root


def _page(root: ET.Element) -> tuple[float, float, float, float]:
    """left, top, width, height of the page in user units: the viewBox, else the size."""
    numbers = root.get("viewBox", "").replace(",", " ").split()
    try:
        if len(numbers) == 4:
            page = (float(numbers[0]), float(numbers[1]), float(numbers[2]), float(numbers[3]))
        else:
            page = (0.0, 0.0, _length(root.get("width", "")), _length(root.get("height", "")))
    except ValueError:
        raise NotDrawn("no page size") from None
    if not (page[2] > 0 and page[3] > 0):
        raise NotDrawn("no page size")
    return page


def _length(text: str) -> float:
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyz%")
    unit = text.strip()[len(number) :]
    if unit not in _UNITS:
        raise ValueError(text)
    return float(number) * _UNITS[unit]


def _draw(
    root: ET.Element, page: tuple[float, float, float, float], view: tuple[float, float, float, float], size: int
) -> Array:
    """uint8 (size, size, 4), straight alpha: the part ``view`` of the drawing, clipped to its page."""
    try:
        import resvg_py
    except ImportError:
        raise MissingExtraError("train", "drawing SVG files") from None
    inner = ET.Element(root.tag, dict(root.attrib))
    inner.extend(root)
    for key, value in zip(("x", "y", "width", "height"), page, strict=True):
        inner.set(key, repr(value))
    inner.set("viewBox", " ".join(map(repr, page)))
    inner.set("overflow", "hidden")
    outer = ET.Element(
        f"{{{_SVG}}}svg", {"viewBox": " ".join(map(repr, view)), "width": str(size), "height": str(size)}
    )
    outer.append(inner)
    text = ET.tostring(outer, encoding="unicode")
    try:
        png = resvg_py.svg_to_bytes(svg_string=text, width=size, height=size, skip_system_fonts=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # the renderer's panics are no Exception
        raise NotDrawn("cannot be rendered") from None
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def _raster(data: bytes, size: int) -> Array:
    """Cut to the drawing, shrunk where it is too large, centred."""
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    if max(image.size) < LEAST_RASTER:
        raise NotDrawn("raster too small")
    box = image.getchannel("A").point([0] * 8 + [255] * 248).getbbox()
    if box is None:
        raise NotDrawn("nearly empty")
    cut = image.crop(box)
    shrink = min(1.0, FILL * size / max(cut.size))
    if shrink < 1:
        # "RGBa" is premultiplied: colours of hidden pixels must not bleed into the edges.
        to = (max(1, round(cut.width * shrink)), max(1, round(cut.height * shrink)))
        cut = cut.convert("RGBa").resize(to, Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (size, size))
    square.paste(cut, ((size - cut.width) // 2, (size - cut.height) // 2))
    return np.asarray(square)
