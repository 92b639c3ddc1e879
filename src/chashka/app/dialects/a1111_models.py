"""The models of this server as A1111's clients name them: ``name [hash]``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chashka.app.dialects.calls import NoModelError
from chashka.app.settings import Settings
from chashka.checkpoints.several_files import is_index
from chashka.errors import InputError, WeightsError

if TYPE_CHECKING:
    from chashka.collection import Kept

OWN = "Automatic"
NONE = (OWN, "None")
"""A1111's words for the checkpoint's own autoencoder."""
_HASHED = 1_000_000_000
"""Bytes: larger files are not read for their sum; one that was added with ``chashka models add`` has it written beside it."""


def models(settings: Settings) -> list[dict[str, Any]]:
    """What GET /sd-models says: every model whose files are here."""
    from chashka import families

    names = [name for name, _, _ in families.models()] + families.kept_names(settings.models)
    return [row for row in (one(name, settings) for name in names) if row is not None]


def one(name: str, settings: Settings) -> dict[str, Any] | None:
    """A model as A1111 tells of it; None if its files are not here. hash: of its largest file; no paths are told."""
    from chashka import families

    try:
        preset = families.located(name, families.find(name, settings.models)[1], settings.models)
    except (WeightsError, InputError):
        return None
    if preset.missing(preset.place):
        return None
    sum_ = _sum(name, preset.place, settings)
    short = None if sum_ is None else sum_[:10]
    title = name if short is None else f"{name} [{short}]"
    return {"title": title, "model_name": name, "hash": short, "sha256": sum_, "filename": name, "config": None}


def named(said: str, settings: Settings) -> str:
    """The name of the model that a title, a name or a hash means. Raises NoModelError."""
    for row in models(settings):
        if (
            said in (row["title"], row["model_name"], row["hash"], row["sha256"])
            or said.split(" [")[0] == row["model_name"]
        ):
            return str(row["model_name"])
    raise NoModelError(f"model {said[:60]!r} is not on this server; GET /sdapi/v1/sd-models lists those that are")


def meant(said: Mapping[str, str], settings: Settings) -> tuple[str | None, list[str]]:
    """The model that infotext means by ``Model hash``, or by ``Model`` where nothing here has that hash, and a warning where it is
    not here or has another content; (None, []) where it says nothing of a model."""
    from chashka.families import FAMILIES

    digits, name = said.get("Model hash", "").strip().lower(), said.get("Model", "").strip()
    names = {name, *(name.removeprefix(f"{family}-") for family in FAMILIES)}
    rows = models(settings) if digits or name else []
    sums = {row["model_name"]: _sums(row, settings) for row in rows}
    same = [row for row in rows if digits and any(sum_.startswith(digits) for sum_ in sums[row["model_name"]])]
    called = [row for row in rows if row["model_name"] in names]
    found = next(iter([row for row in same if row in called] or same or called), None)
    if found is None:
        what = name[:60] or digits[:10]
        return None, [f"Model: {what!r} is not on this server; another one was used"] if what else []
    other = digits and sums[found["model_name"]] and found not in same
    warning = f"Model: {name[:60]!r} has another content here than the picture was drawn with ({digits[:10]})"
    return str(found["model_name"]), [warning] if other else []


def autoencoders(settings: Settings) -> list[str]:
    """What GET /sd-vae lists: files and folders by their names, as A1111 has them with their suffixes."""
    from chashka import adapters

    return sorted({place.name for place in adapters.vaes(settings.models).files.values()})


def asks(said: str) -> bool:
    """Whether this means another autoencoder than the checkpoint's own."""
    return said.strip() not in ("", *NONE)


def autoencoder(said: str, settings: Settings) -> str | None:
    """Our name of the autoencoder that A1111's clients mean by its name or its file's; None if it is not here."""
    from chashka import adapters

    found = adapters.vaes(settings.models).files
    if said in found:
        return said
    return next((name for name, place in sorted(found.items()) if place.name == said), None)


def changed(name: str, digits: str, settings: Settings) -> list[str]:
    """A warning where an autoencoder of ours has another content than infotext says. digits: the first ones of its sha256."""
    from chashka import adapters
    from chashka.again import contents

    sums = contents(adapters.vaes(settings.models).files[name], settings.cache)
    if "" in sums or any(one.startswith(digits.lower()) for one in sums):
        return []
    return [f"VAE: {name[:60]!r} has another content here than the picture was drawn with ({digits[:10]})"]


def enlarging(settings: Settings) -> list[str]:
    """Names of models that have an upscaler."""
    from chashka import families

    found = []
    for row in models(settings):
        name = row["model_name"]
        place = families.located(name, families.find(name, settings.models)[1], settings.models).place
        if any((place / f"upscaler{suffix}").is_file() for suffix in (".safetensors", ".xml")):
            found.append(name)
    return found


def _sum(name: str, place: Path, settings: Settings) -> str | None:
    """The sha256 of a model's largest file, as 64 digits; None for one that would take long to read."""
    kept = _added(name, settings)
    if kept is not None:
        sizes = {
            sum_: (kept.folder / file).stat().st_size
            for file, sum_ in kept.files.items()
            if (kept.folder / file).is_file()
        }
        if sizes:
            return max(sizes, key=lambda sum_: sizes[sum_])
    files = [place] if place.is_file() else list(place.glob("*.safetensors"))
    if not files:
        return None
    largest = max(files, key=lambda file: file.stat().st_size)
    seen = largest.stat()
    return None if seen.st_size > _HASHED else _of_file(largest, seen.st_mtime_ns, seen.st_size)


def _sums(row: Mapping[str, Any], settings: Settings) -> list[str]:
    """What may stand in infotext as the hash of a model of :func:`one`: that of any file of its, since a picture is told the one
    that its U-Net comes from. [] where that is not known: of weights in several files it is a sum of sums."""
    kept = _added(row["model_name"], settings)
    if kept is not None:
        return [] if any(is_index(Path(file)) for file in kept.files) else list(kept.files.values())
    return [row["sha256"]] if row["sha256"] else []


def _added(name: str, settings: Settings) -> Kept | None:
    """What was added under that name with ``chashka models add``."""
    from chashka.collection import Collection

    if settings.models is None:
        return None
    return next((kept for kept in Collection(settings.models).all() if kept.name == name), None)


@lru_cache(maxsize=256)
def _of_file(file: Path, changed: int, size: int) -> str:
    """The sum of a file that is as it was at ``changed``, ``size`` bytes long."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
