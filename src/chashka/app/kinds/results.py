"""Finished pictures as the worker publishes them: the file's bytes, a thumbnail, what is known of it; and small previews.

Nothing here depends on the time or the machine: the same picture is the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chashka import images
from chashka.app.compute.runner import Made
from chashka.app.jobs import NewPicture
from chashka.app.keeping.marks import dhash
from chashka.images.writing import encode

if TYPE_CHECKING:
    from chashka.families import Bundle
    from chashka.generate import Progress
    from chashka.request import Picture

THUMBNAIL = 256
"""Pixels of a thumbnail's longer side at most."""
PAUSE = 0.2
"""Seconds between previews, at least."""
PNG, SVG = "image/png", "image/svg+xml"


def made(picture: Picture, index: int) -> Made:
    """A drawn picture as a PNG file. index: its number in the job."""
    from chashka.images.metadata import describe, label_of

    data = encode(picture.pixels, label_of(picture), Path("picture.png"))
    return made_of(picture.pixels, data, PNG, index, describe(picture))


def made_of(
    pixels: NDArray[np.uint8], data: bytes, media_type: str, index: int, metadata: Mapping[str, Any], model: str = ""
) -> Made:
    """A file with what its ``metadata`` (``images.describe``) say of it. model: that made it, if they say none."""
    request = metadata.get("request")
    asked: Mapping[str, Any] = request if isinstance(request, Mapping) else {}
    seed = metadata.get("seed")
    small = thumbnail(pixels)
    return Made(
        NewPicture(
            index=index,
            sha256=hashlib.sha256(data).hexdigest(),
            thumbnail=hashlib.sha256(small).hexdigest(),
            media_type=media_type,
            width=int(pixels.shape[1]),
            height=int(pixels.shape[0]),
            bytes=len(data),
            dhash=dhash(pixels),
            prompt=_text(asked.get("prompt")),
            negative_prompt=_text(asked.get("negative_prompt")),
            model=_text(metadata.get("model")) or model,
            family=_text(metadata.get("family")),
            seed=seed if isinstance(seed, int) and 0 <= seed < 2**63 else None,
            metadata=dict(metadata),
        ),
        data,
        small,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A small WebP of uint8 (H, W, 3 or 4)."""
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    return webp(images.resize(pixels, max(round(width * scale), 1), max(round(height * scale), 1)))


def webp(pixels: NDArray[np.uint8], quality: int = 80) -> bytes:
    """The bytes of a WebP of uint8 (H, W, 3 or 4)."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


class Previews:
    """What is being drawn, small, now and then. shift: from a picture's number of its seed to its number in the job."""

    def __init__(self, bundle: Bundle, background: str, shift: int) -> None:
        self._codec, self._background, self._shift = bundle.codec, background, shift
        self._last = -PAUSE

    def of(self, progress: Progress) -> dict[int, bytes]:
        """WebP by number; nothing if the last ones came a moment ago."""
        now = time.monotonic()
        if now - self._last < PAUSE:
            return {}
        self._last = now
        rows = images.from_network(np.asarray(self._codec.preview(progress.step.denoised)))
        return {
            progress.first + row + self._shift: webp(images.on_colour(pixels, self._background), 70)
            for row, pixels in enumerate(rows)
        }
