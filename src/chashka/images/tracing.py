"""Pictures as curves: colours reduced to a few, each shape traced (vtracer), and the SVG file around them.

An SVG file says the same about itself as a PNG: our JSON and the IPTC digital source type, both in the XMP packet of its
``<metadata>``. Needs the extra [svg].
"""

from __future__ import annotations

import html
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import chashka
from chashka.errors import MissingExtraError
from chashka.images.metadata import Label, printable, xmp
from chashka.images.pixels import resize

COLOURS = 16
"""A traced picture has so many colours at most: more give shapes that only noise separates."""
NEAR = 16
"""Colours whose channels all differ by less (of 255) become one."""
VISIBLE = 128
"""Alpha from here on is drawn, and in full: a traced shape has one opaque colour."""
LONGEST = 1024
"""Pixels of a side at which a picture is traced, at most: larger ones take minutes, and models draw no such detail."""
SPECKLE = 4
"""Shapes of fewer than so many pixels squared belong to what is around them."""
_SAMPLE = 16_384
_KEY = (255, 0, 255)
_PATH = re.compile(r"<path [^<>]*/>")


def require_tracer() -> None:
    """Raise MissingExtraError unless SVG files can be written here."""
    try:
        import vtracer  # noqa: F401
    except ImportError:
        raise MissingExtraError("svg", "writing SVG files") from None


def svg_document(pixels: NDArray[np.uint8], label: Label | None) -> bytes:
    """uint8 (H, W, 3 or 4), straight alpha → an SVG file; what is transparent stays empty. label: what it says, None: nothing.

    Its size in pixels is that of ``pixels``. Equal pictures give equal files. Raises MissingExtraError without vtracer.
    """
    require_tracer()
    height, width = pixels.shape[:2]
    # at twice its size the soft edge between two pixels has a place
    scale = min(2.0, LONGEST / max(height, width))
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    paths = _trace(reduce_colours(resize(pixels, columns, rows), palette_of(pixels)), max(1.0, scale))
    about = [] if label is None else about_lines(label, width, height)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="{width}" height="{height}"'
        f' viewBox="0 0 {columns} {rows}" preserveAspectRatio="none">',
        *about,
        *paths,
        "</svg>\n",
    ]
    return "\n".join(lines).encode()


def about_lines(label: Label, width: int, height: int) -> list[str]:
    """What an SVG file says, as its elements ``title``, ``desc`` and ``metadata``. width, height: of the traced picture."""
    title = html.escape(printable(label.prompt), quote=False) or "Picture"
    about = f"Traced from {width}x{height} pixels with chashka {chashka.__version__}."
    return [
        f"<title>{title}</title>",
        f"<desc>{html.escape(printable(about), quote=False)}</desc>",
        "<metadata>",
        xmp(label).decode(),
        "</metadata>",
    ]


def palette_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3 or 4) → (n, 3), n at most 16: what is visible, the commonest first, none near a commoner one."""
    colours = pixels[_visible(pixels)][:, :3]
    if not len(colours):
        return np.zeros((0, 3), np.uint8)
    sample = np.ascontiguousarray(colours[:: -(-len(colours) // _SAMPLE)])
    indexed = Image.fromarray(sample[None]).quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=1)
    numbers = np.asarray(indexed)[0]
    counts = np.bincount(numbers)
    kept: list[NDArray[np.uint8]] = []
    for number in np.argsort(-counts, kind="stable"):
        if not counts[number]:
            break
        # the median: a flat area keeps its very colour, whatever the pixels at its edges are
        colour = np.median(sample[numbers == number], axis=0).astype(np.uint8)
        if all(np.abs(colour.astype(np.int16) - other).max() >= NEAR for other in kept):
            kept.append(colour)
    palette = np.stack(kept)
    # vtracer marks what is transparent with a strong colour that the picture lacks, a random one if it has them all
    palette[(palette == _KEY).all(axis=1), 1] = 1
    return palette


def reduce_colours(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3 or 4) → (H, W, 4) in the colours of a palette (n, 3); alpha is 0 or 255, and colour is 0 where alpha is.

    Without this step the tracer joins whatever soft transitions connect, and a cup loses what is inside it.
    """
    shown = _visible(pixels)
    out = np.zeros((*pixels.shape[:2], 4), np.uint8)
    colours = pixels[shown][:, :3]
    if len(colours) and len(palette):
        nearest = np.zeros(len(colours), np.intp)
        least = np.full(len(colours), np.iinfo(np.int32).max, np.int32)
        for number, colour in enumerate(palette.astype(np.int32)):
            distance = ((colours - colour) ** 2).sum(axis=1, dtype=np.int32)
            closer = distance < least
            nearest[closer], least[closer] = number, distance[closer]
        out[shown] = np.concatenate([palette[nearest], np.full((len(colours), 1), 255, np.uint8)], axis=1)
    return out


def _visible(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return pixels[..., 3] >= VISIBLE if pixels.shape[-1] == 4 else np.ones(pixels.shape[:2], dtype=np.bool_)


def _trace(pixels: NDArray[np.uint8], scale: float) -> list[str]:
    """The ``<path>`` elements, the lowest first, of uint8 (H, W, 4) with alpha 0 or 255, enlarged ``scale`` times."""
    import vtracer

    width = pixels.shape[1]
    if not pixels[..., 3].all():
        # vtracer leaves transparent parts empty only if enough of a few rows is transparent; a margin makes that certain
        pixels = np.pad(pixels, ((0, 0), (0, width // 8 + 1), (0, 0)))
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", compress_level=1)
    traced = vtracer.convert_raw_image_to_svg(
        png.getvalue(),
        img_format="png",
        colormode="color",
        hierarchical="stacked",  # shapes lie on each other, so that no seam shows between them
        mode="spline",
        filter_speckle=round(SPECKLE * scale),
        color_precision=8,
        layer_difference=0,
        length_threshold=4 * scale,
        path_precision=0 if scale >= 2 else 1,
    )
    return _PATH.findall(traced)
