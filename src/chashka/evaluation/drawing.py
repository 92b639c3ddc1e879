"""Draws the fixed prompts, each with its own seed, and says what they were drawn with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.checkpoints.safetensors_file import layout
from chashka.errors import FileError, InputError
from chashka.evaluation.prompts import PROMPTS, Prompt
from chashka.families import Bundle
from chashka.generate import draw
from chashka.images import to_network
from chashka.request import Picture, Request

Float: TypeAlias = npt.NDArray[np.float32]
SMALL = 64
"""Side of the pictures that are compared, in pixels, and what the image tower sees."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A prompt and a picture of it, drawn with its seed."""

    prompt: Prompt
    picture: Picture


def draw_prompts(
    bundle: Bundle,
    prompts: Sequence[Prompt] = PROMPTS,
    *,
    on_picture: Callable[[], object] | None = None,
    **fields: Any,
) -> list[Drawing]:
    """The pictures of every prompt, each with its own seed. ``on_picture`` is called after each.

    ``fields``: of the request (steps, guidance_scale, n, …); None is the model's. Raises InputError for a field that is
    wrong, and what ``generate`` raises.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    requests = [bundle.request(prompt=prompt.text, seed=prompt.seed, **given) for prompt in prompts]
    drawings = []
    for prompt, request in zip(prompts, requests, strict=True):
        for picture in draw(bundle, request):
            drawings.append(Drawing(prompt, picture))
            if on_picture is not None:
                on_picture()
    return drawings


def settings(request: Request) -> dict[str, Any]:
    """How pictures were drawn: the fields that pictures of other prompts share, without those that nobody changed."""
    own = ("prompt", "seed", "n", "first")
    return {k: v for k, v in request.model_dump(exclude_none=True, exclude_defaults=True).items() if k not in own}


def weights_of(bundle: Bundle) -> dict[str, str]:
    """File name → sha256 of the weights that a bundle was opened from; empty for a bundle without files."""
    try:
        return {
            name: hashlib.sha256((bundle.preset.place / name).read_bytes()).hexdigest()
            for name in sorted(bundle.preset.weights)
        }
    except OSError as error:
        raise FileError(f"cannot read {str(error.filename)!r}: {error.strerror}") from error


def left_out(bundle: Bundle) -> tuple[str, ...]:
    """The sources that the denoising network's recipe leaves to judges; none where its file does not say."""
    path = bundle.preset.place / "unet.safetensors"
    if not path.is_file():
        return ()
    recipe = json.loads(layout(path)[1].get("recipe", "{}"))
    return tuple(recipe.get("without", ()))


def shrunk(network: Float, size: int = SMALL) -> Float:
    """float32 (B, 4, H, W) → (B, 4, size, size) by averaging. Raises InputError unless H = W is a multiple of ``size``."""
    b, c, height, width = network.shape
    if height != width or height % size:
        raise InputError(
            f"size: {width}x{height} cannot be compared; allowed: squares with a side that is a multiple of {size}"
        )
    factor = height // size
    small: Float = network.reshape(b, c, size, factor, size, factor).mean(axis=(3, 5), dtype=np.float32)
    return small


def network_pixels(drawings: Sequence[Drawing]) -> Float:
    """The drawn pictures as networks see them: float32 (B, 4, H, W), premultiplied in [-1, 1]."""
    pixels: Float = to_network(np.stack([drawing.picture.pixels for drawing in drawings]))
    return pixels
