"""From the values of a JSON file to a frozen dataclass, strictly. Only the standard library is imported here."""

from __future__ import annotations

import dataclasses
from typing import Any

from chashka.errors import TrainingError


def build(cls: type[Any], values: dict[str, Any], where: str) -> Any:
    """An object of the frozen dataclass ``cls``; inner dataclasses take what ``values`` leave out from their default.

    where: what the values were read from, for the message. Raises TrainingError for an unknown field, and for values that
    ``cls`` refuses.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise TrainingError(f"{where}: unknown field {', '.join(unknown)}; allowed: {', '.join(known)}")
    template = cls() if _has_defaults(cls) else None
    built: dict[str, Any] = {}
    for name, value in values.items():
        default = getattr(template, name) if template is not None else None
        if dataclasses.is_dataclass(default) and isinstance(value, dict):
            full = {f.name: getattr(default, f.name) for f in dataclasses.fields(default)} | value
            built[name] = build(type(default), full, f"{where}.{name}")
        elif isinstance(value, list):
            built[name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        else:
            built[name] = value
    try:
        return cls(**built)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{where}: {error}") from error


def _has_defaults(cls: type[Any]) -> bool:
    missing = dataclasses.MISSING
    return all(f.default is not missing or f.default_factory is not missing for f in dataclasses.fields(cls))
