"""What a kind of job is, what checking a client's words gives, and the checks that all kinds share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from chashka.app.compute.runner import Event, Stop, Task
from chashka.app.settings import Settings
from chashka.errors import InputError
from chashka.request import shown

if TYPE_CHECKING:
    from chashka.app.compute.models import Models
    from chashka.families.family import Preset
    from chashka.request import Request

Sizes: TypeAlias = Mapping[str, tuple[int, int]]
"""(width, height) in pixels of given pictures by their use: "init", "mask", "picture 0", "picture 1", …"""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What folders below the server's own may be called by clients."""
PICTURE = re.compile(r"picture (\d{1,2})")


@dataclass(frozen=True, slots=True)
class NewFields:
    """A client's words, checked. fields: complete, with seed, as they are stored in the job: all of it JSON.

    texts: everything that a person wrote, for the policy. pictures: how many the job makes. cost: steps × pixels × pictures.
    """

    fields: dict[str, Any]
    texts: tuple[str, ...] = ()
    pictures: int = 1
    cost: float = 0.0


Check: TypeAlias = Callable[[Mapping[str, Any], Sizes, Settings], NewFields]
Run: TypeAlias = "Callable[[Task, Models, Stop], Iterator[Event]]"


@dataclass(frozen=True, slots=True)
class Kind:
    """command: of the command line that does the same. needs, may: uses of given pictures; "picture" stands for all numbers.

    own: fields beyond a request's, which this kind adds. scope: what a key must be allowed.
    """

    name: str
    command: str
    check: Check = field(repr=False)
    run: Run = field(repr=False)
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    scope: str = "generate"


def check_uses(kind: Kind, inputs: Sizes) -> None:
    """Raises InputError for a given picture that the kind has no use for, and for one that is missing."""
    allowed = (*kind.needs, *kind.may)
    for use in inputs:
        if ("picture" if PICTURE.fullmatch(use) else use) not in allowed:
            those = ", ".join("picture 0, picture 1 …" if one == "picture" else one for one in allowed) or "none"
            raise InputError(f"inputs: {shown(use)} is not possible for {kind.name}; allowed: {those}")
    for use in kind.needs:
        if use not in inputs:
            raise InputError(f"inputs: {use} is missing; allowed: the id of a picture of the gallery")


def at_most(name: str, value: float, limit: float, unit: str = "") -> None:
    """Raises InputError for more than this server allows."""
    if value > limit:
        raise InputError(f"{name}: {value:.10g} is not possible; allowed: at most {limit:.10g}{unit} on this server")


def whole(said: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A whole number of a client's. Raises InputError."""
    value = said.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name}: {shown(value)} is not possible; allowed: a whole number from {low} to {high}")
    return value


def no_more(said: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Raises InputError for a field that is not one of these."""
    for name in said:
        if name not in allowed:
            raise InputError(f"{str(name)[:60]}: there is no such field; allowed: {', '.join(allowed)}")


def model_of(said: Mapping[str, Any], settings: Settings) -> tuple[str, type[Request], Preset]:
    """The name, options and preset of the model that is asked for, by name alone: a path would open any file of the server's."""
    from chashka import families

    name = said.get("model")
    if name is None or name == settings.model:
        name = settings.model
    elif not isinstance(name, str) or any(sign in name for sign in "/\\\0") or name.startswith(".") or _file(name):
        raise InputError(f"model: {shown(name)} is not possible; allowed: the name of a model, see /v1/models")
    try:
        declaration, preset = families.find(name, settings.models)
    except InputError as error:
        raise InputError(f"model: {str(error).removeprefix('model ')}") from None
    return name, declaration.options, preset


def _file(name: str) -> bool:
    from chashka.families import CHECKPOINTS

    return Path(name).suffix.lower() in CHECKPOINTS
