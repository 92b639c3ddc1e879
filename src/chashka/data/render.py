"""Drawings → premultiplied RGBA at the model's resolution.

Emoji stand on their page as their set has put them, with a margin of 4 % on each side. Clip art stands anywhere on pages of any
size: it is drawn small to find where it is, then at the final size, filling nine tenths of the square. SVG is always
drawn straight from the curves. System fonts are never used, so that every machine draws the same. Needs the extra [train]
(``resvg_py``).
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from chashka.data.drawings import MARGIN
from chashka.errors import MissingExtraError

Array: TypeAlias = npt.NDArray[Any]

FILL = 0.90
"""Share of the square's side that the longer side of a clip takes."""
LEAST_COVER = 0.02
"""Share of the pixels that a drawing must touch."""
LEAST_CONTRAST = 3.0
"""Standard deviation of a clip over grey (0 to 255) below which nothing can be seen."""
LEAST_RASTER = 0.75
"""Rasters smaller than this share of their place are refused: they would be blurred."""
_PROBE = 128
_SVG = "http://www.w3.org/2000/svg"
# CSS pixels in one unit of length
_UNITS = {"px": 1.0, "": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0, "em": 16.0}


class NotDrawn(Exception):  # noqa: N818 (an outcome, counted by its message, not a failure)
    """A drawing gave no usable picture; the message is the reason, the same for all drawings with that reason."""


def require_renderer() -> None:
    """Raise MissingExtraError unless SVG files can be drawn here."""
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise MissingExtraError("train", "drawing SVG files") from None


def render(payload: str | bytes, size: int, free: bool = False) -> Array:
    """SVG text, or an encoded raster with alpha → uint8 (size, size, 4), premultiplied.

    ``free``: find the drawing on its page (clip art), else take the page, which is square, as it is. Raises NotDrawn with the
    reason; a panic of the renderer is such a reason.
    """
    if isinstance(payload, bytes):
        straight = _raster(payload, size)
    elif free:
        straight = _clip(payload, size)
    else:
        straight = _resvg(payload.replace("<svg ", f'<svg width="{size}" height="{size}" ', 1))
    if straight.shape != (size, size, 4):
        raise NotDrawn("not square")
    pixels = premultiply(straight)
    if (pixels[..., 3] > 0).mean() < LEAST_COVER:
        raise NotDrawn("nearly empty")
    over_grey = pixels[..., :3] + (255 - pixels[..., 3:].astype(np.float32)) * 0.5
    if free and over_grey.std() < LEAST_CONTRAST:
        raise NotDrawn("nearly one colour")
    return pixels


def premultiply(straight: Array) -> Array:
    """uint8 (H, W, 4) straight alpha → premultiplied, rounded to nearest."""
    wide = straight.astype(np.uint16)
    wide[..., :3] = (wide[..., :3] * wide[..., 3:] + 127) // 255
    return wide.astype(np.uint8)


def _clip(text: str, size: int) -> Array:
    root = _parse(text)
    page = _page(root)
    side = max(page[2:])
    x, y = page[0] + page[2] / 2, page[1] + page[3] / 2
    # Twice: on a large page the first look is too coarse for a small drawing.
    for _ in range(2):
        view = (x - side / 2, y - side / 2, side, side)
        box = Image.fromarray(_draw(root, page, view, _PROBE)[..., 3]).point([0] * 8 + [255] * 248).getbbox()
        if box is None:
            raise NotDrawn("nearly empty")
        unit = side / _PROBE
        x, y = view[0] + (box[0] + box[2]) / 2 * unit, view[1] + (box[1] + box[3]) / 2 * unit
        extent = max(box[2] - box[0], box[3] - box[1]) * unit
        side = extent + 2 * unit
    side = extent / FILL
    return _draw(root, page, (x - side / 2, y - side / 2, side, side), size)


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
    return _resvg(ET.tostring(outer, encoding="unicode"))


def _resvg(svg: str) -> Array:
    """uint8 (H, W, 4), straight alpha, at the size that the SVG itself asks for."""
    import resvg_py

    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # the renderer's panics (pyo3's PanicException) are no Exception
        raise NotDrawn("cannot be rendered") from None
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def _raster(data: bytes, size: int) -> Array:
    """Fitted into the square with a margin. A few rasters are 3 % higher than wide; they are squeezed."""
    border = round(MARGIN * size)
    inner = size - 2 * border
    try:
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except (OSError, SyntaxError, ValueError):
        raise NotDrawn("not a readable raster") from None
    if min(image.size) < LEAST_RASTER * inner:
        raise NotDrawn("raster too small")
    square = Image.new("RGBA", (size, size))
    # Pillow resizes RGBA premultiplied: colours of hidden pixels do not bleed into the edges.
    square.paste(image.resize((inner, inner), Image.Resampling.LANCZOS), (border, border))
    return np.asarray(square)
