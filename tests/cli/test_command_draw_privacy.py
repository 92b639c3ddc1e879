"""``--privacy``: what files and their names say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chashka import images
from chashka.app.keeping.marks import verify

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def toy(loads: list[dict[str, Any]], here: Path) -> None:
    """Every test draws with the toy model in an empty folder."""


@pytest.mark.parametrize(("privacy", "kind"), [("full", "full"), ("provenance", "mark"), ("none", "unknown")])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_files_say_no_more_than_they_may(call: Call, here: Path, privacy: str, kind: str, suffix: str) -> None:
    assert call("draw", "чашка", "--seed", 7, "--privacy", privacy, "--out", f"a{suffix}").code == 0
    data = (here / f"a{suffix}").read_bytes()
    assert verify(data).kind == kind
    assert (images.read_metadata(data) is not None) == (privacy == "full")
    assert call("draw", "чашка", "--seed", 7, "--out", f"b{suffix}").code == 0
    assert (images.read(data) == images.read(here / f"b{suffix}")).all()


@pytest.mark.parametrize("privacy", ["provenance", "none"])
def test_names_tell_neither_prompt_nor_seed(call: Call, here: Path, privacy: str) -> None:
    result = call("draw", "чашка", "--seed", 77, "-n", 2, "--grid", "--privacy", privacy, "--out", "o")
    assert result.out.split() == ["o/picture-0.png", "o/picture-1.png", "o/picture-grid.png"]
    for file in (here / "o").iterdir():
        assert images.read_metadata(file) is None


def test_other_levels_are_refused(call: Call) -> None:
    assert call("draw", "чашка", "--privacy", "secret").code == 2
