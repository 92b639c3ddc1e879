"""A1111's names of samplers and schedulers, and ours: the one table of both."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from chashka.diffusion import SAMPLERS


@dataclass(frozen=True, slots=True)
class Named:
    """A sampler or scheduler. name: as A1111 lists it. ours: as it is called here; None: the model's own choice."""

    name: str
    label: str
    ours: str | None
    aliases: tuple[str, ...] = ()


SAMPLER_NAMES = (
    Named("DPM++ 2M", "DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m",)),
    Named("DPM++ 2M SDE", "DPM++ 2M SDE", "dpmpp_2m_sde", ("k_dpmpp_2m_sde",)),
    Named("Euler a", "Euler a", "euler_a", ("k_euler_a", "k_euler_ancestral")),
    Named("Euler", "Euler", "euler", ("k_euler",)),
    Named("Heun", "Heun", "heun", ("k_heun",)),
    Named("DDIM", "DDIM", "ddim", ("ddim",)),
    Named("PLMS", "PLMS", "plms", ("plms",)),
    Named("UniPC", "UniPC", "unipc", ("unipc",)),
    Named("LCM", "LCM", "lcm", ("k_lcm",)),
    Named("DDPM", "DDPM", "ddpm", ("ddpm",)),
)

SCHEDULER_NAMES = (
    Named("automatic", "Automatic", None),
    Named("uniform", "Uniform", "linspace"),
    Named("karras", "Karras", "karras"),
    Named("exponential", "Exponential", "exponential"),
    Named("sgm_uniform", "SGM Uniform", "trailing", ("SGMUniform",)),
    Named("align_your_steps", "Align Your Steps", "ays"),
    Named("ddim", "DDIM", "ddim"),
)
EVERYWHERE = ("karras", "exponential")
"""Spacings of ours that every model has; the others are for models with a table of noise levels."""


class SamplerNotFoundError(Exception):
    """No sampler has this name."""


def sampler(name: str) -> tuple[str, str | None]:
    """(our sampler, our spacing or None) of A1111's name; older clients say both in one: "DPM++ 2M Karras".

    Case does not matter; our names are taken too, which our pictures carry. Raises SamplerNotFoundError.
    """
    text = " ".join(name.split())
    for spacing in ("", *EVERYWHERE):
        whole = text if not spacing else text.lower().removesuffix(f" {spacing}")
        if spacing and whole == text.lower():
            continue
        found = _named(SAMPLER_NAMES, whole)
        if found is not None and found.ours is not None:
            return found.ours, spacing or None
    raise SamplerNotFoundError(name)


def spacing(name: str, tables: bool) -> tuple[str | None, str | None]:
    """(our spacing, a warning) of A1111's scheduler. tables: whether the model's family has tables of noise levels only.

    Those that are not known, or not possible, are the model's own choice, as A1111 takes them for automatic.
    """
    found = _named(SCHEDULER_NAMES, " ".join(name.split()))
    if found is None:
        known = ", ".join(one.label for one in SCHEDULER_NAMES)
        return None, f"scheduler: {name[:40]!r} is not known here; Automatic was used (known: {known})"
    if found.ours is None or found.ours in EVERYWHERE or tables:
        return found.ours, None
    return None, f"scheduler: this model has no {found.label}; Automatic was used"


def sampler_label(ours: str | None) -> str:
    """A1111's name of our sampler; our own where there is none."""
    return next((one.name for one in SAMPLER_NAMES if one.ours == ours), ours or "")


def takes_eta(ours: str) -> bool:
    """Whether our sampler has the option eta."""
    return ours in SAMPLERS and "eta" in inspect.signature(SAMPLERS[ours]).parameters


def sampler_list() -> list[dict[str, Any]]:
    """What GET /samplers says."""
    return [{"name": one.name, "aliases": list(one.aliases), "options": {}} for one in SAMPLER_NAMES]


def scheduler_list() -> list[dict[str, Any]]:
    """What GET /schedulers says."""
    return [
        {
            "name": one.name,
            "label": one.label,
            "aliases": list(one.aliases) or None,
            "default_rho": -1.0,
            "need_inner_model": False,
        }
        for one in SCHEDULER_NAMES
    ]


def _named(table: tuple[Named, ...], name: str) -> Named | None:
    plain = name.lower()
    for one in table:
        if plain in (one.name.lower(), one.label.lower(), one.ours, *(alias.lower() for alias in one.aliases)):
            return one
    return None
