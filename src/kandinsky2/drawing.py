"""What the objects of all versions share: a bundle, and the way from their words to pictures."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chashka.errors import InputError
from kandinsky2.opening import warn_once

if TYPE_CHECKING:
    from PIL.Image import Image

    from chashka.families import Bundle
    from chashka.request import Inputs

CELL = 8
"""Pixels per latent of the published models."""
SAMPLERS = {"p_sampler": "p_sampler", "ddim_sampler": "ddim", "plms_sampler": "plms"}
KNOWN = frozenset(
    [
        "batch_size",
        "ddim_eta",
        "decoder_guidance_scale",
        "decoder_steps",
        "denoised_type",
        "dynamic_threshold_v",
        "guidance_scale",
        "h",
        "negative_decoder_prompt",
        "negative_prior_prompt",
        "num_steps",
        "prior_cf_scale",
        "prior_guidance_scale",
        "prior_steps",
        "progress",
        "sampler",
        "strength",
        "w",
    ]
)
"""Every keyword of some version; one that is given to another version is said to have no effect there."""
CALLED = {"n": "batch_size", "steps": "num_steps", "eta": "ddim_eta"}
"""chashka's fields by the names that they have here, for messages."""


class Drawer:
    """A model and its task. ``seed`` is ours in all methods: an integer for pictures that can be had again."""

    def __init__(self, bundle: Bundle, task_type: str = "text2img") -> None:
        self.bundle = bundle
        self.task_type = task_type

    @property
    def published(self) -> bool:
        """Whether the published weights draw, or the small model inside the package."""
        return self.bundle.preset.free > 0

    def _draw(
        self, fields: dict[str, Any], inputs: Inputs | None, size: tuple[int, int], progress: bool, seed: int | None
    ) -> list[Image]:
        """Pictures of ``size`` (width, height), which are rounded up to 64 inside and cut, as the originals do."""
        from chashka.generate import draw

        wide, high = (-(-int(side) // 64) * 64 for side in size)
        numbers = {"compat": "original"} if self.published else {}
        chosen = secrets.randbelow(2**32) if seed is None else seed
        fields = {**fields, **numbers, "width": wide, "height": high, "seed": chosen, "background": "white"}
        try:
            request = self.bundle.request(**fields)
        except InputError as error:
            name, colon, rest = str(error).partition(":")
            raise InputError(f"{CALLED.get(name, name)}{colon}{rest}") from error
        bar = None
        if progress and sys.stderr.isatty():
            from tqdm import tqdm

            bar = tqdm(unit="step")

        def advance(state: Any) -> None:
            if bar is not None:
                bar.total = state.total
                bar.update(state.done - bar.n)

        try:
            drawn = draw(self.bundle, request, inputs, advance)
        finally:
            if bar is not None:
                bar.close()
        return [picture.image().crop((0, 0, int(size[0]), int(size[1]))) for picture in drawn]


def ignored(others: dict[str, Any], version: str) -> None:
    """Warn once of every keyword that belongs to another version; TypeError for one that belongs to none."""
    unknown = sorted(set(others) - KNOWN)
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; this is the interface of Kandinsky {version}")
    for name in sorted(others):
        warn_once(name, f"{name} belongs to another version of Kandinsky and has no effect in {version}", 5)


def sampler_name(sampler: str) -> str:
    """chashka's name of a sampler. Raises InputError that lists what exists."""
    if sampler not in SAMPLERS:
        raise InputError(f"sampler: {sampler!r} is not possible; allowed: {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler]


def share_replaced(strength: float, exactly: bool) -> float:
    """The originals' strength is the share that is KEPT. exactly: as their floats have it.

    1 - 0.8 is 0.19999999999999996, of which they make 9 of 50 steps; the small model rounds, and twelve digits are enough.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength: {strength!r} is not possible; allowed: a number from 0 to 1")
    return 1 - strength if exactly else round(1 - strength, 12)


def prepared(pil_img: Image, width: int, height: int) -> Image:
    """The originals' ``prepare_image``: squeezed to the size, bicubic, aspect ignored."""
    from PIL.Image import Resampling

    resized: Image = picture(pil_img, "pil_img").resize((width, height), resample=Resampling.BICUBIC, reducing_gap=1)
    return resized.convert("RGB")


def picture(value: Any, name: str) -> Image:
    """``value`` if it is a picture of PIL. Raises InputError with the argument's name otherwise."""
    from PIL import Image

    if not isinstance(value, Image.Image):
        raise InputError(
            f"{name}: {type(value).__name__} is not possible; allowed: a PIL image, such as Image.open(path) gives"
        )
    return value


def given(pil_img: Image, size: tuple[int, int]) -> Inputs:
    """The picture at ``size`` (width, height)."""
    import numpy as np

    from chashka.request import Inputs

    return Inputs(np.asarray(prepared(pil_img, *size).convert("RGBA")))


def masked(pil_img: Image, size: tuple[int, int], img_mask: Any, *, keep: int = 1, cell: int = 1) -> Inputs:
    """The picture, and chashka's mask, 1 = repaint. keep: what stands for keeping in ``img_mask``.

    cell: the mask is brought to one number for so many pixels first, by the nearest one, as the originals do.
    """
    import numpy as np

    array = np.asarray(img_mask)
    numbers = array.astype(np.float32) if array.dtype.kind in "biuf" else np.full((0, 0), np.nan, np.float32)
    if array.dtype == np.uint8 and numbers.size and numbers.max() > 1:
        numbers /= 255  # a picture's mask
    if numbers.ndim != 2 or not numbers.size or not np.isfinite(numbers).all():
        allowed = "1 = keep, 0 = repaint" if keep else "1 = repaint, 0 = keep"
        raise InputError(f"img_mask: {array.dtype} {array.shape} is not possible; allowed: numbers (H, W), {allowed}")
    if cell > 1:
        counts = size[1] // cell, size[0] // cell
        rows, columns = (np.arange(n) * side // n for n, side in zip(counts, numbers.shape, strict=True))
        numbers = numbers[rows][:, columns].repeat(cell, axis=0).repeat(cell, axis=1)
    return replace(given(pil_img, size), mask=np.clip(1 - numbers if keep else numbers, 0, 1))


def mixed(images_texts: Sequence[Any], weights: Sequence[float]) -> tuple[list[dict[str, Any]], tuple[Any, ...]]:
    """chashka's parts of a mixture and the pictures that they name."""
    import numpy as np

    if len(images_texts) != len(weights) or not images_texts:
        raise InputError(
            f"mix_images: {len(images_texts)} images and texts with {len(weights)} weights are not possible; allowed: as many "
            "weights as images and texts, at least one"
        )
    pictures: list[Any] = []
    parts: list[dict[str, Any]] = []
    for value, weight in zip(images_texts, weights, strict=True):
        if isinstance(value, str):
            parts.append({"text": value, "weight": weight})
        else:
            parts.append({"picture": len(pictures), "weight": weight})
            pictures.append(np.asarray(picture(value, "images_texts").convert("RGBA")))
    return parts, tuple(pictures)
