"""Where the command line keeps things of its own: the library itself never asks the environment."""

from __future__ import annotations

from pathlib import Path


def cache_dir() -> Path:
    """The user's cache folder of chashka: compiled graphs and the engine's self-test. It can be deleted at any time."""
    from platformdirs import user_cache_path

    return user_cache_path("chashka", appauthor=False)
