"""Where the command line keeps things of its own: the library itself never asks the environment."""

from __future__ import annotations

from pathlib import Path


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
    """Where the application keeps its database and pictures, unless --data says another folder."""
    from platformdirs import user_data_path

    return user_data_path("chashka", appauthor=False) / "app"
