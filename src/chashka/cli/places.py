"""Where the command line keeps things of its own: the library itself never asks the environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def cache_dir() -> Path:
    """The user's cache folder of chashka: compiled graphs and the engine's self-test. It can be deleted at any time."""
    from platformdirs import user_cache_path

    return user_cache_path("chashka", appauthor=False)


def own_models() -> Path:
    """Where ``chashka models add`` keeps models, unless --models says another folder."""
    from platformdirs import user_data_path

    return user_data_path("chashka", appauthor=False) / "models"


def models_dir(given: Path | None) -> Path | None:
    """The folder of models to look in: the given one, or the user's own if it is there."""
    own = own_models()
    return given or (own if own.is_dir() else None)


def data_dir() -> Path:
    """Where the application keeps its database and pictures, unless --data or CHASHKA_DATA says another folder."""
    from platformdirs import user_data_path

    said = os.environ.get("CHASHKA_DATA")
    return Path(said) if said else user_data_path("chashka", appauthor=False) / "app"


def remember(files: Iterable[tuple[Path, NDArray[np.uint8]]]) -> list[str]:
    """Put written files, each with its pixels, into the log that ``chashka verify`` asks; a note if that cannot be, no failure."""
    from chashka.app.keeping.made import Made

    made = Made(data_dir())
    try:
        for path, pixels in files:
            made.add(path.read_bytes(), pixels)
    except OSError as error:
        return [f"chashka verify will not know these files: {error}"]
    return []
