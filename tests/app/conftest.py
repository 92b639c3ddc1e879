"""The application over a real store, for the tests of its routes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from served import Served, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For tests that do not look at everything there is, and leave nothing behind that others would notice."""
    with serving(tmp_path_factory.mktemp("shared")) as found:
        yield found
