"""What a request to Stable Diffusion may say beyond the common fields."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from chashka.diffusion import TABLE_SPACINGS, with_sampler
from chashka.errors import InputError
from chashka.prompts import composition, emphasis, schedules
from chashka.request import LONGEST_PROMPT, Number, Request, Whole, bounded

FEW = 15
"""Below so many steps the original's DPM-Solver makes its last one of first order."""


class Options(Request):
    """guidance_start and guidance_stop are fractions of the steps between which guidance is applied (arXiv 2404.07724).

    prediction: what the network was trained to say, where its file cannot tell. compat: whose sampling (docs/stable-diffusion.md).
    """

    prompt: str = bounded(
        ..., f"text of at most {LONGEST_PROMPT} characters", "what to draw; without words, whatever comes"
    )
    eta: Number | None = bounded(
        None, "a number from 0 to 1", "noise added back in each step: 0 none, 1 DDPM", ge=0, le=1
    )
    guidance_rescale: Number = bounded(
        0.0, "a number from 0 to 1", "how far guidance keeps the contrast of the unguided picture", ge=0, le=1
    )
    guidance_start: Number = bounded(0.0, "a number from 0 to 1", "share of steps before guidance begins", ge=0, le=1)
    guidance_stop: Number | None = bounded(
        None,
        "a number from 0 to 1",
        "share of steps at which guidance ends; all of them unless it is a draft",
        ge=0,
        le=1,
    )
    prediction: Literal["eps", "v"] | None = bounded(
        None, "eps or v", "what a network of 2.x says, where its file does not tell: the noise, or v"
    )
    syntax: Literal["a1111", "plain"] | None = bounded(
        None, "a1111 or plain", "whether prompts have weights, schedules and AND, or are taken as they are typed"
    )
    clip_skip: Whole | None = bounded(
        None,
        "a whole number from 1 to 12",
        "which of the text encoder's layers is heard: 1 the last, 2 the one before it; the model's own if absent",
        ge=1,
        le=12,
    )
    compat: Literal["original", "diffusers"] | None = bounded(
        None, "original or diffusers", "sample like the original code, mistakes included, or like diffusers"
    )

    @model_validator(mode="before")
    @classmethod
    def _sampler(cls, said: dict[str, Any]) -> dict[str, Any]:
        return with_sampler(said)

    @field_validator("spacing")
    @classmethod
    def _spacing(cls, value: str | None) -> str | None:
        if value is not None and value not in TABLE_SPACINGS:
            raise InputError(f"spacing {value!r} does not exist; use one of {', '.join(sorted(TABLE_SPACINGS))}")
        return value

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.guidance_stop is not None and self.guidance_start >= self.guidance_stop:
            raise InputError(
                f"guidance_stop: {self.guidance_stop:g} is not possible; allowed: more than guidance_start, "
                f"which is {self.guidance_start:g}"
            )
        return self

    @model_validator(mode="after")
    def _grammar(self) -> Self:
        if not self.plain():
            # a request that cannot be drawn is refused when it is made
            composition.parts(self.prompt)
            for prompt in (self.prompt, self.negative_prompt):
                schedules.check(prompt)
                emphasis.pieces(prompt)
        return self

    def wordless(self) -> bool:
        return True

    def plain(self) -> bool:
        """Whether prompts are taken as they are typed: the original code knows no grammar."""
        return self.syntax == "plain" or (self.syntax is None and self.compat is not None)

    def sampler_options(self) -> dict[str, float]:
        options: dict[str, float] = {} if self.eta is None else {"eta": self.eta}
        if self.compat == "original" and self.sampler == "dpmpp_2m" and self.steps is not None:
            options["lower_order_final"] = self.steps < FEW
        return options
