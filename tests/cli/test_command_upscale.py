"""``chashka upscale``: files, what they tell, and one line for everything that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chashka import families, images
from toy_model import toy_bundle

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def toy(loads: list[dict[str, Any]], here: Path) -> None:
    """Every test enlarges with the toy model in an empty folder."""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def drawn(call: Call, name: str = "чашка.png") -> None:
    assert call("draw", "чашка", "--seed", 7, "--out", name).code == 0


def test_a_drawing_becomes_larger_and_tells_what_it_was(call: Call, here: Path) -> None:
    drawn(call)
    result = call("upscale", "чашка.png", "--by", 4, "--out", "большая.webp")
    assert (result.code, result.out) == (0, "большая.webp\n")
    assert "256x256 to 1024x1024" in result.err
    assert images.read(here / "большая.webp").shape == (1024, 1024, 4)
    before, after = images.read_metadata(here / "чашка.png"), images.read_metadata(here / "большая.webp")
    assert before is not None and after == before | {"upscaled": [{"by": 4, "model": "toy-plain"}]}
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in (here / "большая.webp").read_bytes()


def test_in_a_folder_nothing_is_replaced(call: Call, here: Path) -> None:
    drawn(call)
    assert [call("upscale", "чашка.png", "--out", "новая").out.strip() for _ in range(2)] == [
        "новая/чашка-x2.png",
        "новая/чашка-x2-2.png",
    ]
    assert images.read(here / "новая" / "чашка-x2.png").shape == (512, 512, 4)


def test_a_photograph_without_alpha_gets_none(call: Call, here: Path) -> None:
    Image.fromarray(np.full((30, 50, 3), 90, np.uint8)).save(here / "фото.jpg")
    result = call("upscale", "фото.jpg", "--out", "b.png", "--json")
    assert (result.code, result.err) == (0, "")
    report = json.loads(result.out)
    assert report | {"file": "b.png", "by": 2, "width": 100, "height": 60, "model": "toy-plain"} == report
    with Image.open(here / "b.png") as larger:
        assert (larger.mode, larger.size) == ("RGB", (100, 60))
    assert images.read_metadata(here / "b.png") is None
    assert b"digitalsourcetype/algorithmicallyEnhanced" in (here / "b.png").read_bytes()


def test_engine_options_reach_the_engine(call: Call, loads: list[dict[str, Any]]) -> None:
    drawn(call)
    words = ("--model", "./mine", "--engine", "torch", "--device", "cuda:1", "--precision", "bf16")
    assert call("upscale", "чашка.png", *words).code == 0
    assert loads[-1] | {"model": "./mine", "engine": "torch", "device": "cuda:1", "precision": "bf16"} == loads[-1]


WRONG: list[tuple[list[str], int, list[str]]] = [
    (["маленькая.png", "--by", "3"], 2, ["by: 3", "2 or 4"]),
    (["маленькая.png", "--by", "два"], 2, ["--by", "два"]),
    (["нет.png"], 5, ["нет.png", "No such file"]),
    (["текст.png"], 5, ["текст.png", "PNG, JPEG, WebP"]),
    (["длинная.png", "--by", "4"], 2, ["1100x4 pixels", "at most 4096", "at most 1024"]),
    (["маленькая.png", "--out", "a.tiff"], 2, ["'a.tiff'", ".png"]),
    (["маленькая.png", "--out", "нет такой папки/a.png"], 5, ["нет такой папки", "does not exist"]),
    (["маленькая.png", "--engine", "abacus"], 2, ["--engine", "abacus"]),
    (["маленькая.png", "--seed", "1"], 2, ["--seed", "chashka upscale --help"]),
]


@pytest.mark.parametrize(("words", "code", "told"), WRONG, ids=lambda v: str(v)[:40])
def test_one_line_for_everything_that_is_wrong(
    call: Call, here: Path, loads: list[dict[str, Any]], words: list[str], code: int, told: list[str]
) -> None:
    Image.new("RGBA", (8, 8)).save(here / "маленькая.png")
    Image.new("RGB", (1100, 4)).save(here / "длинная.png")
    (here / "текст.png").write_text("не картинка")
    before = names(here)
    result = call("upscale", *words)
    assert result.code == code
    assert all(part in result.error for part in told), result.error
    assert names(here) == before and not loads, "nothing is loaded or written for a wrong request"


def test_a_model_without_an_upscaler(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(call)
    monkeypatch.setattr(families, "load", lambda *_, **__: replace(toy_bundle(), upscaler=None))
    result = call("upscale", "чашка.png", "--out", "b.png")
    assert result.code == 4 and "chashka train upscale" in result.error
    assert names(here) == ["чашка.png"]
