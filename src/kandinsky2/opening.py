"""Which model ``get_kandinsky2`` opens: the published one where its files are, otherwise the small one inside the package."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from chashka.errors import EngineError, InputError, MissingExtraError, WeightsError

if TYPE_CHECKING:
    from chashka.families import Bundle

NAMES = {"text2img": "kandinsky-{}", "img2img": "kandinsky-{}", "inpainting": "kandinsky-{}-inpainting"}
"""chashka's name of the published model for each task, by its version."""
MODELS = "CHASHKA_MODELS"
SMALL = "small model"
"""What the warning that the published files are missing is about."""

_warned: set[str] = set()


def load(device: str, task_type: str, cache_dir: str, version: str) -> Bundle:
    """The bundle for a task on ``device``. One warning says what was missing where the small model stands in."""
    if device != "cpu" and not device.startswith("cuda"):
        raise InputError(f"device: {device!r} is not possible; allowed: 'cuda' or 'cpu'")
    name = NAMES[task_type].format(version)
    folder, missing = _found(name, [Path(cache_dir), *([Path(os.environ[MODELS])] if os.environ.get(MODELS) else [])])
    if folder is None:
        warn_once(
            SMALL,
            f"drawing with the small model inside the package, because the published one is not here: {missing}. "
            f"cache_dir, or the variable {MODELS}, says where it is looked for",
            4,
        )
        return _embedded(device, told=True)
    return _published(name, folder, device)


def _found(name: str, places: list[Path]) -> tuple[Path | None, str]:
    """The folder of the model's files, or what is said of the first place."""
    from chashka import families

    said = []
    for place in places:
        try:
            return families.located(name, families.find(name)[1], place).folder, ""
        except WeightsError as error:
            said.append(str(error))
    return None, said[0]


def _published(name: str, folder: Path, device: str) -> Bundle:
    """On ``device``; 'cuda' without CUDA is the CPU, with one warning."""
    import chashka

    if device.startswith("cuda"):
        try:
            return chashka.load(name, engine="torch", device=device, models=folder)
        except EngineError as error:
            warn_once(f"device {device}", f"device {device!r} cannot be used ({error}); drawing on the CPU", 5)
    return chashka.load(name, engine="torch", device="cpu", models=folder)


def _embedded(device: str, told: bool = False) -> Bundle:
    """The package's model on ``device``; 'cuda' without CUDA (or without torch) is the CPU. told: without a second warning."""
    import chashka

    if device.startswith("cuda"):
        try:
            return chashka.load(engine="torch", device=device)
        except (MissingExtraError, EngineError) as error:
            if not told:
                warn_once(f"device {device}", f"device {device!r} cannot be used ({error}); drawing on the CPU", 5)
    return chashka.load()


def warn_once(about: str, message: str, level: int) -> None:
    """Warn at the user's own line, which is ``level`` calls up, the first time that there is something to say about this."""
    if about not in _warned:
        _warned.add(about)
        warnings.warn(message, UserWarning, stacklevel=level)
