"""Checkpoints that several modules draw with."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny Stable Diffusions; see ``stable_file``. For modules that need torch."""
    from stable_file import write_checkpoints

    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"))
