"""What OpenAI's clients say, and what it means here: bodies of the three routes, and their fields as ours."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from chashka.app.dialects.fields import Body, Flag, number, whole

MOST_PICTURES = 16
"""Given pictures of one edit."""
QUALITIES: dict[str, dict[str, Any]] = {
    "auto": {},
    "standard": {},
    "medium": {},
    "low": {"fast": True},
    "high": {"steps": 50},
    "hd": {"steps": 50},
    "xhigh": {"steps": 100},
    "max": {"steps": 150},
}
"""What a quality means; nothing: as the model does by itself. low: the model's draft."""
WITHOUT_EFFECT = ("moderation", "style", "user", "safety_identifier", "input_fidelity")
"""Fields of OpenAI's that mean nothing here. They are not kept anywhere."""
NAMES = re.compile(r"(openai/)?(dall-e|gpt-image|chatgpt-image)[\w.-]*", re.IGNORECASE)
"""Names of OpenAI's own models."""
_ALWAYS_INLINE = re.compile(r"(openai/)?(gpt|chatgpt)-image", re.IGNORECASE)
"""Those that always answer with base64, so that clients do not ask for it."""

Size = Annotated[str, StringConstraints(pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$")]


class Generation(Body):
    """POST /v1/images/generations: OpenAI's fields, and some of ours under names that other servers gave them."""

    prompt: Annotated[str, Field(description="what to draw, in any language")]
    model: Annotated[str, Field(max_length=200)] | None = None
    n: whole(1, 64) | None = None  # type: ignore[valid-type]
    size: Size | None = None
    quality: Literal["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: whole(0, 100) | None = None  # type: ignore[valid-type]
    background: Literal["transparent", "opaque", "auto"] | None = None
    moderation: str | None = None
    style: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    stream: Flag | None = None
    partial_images: whole(0, 3) | None = None  # type: ignore[valid-type]
    negative_prompt: str | None = None
    num_inference_steps: whole(1, 1000) | None = None  # type: ignore[valid-type]
    guidance_scale: number(0, 50) | None = None  # type: ignore[valid-type]
    true_cfg_scale: number(0, 50) | None = None  # type: ignore[valid-type]
    seed: whole(0) | None = None  # type: ignore[valid-type]
    sampler: str | None = None
    language: str | None = None
    strength: number(0, 1) | None = None  # type: ignore[valid-type]
    consent: Flag | None = None

    @property
    def inline(self) -> bool:
        """Whether pictures are sent in the answer and not by their address."""
        if self.response_format is None:
            return _ALWAYS_INLINE.match(self.model or "") is not None
        return self.response_format == "b64_json"

    @model_validator(mode="after")
    def _opaque(self) -> Self:
        if self.background == "transparent" and self.output_format == "jpeg":
            raise ValueError("background transparent needs output_format png or webp: JPEG has no transparency")
        return self


class Address(Body):
    """A picture in JSON: one of the two. image_url: a data: URL. file_id: one of this server's pictures."""

    image_url: str | None = None
    file_id: Annotated[str, StringConstraints(pattern=r"^pic_[0-9a-z]{26}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("exactly one of image_url and file_id has to be given")
        return self


class Edit(Generation):
    """POST /v1/images/edits, but for the files: those of a form are read apart, those of JSON are ``images`` and ``mask``."""

    images: Annotated[list[Address], Field(min_length=1, max_length=MOST_PICTURES)] | None = None
    mask: Address | None = None
    input_fidelity: str | None = None


class Variation(Generation):
    """POST /v1/images/variations, but for the file: no words are needed."""

    prompt: str = ""


def request_fields(body: Generation, most_steps: int, warnings: list[str]) -> dict[str, Any]:
    """Our fields of a request, but for its model and pictures. warnings: what has no effect is added, a sentence each."""
    said: dict[str, Any] = {"prompt": body.prompt, "n": body.n or 1}
    said |= QUALITIES[body.quality or "auto"]
    if "steps" in said:
        said["steps"] = min(said["steps"], most_steps)
    if body.size not in (None, "auto"):
        width, height = body.size.split("x")
        said |= {"width": int(width), "height": int(height)}
    if body.num_inference_steps is not None:
        said["steps"] = body.num_inference_steps
        said.pop("fast", None)
    scale = body.guidance_scale if body.guidance_scale is not None else body.true_cfg_scale
    ours = {
        "guidance_scale": scale,
        "negative_prompt": body.negative_prompt,
        "seed": body.seed,
        "sampler": body.sampler,
    }
    said |= {name: value for name, value in ours.items() if value is not None}
    if body.background == "opaque":
        said["background"] = "white"
    if body.language is not None:
        warnings.append("language: models read the language of the words themselves; it had no effect")
    warnings += [f"{name}: this is not known here and had no effect" for name in body.unknown()]
    return said
