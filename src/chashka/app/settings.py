"""Every setting of the application, once: flags, the environment, ``/v1/limits`` and docs/settings.md are made from this table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from chashka.errors import InputError

PREFIX = "CHASHKA_"
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def setting(default: Any, help: str, *, limit: bool = False) -> Any:
    """A field: what it means in one line, and whether it is a limit that ``/v1/limits`` tells."""
    return field(default=default, metadata={"help": help, "limit": limit})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server runs with. Sizes are in bytes, times in seconds."""

    data: Path = setting(Path("chashka-data"), "folder of the database and of all pictures")
    database: str = setting("", "postgresql://USER@HOST/NAME instead of SQLite in the data folder")
    models: Path | None = setting(None, "folder of published models")
    cache: Path | None = setting(None, "folder of compiled graphs")
    host: str = setting("127.0.0.1", "address to listen on; one that others reach needs an API key")
    port: int = setting(8188, "port to listen on; 0: any that is free")
    hosts: tuple[str, ...] = setting((), "more names that browsers may call this server by, separated by commas")
    origins: tuple[str, ...] = setting((), "other sites whose pages may use the API, separated by commas")
    policy: str = setting(
        "private", "private, or shared: a key is needed, uploads of people need a consent tick, refusals are logged"
    )
    privacy: str = setting("full", "what pictures say when they are sent: full, provenance or none")
    runner: str = setting("child", "child: compute in a supervised process; thread: in the server's own")
    model: str = setting("kandinsky-teacup", "the model that is used when a request names none")
    engine: str = setting("auto", "auto, openvino or torch")
    device: str = setting("", "the engine's name of a device")
    slots: int = setting(
        0, "jobs that are drawn at the same time, sharing their network's calls; 0: as many as are found to be worth it"
    )
    strict: bool = setting(True, "pictures do not depend on what is drawn beside them, to the last bit")
    memory: int = setting(0, "bytes that the computing process may hold; 0: three quarters of the machine's")
    model_memory: int = setting(0, "bytes of models that are kept open; 0: half of memory")
    hang: float = setting(600.0, "seconds without a sign of life after which a task is ended")
    drain: float = setting(30.0, "seconds that running jobs have to finish when the server stops")
    retention: float = setting(7 * 86400.0, "seconds after which deleted pictures are gone for good")
    unknown_models: str = setting("default", "default: OpenAI's model names mean the default model; error: 404")
    max_json: int = setting(1_000_000, "bytes of a JSON body", limit=True)
    max_upload: int = setting(32_000_000, "bytes of an upload", limit=True)
    max_picture: int = setting(25_000_000, "pixels of an uploaded picture", limit=True)
    max_prompt: int = setting(10_000, "characters of a prompt; the library takes no longer ones", limit=True)
    max_expansions: int = setting(256, "prompts that the choices of one prompt may stand for", limit=True)
    max_steps: int = setting(150, "steps of one picture", limit=True)
    max_pixels: int = setting(4_200_000, "pixels of one result", limit=True)
    max_n: int = setting(16, "pictures of one job", limit=True)
    max_queue: int = setting(1_000, "jobs that wait", limit=True)
    submits_per_minute: int = setting(60, "jobs that one key may submit in a minute; 0: any number", limit=True)
    sketches_per_minute: int = setting(240, "sketches that one key may ask for in a minute; 0: any number", limit=True)
    uploads_per_minute: int = setting(
        240, "pictures that one key may upload, or have looked at (verify), in a minute; 0: any number", limit=True
    )
    max_cost: float = setting(2e10, "steps × pixels × pictures of one job", limit=True)


def from_mapping(said: Mapping[str, str], base: Settings | None = None) -> Settings:
    """Settings of texts by name, as flags and the environment give them. Raises InputError that names the setting."""
    base = base or Settings()
    known = {one.name: one for one in fields(Settings)}
    values: dict[str, Any] = {}
    for name, text in said.items():
        if name not in known:
            raise InputError(f"{name}: there is no such setting; allowed: {', '.join(known)}")
        values[name] = _parsed(name, str(known[name].type), text)
    whole = {name: getattr(base, name) for name in known} | values
    return _checked(Settings(**whole))


def from_environment(environment: Mapping[str, str], base: Settings | None = None) -> Settings:
    """Those of ``CHASHKA_NAME``; other variables are not looked at."""
    names = {f"{PREFIX}{one.name.upper()}": one.name for one in fields(Settings)}
    return from_mapping({names[key]: text for key, text in environment.items() if key in names and text}, base)


def limits(settings: Settings) -> dict[str, int | float]:
    """What requests may ask for at most, by name; with two that are not to be set, since parsers depend on them: how deep a
    prompt's brackets and choices, and the JSON of a body, may be nested."""
    from chashka.app.guard import depth
    from chashka.prompts import nesting

    found = {one.name: getattr(settings, one.name) for one in fields(Settings) if one.metadata["limit"]}
    return found | {"max_nesting": nesting.DEEPEST, "max_json_nesting": depth.DEEPEST}


def _parsed(name: str, kind: str, text: str) -> Any:
    """A value of the field's type, from its text."""
    try:
        if kind.startswith("Path"):
            return Path(text).expanduser()
        if kind.startswith("tuple"):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if kind == "bool":
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if kind == "int":
            number, unit = re.fullmatch(r"(\d+)([kmg]?)", text.strip().lower()).groups()  # type: ignore[union-attr]
            return int(number) * UNITS[unit]
        if kind == "float":
            value = float(text)
            if not 0 <= value < float("inf"):
                raise ValueError
            return value
        return text.strip()
    except (KeyError, ValueError, AttributeError):
        allowed = {"bool": "true or false", "int": "a whole number, with k, m or g for thousands", "float": "a number"}
        raise InputError(f"{name}: {text[:40]!r} is not possible; allowed: {allowed.get(kind, kind)}") from None


CHOICES = {
    "policy": ("private", "shared"),
    "privacy": ("full", "provenance", "none"),
    "runner": ("child", "thread"),
    "unknown_models": ("default", "error"),
    "engine": ("auto", "openvino", "torch"),
}


def _checked(settings: Settings) -> Settings:
    """The same, if every choice is one that exists."""
    for name, allowed in CHOICES.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise InputError(f"{name}: {value!r} is not possible; allowed: {', '.join(allowed)}")
    if not 0 <= settings.port <= 65535:
        raise InputError(f"port: {settings.port} is not possible; allowed: 0 to 65535")
    return settings
