"""Model families: the one table of them, and ``load``.

Adding a family is one package and one line of ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from chashka.errors import InputError, WeightsError
from chashka.families.family import Bundle, Codec, EngineChoice, Family, Meter, Plan, Preset, TextEncoder
from chashka.request import Request

FAMILIES: dict[str, str] = {"kandinsky": "chashka.families.kandinsky:FAMILY"}
"""Name → where its declaration is; imported when it is first asked for."""

DEFAULT = "kandinsky-teacup"

__all__ = [
    "DEFAULT",
    "FAMILIES",
    "Bundle",
    "Codec",
    "EngineChoice",
    "Family",
    "Meter",
    "Plan",
    "Preset",
    "TextEncoder",
    "exported",
    "family",
    "find",
    "load",
    "models",
    "options",
]


def family(name: str) -> Family:
    """The declaration of a family. Raises InputError that lists what exists."""
    if name not in FAMILIES:
        raise InputError(f"family {name!r} does not exist; use one of {', '.join(FAMILIES)}")
    module, _, attribute = FAMILIES[name].partition(":")
    found: Family = getattr(import_module(module), attribute)
    return found


def models() -> Iterator[tuple[str, Family, Preset]]:
    """(name, family, preset) of every model, for example ``kandinsky-teacup``."""
    for name in FAMILIES:
        declaration = family(name)
        for preset in declaration.presets.values():
            yield f"{name}-{preset.name}", declaration, preset


def find(model: str) -> tuple[Family, Preset]:
    """The family and the preset of a model's name, or of a folder of exported components (``./my-model``, with a slash).

    Raises InputError that lists what exists, WeightsError for a folder that holds no model.
    """
    if "/" in model or "\\" in model:
        return exported(Path(model).expanduser())
    known = {name: (declaration, preset) for name, declaration, preset in models()}
    if model not in known:
        raise InputError(f"model {model[:60]!r} does not exist; use one of {', '.join(known)}")
    return known[model]


def exported(folder: Path) -> tuple[Family, Preset]:
    """What ``chashka export`` wrote into ``folder``: a model of the family whose components are there, named by the folder.

    Raises WeightsError for a folder without all components of one family.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"model {str(folder)!r}: there is no such folder; make one with chashka export, or leave --model out"
        )
    lacking: list[str] = []
    for _, declaration, preset in models():
        missing = [name for name in preset.files if not (folder / name).is_file()]
        if not missing:
            name = folder.resolve().name or preset.name
            return declaration, replace(preset, name=name, folder=folder, summary="exported components")
        first = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        lacking.append(f"for {declaration.name}: {first}")
    raise WeightsError(
        f"model {str(folder)!r} is no folder of exported components; not found {'; '.join(lacking)}; "
        "write them with chashka export, or leave --model out"
    )


def options(model: str = DEFAULT) -> type[Request]:
    """The request class of a model, for checking a request before anything is loaded."""
    return find(model)[0].options


def load(
    model: str = DEFAULT,
    *,
    engine: str = "auto",
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Bundle:
    """Open a model: a name, or a folder of exported components (``./my-model``).

    engine: auto, openvino or torch. cache_dir: where the engine keeps what it compiled, if anywhere.

    Raises InputError (no such model or engine), WeightsError (files missing or damaged), MissingExtraError, EngineError.
    """
    declaration, preset = find(model)
    missing = [name for name in preset.files if not (preset.folder / name).is_file()]
    if missing:
        raise WeightsError(
            f"model {model!r} is not complete: {', '.join(missing)} not found in {preset.folder}; install chashka again"
        )
    return declaration.open(preset, EngineChoice(engine, device, precision, threads, cache_dir))
