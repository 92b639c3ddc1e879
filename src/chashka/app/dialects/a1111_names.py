"""A1111's names of schedulers, and what its clients are told of samplers (``diffusion.sampler_names`` has the table of those)."""

from __future__ import annotations

import inspect
from typing import Any

from chashka.diffusion import SAMPLERS, spaced_sampler
from chashka.diffusion.sampler_names import EVERYWHERE, SAMPLER_NAMES, Named
from chashka.errors import InputError

SCHEDULER_NAMES = (
    Named("automatic", "Automatic", None),
    Named("uniform", "Uniform", "linspace"),
    Named("karras", "Karras", "karras"),
    Named("exponential", "Exponential", "exponential"),
    Named("sgm_uniform", "SGM Uniform", "trailing", ("SGMUniform",)),
    Named("align_your_steps", "Align Your Steps", "ays"),
    Named("ddim", "DDIM", "ddim"),
)


class SamplerNotFoundError(Exception):
    """No sampler has this name."""


def sampler(name: str) -> tuple[str, str | None]:
    """(our sampler, our spacing or None) of A1111's name; older clients say both in one: "DPM++ 2M Karras".

    Case does not matter; our names are taken too, which our pictures carry. Raises SamplerNotFoundError.
    """
    try:
        return spaced_sampler(name)
    except InputError as error:
        raise SamplerNotFoundError(name) from error


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
