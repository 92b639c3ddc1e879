"""Names of samplers as people write them, AUTOMATIC1111's first, and ours: the one table of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chashka.diffusion.samplers import SAMPLERS, Sampler
from chashka.errors import InputError


@dataclass(frozen=True, slots=True)
class Named:
    """A sampler or a scheduler. name: as A1111 lists it. ours: as it is called here; None: the model's own choice.

    aliases: A1111's other names, which it lists too. others: what other programs call it.
    """

    name: str
    label: str
    ours: str | None
    aliases: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


SAMPLER_NAMES = (
    Named("DPM++ 2M", "DPM++ 2M", "dpmpp_2m", ("k_dpmpp_2m",), ("DPMSolver++",)),
    Named("DPM++ 2M SDE", "DPM++ 2M SDE", "dpmpp_2m_sde", ("k_dpmpp_2m_sde",)),
    Named("Euler a", "Euler a", "euler_a", ("k_euler_a", "k_euler_ancestral"), ("Euler ancestral",)),
    Named("Euler", "Euler", "euler", ("k_euler",)),
    Named("Heun", "Heun", "heun", ("k_heun",)),
    Named("DDIM", "DDIM", "ddim", ("ddim",), ("ddim_sampler",)),
    Named("PLMS", "PLMS", "plms", ("plms",), ("plms_sampler", "PNDM")),
    Named("UniPC", "UniPC", "unipc", ("unipc",)),
    Named("LCM", "LCM", "lcm", ("k_lcm",)),
    Named("DDPM", "DDPM", "ddpm", ("ddpm",)),
)
EVERYWHERE = ("karras", "exponential")
"""Spacings of ours that every model has, and that may stand behind a sampler's name: "DPM++ 2M Karras"."""


def sampler(name: str) -> Sampler:
    """The sampler called ``name``: a key of ``SAMPLERS``, or a usual name such as "Euler a", "DPM++ 2M" or "PNDM".

    Case, spaces, dashes and underscores do not matter. Raises InputError that lists what exists.
    """
    return SAMPLERS[sampler_name(name)]


def sampler_name(name: str) -> str:
    """The key of ``SAMPLERS`` that ``name`` stands for; see :func:`sampler`."""
    found = _KNOWN.get(_plain(name))
    if found is None:
        raise _unknown(name, ())
    return found


def spaced_sampler(name: str, own: Iterable[str] = ()) -> tuple[str, str | None]:
    """(key of ``SAMPLERS``, spacing or None) of a name that may say both: "DPM++ 2M Karras" is ("dpmpp_2m", "karras").

    own: names of a model's own samplers, which stay as they are. Raises InputError that lists what exists.
    """
    if name in own:
        return name, None
    plain = _plain(name)
    for spacing in ("", *EVERYWHERE):
        if plain.endswith(spacing) and (found := _KNOWN.get(plain.removesuffix(spacing))) is not None:
            return found, spacing or None
    raise _unknown(name, own)


def with_sampler(said: Mapping[str, Any], own: Iterable[str] = ()) -> dict[str, Any]:
    """A request's fields with its sampler by our name, and with the spacing that the name says.

    own: as in :func:`spaced_sampler`. Raises InputError for a name that does not exist, and where the field ``spacing`` says
    something else than the name.
    """
    name, asked = said.get("sampler"), said.get("spacing")
    if not isinstance(name, str):
        return dict(said)
    found, spacing = spaced_sampler(name, own)
    if spacing is None:
        return {**said, "sampler": found}
    if asked is not None and asked != spacing:
        raise InputError(
            f"spacing: {str(asked)[:40]!r} is not possible with the sampler {name[:40]!r}, whose name says {spacing}; "
            f"leave spacing out, or give the sampler as {found}"
        )
    return {**said, "sampler": found, "spacing": spacing}


def _plain(name: str) -> str:
    return "".join(c for c in str(name).lower() if c not in " -_")


def _unknown(name: str, own: Iterable[str]) -> InputError:
    theirs = ", ".join(one.name for one in SAMPLER_NAMES)
    behind = " or ".join(spacing.capitalize() for spacing in EVERYWHERE)
    return InputError(
        f"sampler {str(name)[:60]!r} does not exist; use one of {', '.join(dict.fromkeys([*SAMPLERS, *own]))}, or as "
        f"AUTOMATIC1111 writes them: {theirs}, with {behind} behind it if levels shall be spaced so"
    )


_KNOWN = {_plain(key): key for key in SAMPLERS} | {
    _plain(name): one.ours
    for one in SAMPLER_NAMES
    if one.ours is not None
    for name in (one.name, *one.aliases, *one.others)
}
