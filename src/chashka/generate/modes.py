"""What the ways of drawing mean as requests and inputs: varied, mixed and extended pictures, and prompts with choices.

The command line and the application build their requests here, so that one of them cannot mean something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chashka import images
from chashka.errors import InputError
from chashka.prompts import wildcards
from chashka.request import Inputs, Request

MOST = 1000
"""Combinations of a prompt's choices that are drawn at most."""
PICTURE_ALONE: Mapping[str, Any] = {"prompt": "", "mix": [{"picture": 0, "weight": 1.0}]}
"""Fields of a request in which the first given picture says what to draw."""


def mixable(options: type[Request], model: str) -> None:
    """Raises InputError for a model that cannot take what pictures show for words. options: its family's."""
    if "mix" not in options.model_fields:
        raise InputError(
            f"model: {model} cannot take what a picture shows for words; give the picture to chashka draw, with --init FILE "
            "--strength subtle or strong, or choose a model with a picture encoder, such as kandinsky-teacup"
        )


def varied(pixels: NDArray[np.uint8]) -> Inputs:
    """For other pictures of what this one shows (with :data:`PICTURE_ALONE`): it is begun with, too."""
    return Inputs(pixels, None, (pixels,))


def extending(prompt: str | None) -> dict[str, Any]:
    """Fields of a request that draws on beyond a picture's edges: what the whole shows is ``prompt``, or else the picture."""
    return {"prompt": prompt} if prompt is not None else dict(PICTURE_ALONE)


def extended(pixels: NDArray[np.uint8], sides: Mapping[str, int], prompt: str | None) -> Inputs:
    """The picture with so many pixels more at its ``sides`` (left, right, top, bottom), which the mask repaints."""
    canvas, mask = images.extend(pixels, **sides)
    return Inputs(canvas, mask, () if prompt is not None else (pixels,))


def mixture(pictures: Sequence[float], texts: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Fields of a request for a mixture. pictures: the weight of each given picture; texts: words with their weights."""
    if not pictures and not texts:
        raise InputError("mix: there is nothing to mix; give at least one --picture FILE WEIGHT or --text TEXT WEIGHT")
    parts: list[dict[str, Any]] = [{"picture": i, "weight": weight} for i, weight in enumerate(pictures)]
    return {"prompt": "", "mix": parts + [{"text": text, "weight": weight} for text, weight in texts]}


def wanted(request: Request) -> list[str]:
    """The words of what is to be seen: the prompt and a mixture's texts. What the rule of ``prompts.policy`` looks at.

    What is to be kept away from counts only where guidance below 1 turns towards it.
    """
    towards = any(
        value is not None and value < 1 for name, value in request if name in ("guidance_scale", "prior_guidance_scale")
    )
    prompts = [value for name, value in request if name.endswith("prompt") and (towards or name == "prompt")]
    parts = getattr(request, "mix", None) or ()
    return [text for text in [*prompts, *(part.text for part in parts)] if text]


def chosen(request: Request, every: bool, files: wildcards.Files, most: int = MOST) -> list[Request]:
    """The requests that prompts with choices stand for: one for each combination of prompt and negative prompt, or one for each
    picture, both chosen by its number.

    Raises InputError for a prompt that cannot be read, and for more than ``most`` combinations.
    """
    texts = (request.prompt, request.negative_prompt)
    if every:
        return with_prompts(request, every, list(wildcards.combinations(texts, files, most)))
    assert request.seed is not None
    seeds = range(request.seed + request.first, request.seed + request.first + request.n)
    return with_prompts(request, every, [[wildcards.resolved(text, seed, files) for text in texts] for seed in seeds])


def with_prompts(request: Request, every: bool, prompts: Sequence[Sequence[str]]) -> list[Request]:
    """A request for each prompt with its negative prompt: of all the pictures, or of one each, in the order of their numbers."""
    said = [{"prompt": prompt, "negative_prompt": negative} for prompt, negative in prompts]
    if every:
        return [request.with_fields(**both) for both in said]
    return [request.with_fields(**both, n=1, first=request.first + i) for i, both in enumerate(said)]
