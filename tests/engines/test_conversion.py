"""Which conversions are kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from chashka.engines import conversion

pytestmark = pytest.mark.torch


def test_the_oldest_go_but_none_that_may_still_be_read(tmp_path: Path) -> None:
    now = time.time()
    for i in range(conversion.KEPT + 4):
        (tmp_path / f"{i:02}").mkdir()
        age = conversion.YOUNG + 60 * (50 - i) if i < 2 else 60.0 * (50 - i)
        os.utime(tmp_path / f"{i:02}", (now - age, now - age))
    conversion._prune(tmp_path)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [f"{i:02}" for i in range(2, conversion.KEPT + 4)], (
        "two old ones beyond the limit went, two young ones stay"
    )
