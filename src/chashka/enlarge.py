"""Larger pictures: a model's upscaler doubles them, tile by tile where they are large, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.errors import EngineError, InputError, WeightsError
from chashka.families.family import Bundle, Upscaler

FACTORS = {2: 1, 4: 2}
"""How many times the width and height grow → how often they are doubled."""
LONGEST = 4096
"""Pixels of the result's sides at most."""
TILE = 512
"""Sides of what the network is given at once: half a gigabyte of memory, and no shape to compile but this one."""
MULTIPLE = 32
"""Smaller pictures are filled up to multiples of this: engines compile once for every shape that they meet."""
ROWS = 256
"""Rows that are turned into bytes at once."""


def upscale(model: Bundle, pixels: NDArray[np.uint8], by: int = 2) -> NDArray[np.uint8]:
    """uint8 (H, W, 4), straight alpha, or (H, W, 3) → ``by`` times (2 or 4) as high and as wide, with as many channels.

    4 is 2 twice. A picture that is opaque everywhere stays so. Raises InputError for another factor and for a result with
    a side above 4096 pixels, WeightsError where the model has no upscaler, EngineError.
    """
    run = steps(model, pixels, by)
    while True:
        try:
            next(run)
        except StopIteration as finished:
            larger: NDArray[np.uint8] = finished.value
            return larger


def steps(model: Bundle, pixels: NDArray[np.uint8], by: int = 2) -> Generator[tuple[int, int], None, NDArray[np.uint8]]:
    """:func:`upscale` with (done, total) after every tile, so that progress and stopping are the caller's own loop."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (3, 4) or not pixels.size:
        raise InputError(
            f"pixels: {pixels.dtype} {pixels.shape} is not possible; allowed: uint8 (H, W, 4) or (H, W, 3), not empty"
        )
    height, width, channels = pixels.shape
    check(by, width, height)
    if model.upscaler is None:
        raise WeightsError(
            f"model {model.model!r} has no upscaler (its component 'upscaler'); train one with chashka train upscale and "
            "give it to chashka export --upscaler"
        )
    opaque = channels == 3 or int(pixels[..., 3].min()) == 255
    values = images.to_network(pixels)
    tiles = [_tiles(model.upscaler, height << times, width << times) for times in range(FACTORS[by])]
    done, total = 0, sum(map(len, tiles))
    for places in tiles:
        for values in _doubled(model.upscaler, values, places):  # noqa: B007, B020  (the last one is the whole)
            done += 1
            yield done, total
        if opaque:
            values[3] = 1.0
        np.minimum(values[:3], values[3:], out=values[:3])  # premultiplied: no colour is brighter than its alpha
    out = np.empty((*values.shape[1:], channels), np.uint8)
    for top in range(0, len(out), ROWS):
        out[top : top + ROWS] = images.from_network(values[:, top : top + ROWS])[..., :channels]
    return out


def check(by: int, width: int | None = None, height: int | None = None) -> None:
    """Raises InputError for a factor other than 2 and 4, and for a picture of this size that would become too large."""
    if by not in FACTORS:
        raise InputError(f"by: {by} is not possible; allowed: {' or '.join(map(str, FACTORS))}")
    if width is not None and height is not None and by * max(width, height) > LONGEST:
        raise InputError(
            f"picture: {width}x{height} pixels would become {by * width}x{by * height}; allowed: at most {LONGEST} on each "
            f"side, so that a picture for by={by} has at most {LONGEST // by}"
        )


Span: TypeAlias = tuple[int, int, int]


def _tiles(upscaler: Upscaler, height: int, width: int) -> list[tuple[Span, Span]]:
    """(rows, columns) of each tile of a picture of this size."""
    tile = max(TILE, 4 * upscaler.reach)
    rows, columns = (-(-side // MULTIPLE) * MULTIPLE for side in (height, width))
    return [(y, x) for y in _spans(rows, tile, upscaler.reach) for x in _spans(columns, tile, upscaler.reach)]


def _doubled(
    upscaler: Upscaler, values: NDArray[np.float32], places: list[tuple[Span, Span]]
) -> Iterator[NDArray[np.float32]]:
    """(4, H, W) → (4, 2H, 2W) in [-1, 1], whole after the last tile. Tiles overlap by what the network sees, so that they give
    what the whole gives."""
    _, height, width = values.shape
    room = ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE))
    padded = np.pad(values, room, mode="edge")
    out = np.empty((4, 2 * padded.shape[1], 2 * padded.shape[2]), np.float32)
    for number, ((y, rows, skip_y), (x, columns, skip_x)) in enumerate(places, 1):
        part = upscaler.enlarge(padded[None, :, y : y + rows, x : x + columns])[0]
        if not np.isfinite(part).all():
            raise EngineError("the upscaler produced numbers that are not finite; try precision f32")
        kept = part[:, 2 * skip_y :, 2 * skip_x :]
        out[:, 2 * (y + skip_y) : 2 * (y + rows), 2 * (x + skip_x) : 2 * (x + columns)] = kept
        yield out if number < len(places) else np.clip(out[:, : 2 * height, : 2 * width], -1, 1)


def _spans(extent: int, tile: int, reach: int) -> Iterator[Span]:
    """(first, pixels, pixels to skip) of each tile along one side.

    Where a tile begins inside of the picture its first ``reach`` pixels do not count; its last ones are written over by the
    next tile, which begins 2·``reach`` before its end.
    """
    size = min(tile, extent)
    first = 0
    while True:
        yield first, size, reach if first else 0
        if first + size >= extent:
            return
        first = min(first + size - 2 * reach, extent - size)
