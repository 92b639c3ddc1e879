"""Traced pictures: what they say at each level, and that their curves stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_marks import pixels

from chashka import images
from chashka.app.keeping.marks import verify
from chashka.errors import InputError
from chashka.images.privacy import with_privacy
from chashka.request import Picture, Request

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    request = Request(prompt="кот <с> чашкой", seed=7)
    picture = Picture(pixels(), 7, 0, request, model="teacup", family="kandinsky")
    path: Path = images.save(picture, tmp_path_factory.mktemp("svg") / "кот.svg")
    return path.read_bytes()


def paths(data: bytes) -> list[str]:
    return [line for line in data.decode().splitlines() if line.startswith("<path")]


def test_every_level(traced: bytes) -> None:
    assert with_privacy(traced, "full") == (traced, "image/svg+xml")
    mark, _ = with_privacy(traced, "provenance")
    nothing, _ = with_privacy(traced, "none", "svg")
    assert paths(mark) == paths(nothing) == paths(traced) != []
    assert [verify(data).kind for data in (traced, mark, nothing)] == ["full", "mark", "unknown"]
    assert "кот" not in mark.decode() and "teacup" not in mark.decode()
    assert b"chashka" not in nothing and b"<metadata" not in nothing


def test_curves_become_no_pixels(traced: bytes) -> None:
    with pytest.raises(InputError, match="allowed: svg"):
        with_privacy(traced, "full", "png")
