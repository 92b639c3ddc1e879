"""What a person asks for, and what comes back: ``Request``, ``Inputs``, ``Picture``.

``Request`` holds the fields that every model family knows. A family's ``Options`` is a subclass with its own fields, and
flags, HTTP validation and metadata are made from it. Values that are None are filled in from the model's own defaults
before anything is drawn, so that what is stored with a picture is what was really used.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from chashka.errors import InputError

if TYPE_CHECKING:
    from typing import Self

    from PIL.Image import Image

Array: TypeAlias = Any
"""A numpy array; docstrings give shape and range."""

LONGEST_PROMPT = 10_000
"""Characters. More than anybody writes (about 30 of Stable Diffusion's chunks), and as many as a search looks at and as every
format of picture files holds; what reads prompts takes time in proportion to it."""
TRANSPARENT = "transparent"
STRENGTHS = {"subtle": 0.5, "strong": 0.85}
"""Names for how much of a picture is replaced (Fooocus' "Vary")."""


def _not_bool(value: Any) -> Any:
    """True is not the number 1 here: JSON and flags that mix them up are mistakes."""
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


def _named(value: Any) -> Any:
    """The strength that a name stands for; anything else as it is."""
    return STRENGTHS.get(value.strip().lower(), value) if isinstance(value, str) else value


Whole = Annotated[int, BeforeValidator(_not_bool)]
Number = Annotated[float, BeforeValidator(_not_bool)]


def bounded(default: Any, allowed: str, description: str, **limits: Any) -> Any:
    """A pydantic field whose ``allowed`` is the sentence part that error messages, help and documentation show."""
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **limits)


class Request(BaseModel):
    """The common fields of a request. Wrong values raise InputError with one line: field, value, what is allowed.

    width and height are in pixels; one alone means a square; none: the model's own size. A size that the model cannot draw
    directly is drawn at the nearest one it can and brought to exactly what was asked. strength: how much of ``Inputs.init``
    is replaced, 1 = all of it; None is 0.7 for a picture and 1 for a picture with a mask. Picture number i of a seed is
    the same whatever ``n`` is; ``first`` is the number of the first one drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompt: str = bounded(..., f"text of 1 to {LONGEST_PROMPT} characters", "what to draw, in any language")
    negative_prompt: str = bounded("", f"text of at most {LONGEST_PROMPT} characters", "what to keep away from")
    n: Whole = bounded(1, "a whole number from 1 to 64", "how many pictures", ge=1, le=64)
    seed: Whole | None = bounded(
        None,
        "a whole number from 0 to 2**63 - 1",
        "same seed, same picture; a random one if absent",
        ge=0,
        le=2**63 - 1,
    )
    first: Whole = bounded(0, "a whole number from 0 to 1000000", "number of the first picture", ge=0, le=1_000_000)
    steps: Whole | None = bounded(None, "a whole number from 1 to 1000", "sampling steps", ge=1, le=1000)
    guidance_scale: Number | None = bounded(
        None, "a number from 0 to 50", "how strictly to follow the prompt; 1: no guidance", ge=0, le=50
    )
    sampler: str | None = bounded(
        None,
        "the name of a sampler",
        "which sampler draws; AUTOMATIC1111's names, such as DPM++ 2M Karras, say the spacing too",
    )
    fast: bool = bounded(
        False, "true or false", "a draft: steps, guidance and sampler that are left open are the model's quick ones"
    )
    spacing: str | None = bounded(None, "the name of a spacing", "how noise levels are spaced")
    width: Whole | None = bounded(None, "a whole number of pixels from 64 to 2048", "width in pixels", ge=64, le=2048)
    height: Whole | None = bounded(None, "a whole number of pixels from 64 to 2048", "height in pixels", ge=64, le=2048)
    strength: Annotated[Number, BeforeValidator(_named)] | None = bounded(
        None, "a number from 0 to 1, subtle or strong", "how much of the given picture is replaced; 1: all", ge=0, le=1
    )
    mask_blur: Number = bounded(
        0.0, "a number of pixels from 0 to 64", "how soft the mask's edge is made, in pixels of the result", ge=0, le=64
    )
    only_masked: bool = bounded(False, "true or false", "draw the masked part alone, as large as the model draws")
    mask_padding: Whole = bounded(
        32, "a whole number of pixels from 0 to 512", "what is seen around a mask that is drawn alone", ge=0, le=512
    )
    subseed: Whole | None = bounded(
        None, "a whole number from 0 to 2**63 - 1", "the seed that variations turn to", ge=0, le=2**63 - 1
    )
    subseed_strength: Number = bounded(0.0, "a number from 0 to 1", "how far variations turn to it", ge=0, le=1)
    subseed_of: Whole = bounded(
        0, "a whole number from 0 to 1000000", "number of the seed's picture that is varied", ge=0, le=1_000_000
    )
    hires_scale: Number | None = bounded(
        None, "a number from 1 to 4", "enlarge this often and draw over it in a second pass", gt=1, le=4
    )
    hires_strength: Annotated[Number, BeforeValidator(_named)] = bounded(
        0.5, "a number from 0 to 1, subtle or strong", "how much the second pass replaces", ge=0, le=1
    )
    hires_steps: Whole | None = bounded(
        None, "a whole number from 1 to 1000", "steps of the second pass, if others", ge=1, le=1000
    )
    tiling: Literal["x", "y", "xy"] | None = bounded(
        None, "x, y or xy", "the picture continues at its opposite edge: left and right, top and bottom, or both"
    )
    background: str = bounded(
        TRANSPARENT, "'transparent', a colour name such as white, or #rrggbb", "what stands behind the drawing"
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(one_line(error, type(self))) from None

    @field_validator("prompt", "negative_prompt")
    @classmethod
    def _text(cls, value: str, info: Any) -> str:
        text = value.strip()
        if len(text) > LONGEST_PROMPT:
            raise ValueError(f"{len(text)} characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("not valid Unicode text") from None
        return text

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.prompt and not self.wordless():
            raise InputError(f"prompt: '' is not possible; allowed: text of 1 to {LONGEST_PROMPT} characters")
        return self

    @model_validator(mode="after")
    def _modes(self) -> Self:
        if self.subseed_strength and self.subseed is None:
            raise InputError("subseed: missing; allowed: a whole number from 0 to 2**63 - 1, with subseed_strength")
        if self.only_masked and self.hires_scale is not None:
            raise InputError(
                "hires_scale: not possible with only_masked, which draws the part as large as the model does already; "
                "leave one of them out"
            )
        return self

    @field_validator("background")
    @classmethod
    def _colour(cls, value: str) -> str:
        text = value.strip().lower()
        if text != TRANSPARENT:
            rgb(text)
        return text

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """A request from a mapping, for example from a picture's metadata; raises InputError in one line."""
        return cls(**{str(key): value for key, value in fields.items()})

    def with_fields(self, **fields: Any) -> Self:
        """A copy with some fields replaced, checked again."""
        return type(self)(**{**self.model_dump(), **fields})

    def filled(self, defaults: Mapping[str, Any]) -> Self:
        """A copy whose None fields are taken from ``defaults``; fields that the request does not have are left out."""
        mine = self.model_dump()
        missing = {k: v for k, v in defaults.items() if k in mine and mine[k] is None}
        return self.with_fields(**missing) if missing else self

    def wordless(self) -> bool:
        """Whether the prompt may be empty: something else says what to draw, or nothing has to."""
        return False

    def sampler_options(self) -> dict[str, float]:
        """What this request sets for its sampler, by argument name; those that a sampler lacks are left out with a note."""
        return {}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Pictures that a request starts from.

    init: uint8 (H, W, 4), straight alpha. mask: float32 (h, w) in [0, 1], 1 (white) = repaint, of any size. pictures: like
    ``init``, what a family's request refers to by number (Kandinsky's ``mix``).
    """

    init: Array = None
    mask: Array = None
    pictures: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A picture that another one was made from: its use ("init", "mask", "picture 0", …), size in pixels, and ``sha256``.

    The sum is that of its pixels, uint8 (H, W, 4) row by row (a mask's: float32 (h, w)), so that it does not depend on the
    file's format or name.
    """

    use: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Added:
    """A file that a model was opened with, for metadata. kind: checkpoint (the U-Net's weights), lora, embedding or vae.

    name: the model's, or a file's without the suffix, or a folder's, and never a path: where somebody keeps it is nobody else's
    business.
    sha256: of its weights, 64 digits; "" where finding out would have taken long. unet, text: how much of a LoRA each of them got.
    """

    kind: str
    name: str
    sha256: str = ""
    unet: float = 1.0
    text: float = 1.0


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished picture.

    pixels: uint8 (H, W, 4) with straight alpha, or (H, W, 3) on a background colour. seed and index identify its noise.
    request: as it was really drawn, defaults filled in. notes: what differs from what was asked, one sentence each.
    edited: made from a given picture, which is declared differently in the file (IPTC digital source type). sources: which.
    added: the checkpoint, and the LoRAs, embeddings and the autoencoder that the model was opened with, in the order in which they
    were added.
    """

    pixels: Array = field(repr=False)
    seed: int
    index: int
    request: Request
    notes: tuple[str, ...] = ()
    model: str = ""
    family: str = ""
    edited: bool = False
    sources: tuple[Source, ...] = ()
    added: tuple[Added, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[0])

    def image(self) -> Image:
        """The picture as a PIL image, RGBA or RGB."""
        from PIL import Image

        return Image.fromarray(self.pixels)


def rgb(colour: str) -> tuple[int, int, int]:
    """A colour name or #rgb, #rrggbb as three numbers from 0 to 255. Raises ValueError for anything else."""
    from PIL import ImageColor

    try:
        value = ImageColor.getrgb(colour)
    except ValueError:
        raise ValueError("not a colour") from None
    return value[0], value[1], value[2]


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic error as one line: field, value, what is allowed."""
    problems = error.errors(include_url=False)
    first = problems[0]
    name = str(first["loc"][0]) if first["loc"] else "request"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raised = first.get("ctx", {}).get("error")
    if first["type"] == "extra_forbidden":
        return f"{name}: there is no such field; allowed: {_allowed_fields(name, model)}{more}"
    if isinstance(raised, InputError):
        return f"{raised}{more}"
    info = model.model_fields.get(name)
    extra = info.json_schema_extra if info is not None else None
    allowed = extra["allowed"] if isinstance(extra, dict) else first["msg"]
    if first["type"] == "missing":
        return f"{name}: missing; allowed: {allowed}{more}"
    why = f" ({raised})" if raised is not None and len(str(first["input"])) > 40 else ""
    return f"{name}: {shown(first['input'])} is not possible{why}; allowed: {allowed}{more}"


def _allowed_fields(name: str, model: type[BaseModel]) -> str:
    """The nearest names, those that this model has beyond every other's, and where the rest stands."""
    near = difflib.get_close_matches(name, model.model_fields, 2)
    own = [field for field in model.model_fields if field not in Request.model_fields]
    common = [field for field in Request.model_fields if field not in near][: 4 if own else None]
    names = list(dict.fromkeys([*near, *own, *common]))
    return ", ".join(names) + (" and the other fields of chashka.Request" if own else "")


def shown(value: Any) -> str:
    """A value for a message: one line, at most 40 characters of it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 42 else text[:39] + "…'"
