"""``--svg`` and ``--out NAME.svg``: which files are written, and what the report says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chashka import images

pytestmark = pytest.mark.extra

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def toy(loads: list[dict[str, Any]], here: Path) -> None:
    """Every test draws with the toy model in an empty folder."""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_an_svg_file_beside_each_picture(call: Call, here: Path) -> None:
    result = call("draw", "синий кот", "-n", 2, "--seed", 7, "--svg", "--grid", "--out", "новая папка")
    assert result.code == 0
    stem = "синий-кот-7"
    made = [f"{stem}-0.png", f"{stem}-1.png", f"{stem}-0.svg", f"{stem}-1.svg", f"{stem}-grid.png"]
    assert [Path(line).name for line in result.out.splitlines()] == made
    assert names(here / "новая папка") == sorted(made)
    png, svg = (images.read_metadata(here / "новая папка" / made[i]) for i in (1, 3))
    assert png is not None and png == svg and svg["picture"] == 1


def test_both_files_of_a_given_name(call: Call, here: Path) -> None:
    for _ in range(2):
        report = json.loads(call("draw", "кот", "--seed", 7, "--svg", "--out", "мой кот.webp", "--json").out)
    assert (report["pictures"][0]["file"], report["pictures"][0]["svg"]) == ("мой кот.webp", "мой кот.svg")
    assert names(here) == ["мой кот.svg", "мой кот.webp"]


@pytest.mark.parametrize("more", [[], ["--svg"]])
def test_an_svg_file_alone(call: Call, here: Path, more: list[str]) -> None:
    assert call("draw", "кот", "--seed", 7, "--out", "кот.svg", *more).out == "кот.svg\n"
    assert names(here) == ["кот.svg"]
    result = call("draw", "кот", "-n", 2, "--seed", 7, "--grid", "--out", "кот.svg", *more)
    assert result.out.splitlines() == ["кот-0.svg", "кот-1.svg", "кот-grid.png"]


def test_the_report_names_svg_files_only_where_they_are(call: Call) -> None:
    report = json.loads(call("draw", "кот", "--seed", 7, "--json").out)
    assert "svg" not in report["pictures"][0] and report["grid"] is None


def test_extended_pictures_too(call: Call, here: Path) -> None:
    Image.fromarray(np.full((96, 96, 4), 200, np.uint8)).save(here / "a.png")
    result = call("extend", "a.png", "море", "--right", 32, "--seed", 1, "--svg", "--out", "b.png")
    assert (result.code, result.out) == (0, "b.png\nb.svg\n")
    stored = images.read_metadata(here / "b.svg")
    assert stored is not None and stored == images.read_metadata(here / "b.png")
