"""What a request to this family may say beyond the common fields."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chashka.diffusion import FLOW_SPACINGS, TABLE_SPACINGS, with_sampler
from chashka.errors import InputError
from chashka.request import LONGEST_PROMPT, Number, Request, Whole, bounded

LONGEST_PART = 2000
"""Characters of a text in a mixture, which has sixteen of them at most; a text encoder reads far fewer."""
OWN_SAMPLER = "p_sampler"
"""Kandinsky's own: ancestral, with the variance that the network says."""


class Part(BaseModel):
    """One thing in a mixture: a text, or number ``picture`` of ``Inputs.pictures``, and how much of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    text: str | None = Field(None, min_length=1, max_length=LONGEST_PART)
    picture: Whole | None = Field(None, ge=0)
    weight: Number = Field(ge=0, le=1000)

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.text is None or not self.text.strip()) == (self.picture is None):
            raise ValueError("neither or both of text and picture")
        return self


class Options(Request):
    """Kandinsky's fields. The first two have the names and meanings of its 2022 code; eta is its ``ddim_eta``. compat: whose
    sampling, for published models (docs/kandinsky.md).

    guidance_start and guidance_stop are fractions of the steps between which guidance is applied (arXiv 2404.07724);
    outside, the conditional call is made alone. mix: what to draw, in place of a prompt; weights are relative.
    """

    denoised_type: Literal["none", "dynamic_threshold", "clip_denoised"] | None = bounded(
        None, "none, dynamic_threshold or clip_denoised", "how estimates of the finished picture are kept in range"
    )
    dynamic_threshold_v: Number = bounded(
        99.5, "a number from 0 to 100", "percentile for dynamic_threshold", ge=0, le=100
    )
    eta: Number | None = bounded(
        None, "a number from 0 to 1", "noise added back in each step: 0 none, 1 DDPM", ge=0, le=1
    )
    compat: Literal["original", "2023"] | None = bounded(
        None, "original or 2023", "sample like the code of November 2022, or like that of 2023, mistakes included"
    )
    prior_steps: Whole | None = bounded(
        None, "a whole number from 1 to 1000", "steps of the prior of 2.1 and 2.2", ge=1, le=1000
    )
    prior_guidance_scale: Number | None = bounded(
        None, "a number from 0 to 50", "how strictly their prior follows the prompt", ge=0, le=50
    )
    negative_prior_prompt: str = bounded(
        "",
        f"text of at most {LONGEST_PROMPT} characters",
        "what their prior keeps away from",
        max_length=LONGEST_PROMPT,
    )
    guidance_start: Number = bounded(0.0, "a number from 0 to 1", "share of steps before guidance begins", ge=0, le=1)
    guidance_stop: Number = bounded(1.0, "a number from 0 to 1", "share of steps at which guidance ends", ge=0, le=1)
    mix: tuple[Part, ...] | None = bounded(
        None,
        "1 to 16 parts with a text or the number of a given picture, and a weight from 0 to 1000",
        "pictures and texts to draw a mixture of, in place of a prompt",
        min_length=1,
        max_length=16,
    )

    @model_validator(mode="before")
    @classmethod
    def _sampler(cls, said: dict[str, Any]) -> dict[str, Any]:
        return with_sampler(said, (OWN_SAMPLER,))

    @field_validator("spacing")
    @classmethod
    def _spacing(cls, value: str | None) -> str | None:
        known = sorted({*FLOW_SPACINGS, *TABLE_SPACINGS})
        if value is not None and value not in known:
            raise InputError(f"spacing {value!r} does not exist; use one of {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.guidance_start >= self.guidance_stop:
            raise InputError(
                f"guidance_stop: {self.guidance_stop:g} is not possible; allowed: more than guidance_start, "
                f"which is {self.guidance_start:g}"
            )
        return self

    @model_validator(mode="after")
    def _mixture(self) -> Self:
        if self.mix is None:
            return self
        if self.prompt:
            raise InputError("prompt: not possible together with mix; give the words as a part of the mixture")
        if not sum(part.weight for part in self.mix) > 0:
            raise InputError("mix: the weights add up to 0; allowed: at least one above 0")
        return self

    def wordless(self) -> bool:
        return self.mix is not None

    def sampler_options(self) -> dict[str, float]:
        if self.compat == "2023":  # its samplers take ddim_eta and lose it on the way
            return {"eta": 0.0} if self.sampler == "ddim" else {}
        return {} if self.eta is None else {"eta": self.eta}
