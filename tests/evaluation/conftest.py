"""Fixtures of the evaluation's tests."""

from __future__ import annotations

from pathlib import Path

import made_shards
import pytest


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made shards; see made_shards."""
    folder = tmp_path_factory.mktemp("shards")
    made_shards.write(folder)
    return folder
