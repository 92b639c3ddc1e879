"""What a request to this family may say beyond the common fields."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator, model_validator

from chashka.diffusion import FLOW_SPACINGS, TABLE_SPACINGS, sampler_name
from chashka.errors import InputError
from chashka.request import Number, Request, bounded


class Options(Request):
    """Kandinsky's fields. The first three have the names and meanings of its 2022 code; eta is its ``ddim_eta``.

    guidance_start and guidance_stop are fractions of the steps between which guidance is applied (arXiv 2404.07724);
    outside, the conditional call is made alone.
    """

    denoised_type: Literal["none", "dynamic_threshold", "clip_denoised"] = bounded(
        "none", "none, dynamic_threshold or clip_denoised", "how estimates of the finished picture are kept in range"
    )
    dynamic_threshold_v: Number = bounded(
        99.5, "a number from 0 to 100", "percentile for dynamic_threshold", ge=0, le=100
    )
    eta: Number | None = bounded(
        None, "a number from 0 to 1", "noise added back in each step: 0 none, 1 DDPM", ge=0, le=1
    )
    guidance_start: Number = bounded(0.0, "a number from 0 to 1", "share of steps before guidance begins", ge=0, le=1)
    guidance_stop: Number = bounded(1.0, "a number from 0 to 1", "share of steps at which guidance ends", ge=0, le=1)

    @field_validator("sampler")
    @classmethod
    def _sampler(cls, value: str | None) -> str | None:
        return None if value is None else sampler_name(value)

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

    def sampler_options(self) -> dict[str, float]:
        return {} if self.eta is None else {"eta": self.eta}
