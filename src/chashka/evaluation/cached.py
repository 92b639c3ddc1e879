"""Pictures that are drawn once: a folder of PNG files named by what they were drawn with, so that a long report can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from chashka.errors import FileError
from chashka.evaluation.drawing import Float, settings, weights_of
from chashka.families import Bundle
from chashka.generate import draw
from chashka.images import to_network
from chashka.request import Request

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Order:
    """One prompt to be drawn ``n`` times with a seed."""

    text: str
    seed: int
    n: int = 1


class DrawnPictures:
    """Draws with ``bundle`` and keeps what it drew in ``folder``; ``fields`` of the request, None is the model's."""

    def __init__(self, bundle: Bundle, folder: Path, **fields: Any) -> None:
        self.bundle, self.folder = bundle, folder
        self.fields = {name: value for name, value in fields.items() if value is not None}
        self.weights = weights_of(bundle)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write pictures into {str(folder)!r}: {error.strerror or error}") from error

    def request(self, order: Order) -> Request:
        """Raises InputError for a field that is wrong."""
        return self.bundle.request(prompt=order.text, seed=order.seed, n=order.n, **self.fields)

    def settings(self) -> dict[str, Any]:
        """How all pictures are drawn."""
        return settings(self.request(Order("-", 0)))

    def __call__(self, order: Order, on_picture: Callable[[], object] | None = None) -> Float:
        """float32 (n, 4, H, W), premultiplied in [-1, 1]: drawn now, or read where it was drawn before."""
        request = self.request(order)
        paths = [self.folder / f"{self._name(request)}-{i}.png" for i in range(order.n)]
        if not all(path.is_file() for path in paths):
            for path, picture in zip(paths, draw(self.bundle, request), strict=True):
                _write(path, picture.pixels)
        pixels: Float = to_network(np.stack([_read(path) for path in paths]))
        for _ in paths:
            if on_picture is not None:
                on_picture()
        return pixels

    def _name(self, request: Request) -> str:
        said = json.dumps([self.bundle.model, self.weights, request.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:24]


def _write(path: Path, pixels: Pixels) -> None:
    part = path.with_suffix(".part")
    try:
        Image.fromarray(pixels).save(part, format="PNG")
        part.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def _read(path: Path) -> Pixels:
    try:
        return np.asarray(Image.open(path).convert("RGBA"), np.uint8)
    except (OSError, UnidentifiedImageError) as error:
        raise FileError(f"{path}: a damaged picture of an earlier run; delete it and call again") from error


def all_drawn(drawn: DrawnPictures, orders: Sequence[Order], on_picture: Callable[[], object] | None = None) -> Float:
    """The pictures of all orders, one after another."""
    return np.concatenate([drawn(order, on_picture) for order in orders])
