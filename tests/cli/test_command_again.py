"""``chashka again``: the same picture from its own file, and what is missing or other than it was."""

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
from chashka.request import Added
from toy_model import toy_bundle

Call = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("loads", "here")


def test_the_same_file_comes_again(call: Call, here: Path) -> None:
    words = ["--seed", 7, "-n", 2, "--steps", 3, "--sampler", "DPM++ 2M Karras", "--negative", "плохо", "--model"]
    assert call("draw", "кот на столе", *words, "kandinsky-teacup", "--out", "drawn").code == 0
    first, second = sorted((here / "drawn").iterdir())
    for file in (first, second):
        result = call("again", file, "--out", "again.png", "--model", "kandinsky-teacup")
        assert result.code == 0 and result.out == "again.png\n" and "note" not in result.err
        assert np.array_equal(images.read(here / "again.png"), images.read(file))
        before, after = images.read_metadata(file), images.read_metadata(here / "again.png")
        assert before is not None and after is not None
        for told in (before, after):
            told["request"] |= {"n": 1, "first": told["picture"]}
        assert before == after


def test_the_model_is_the_files_own(call: Call, here: Path, loads: list[dict[str, Any]]) -> None:
    drawn = _drawn(here, model="kandinsky-teacup", family="kandinsky")
    assert call("again", drawn).code == 0
    assert loads[-1]["model"] == "kandinsky-teacup"
    for model in ("kandinsky-gone", "../models/x.ckpt", "x.safetensors", ""):
        error = call("again", _drawn(here, model=model, family="kandinsky")).error
        assert "model: the picture was drawn with" in error and "give it with --model" in error
    assert (
        call("again", _drawn(here, model="kandinsky-gone", family="kandinsky"), "--model", families.DEFAULT).code == 0
    )


def test_what_it_was_drawn_with_is_loaded(
    call: Call, here: Path, loads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "models" / "loras").mkdir(parents=True)
    file = here / "models" / "loras" / "ink.safetensors"
    file.write_bytes(b"ink")
    digest = "d4b5b4a4ca5af0eb5d6d0eb1b0d14e2e8e6b6f6ba7ba3f9c4a62b6bc0a0d4ad1"
    said = {"loras": [{"name": "ink", "sha256": digest, "weight": 0.8, "text_weight": 0.5}]}
    drawn = _drawn(here, model="kandinsky-teacup", family="kandinsky", **said)
    error = call("again", drawn, "--models", "models").error
    assert (
        "lora: the picture was drawn with 'ink' of another content (sha256 d4b5b4a4ca5a…) than models/loras/ink"
        in error
    )
    assert "--with" in error and "--anyway" in error
    result = call("again", drawn, "--models", "models", "--anyway", "--json")
    assert result.code == 0 and "this one was taken" in json.loads(result.out)["notes"][0]
    (one,) = loads[-1]["loras"]
    assert (one[0].name, *one[1]) == ("ink.safetensors", 0.8, 0.5) and loads[-1]["vae"] is None
    file.unlink()
    assert "which is not found in models/loras" in call("again", drawn, "--models", "models", "--anyway").error
    error = call("again", drawn, "--with", "gone.pt", "--models", "models").error
    assert error.startswith("error: with: there is no file or folder 'gone.pt'")


def test_other_weights_are_an_error_or_a_note(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "unet.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(families, "load", lambda *_, **__: replace(toy_bundle(), weights=here / "unet.safetensors"))
    drawn = _drawn(
        here, model="kandinsky-teacup", family="kandinsky", checkpoint={"name": "teacup", "sha256": "a" * 64}
    )
    error = call("again", drawn).error
    assert "model: the picture was drawn with other weights (sha256 aaaaaaaaaaaa…)" in error and "--anyway" in error
    result = call("again", drawn, "--anyway")
    assert result.code == 0 and "note: model: the picture was drawn with other weights" in result.err


def test_a_picture_of_another_one_needs_that(call: Call, here: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 4), dtype=np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    mask[:, 40:] = 255
    for name, array in (("start", pixels), ("other", pixels[::-1]), ("mask", mask)):
        Image.fromarray(np.ascontiguousarray(array)).save(here / f"{name}.png")
    start = ["--init", "start.png", "--mask", "mask.png"]
    assert call("draw", "кот", *start, "--seed", 1, "--model", "kandinsky-teacup", "--out", "drawn.png").code == 0
    model = ["--model", "kandinsky-teacup"]
    assert "init: the picture was made from one" in call("again", "drawn.png", *model).error
    assert "give it with --mask" in call("again", "drawn.png", "--init", "start.png", *model).error
    error = call("again", "drawn.png", "--init", "other.png", "--mask", "mask.png", *model).error
    assert error.startswith("error: init: this is another one than the picture was made from; give that one, or take")
    assert call("again", "drawn.png", *start, "--out", "again.png", *model).code == 0
    assert np.array_equal(images.read(here / "again.png"), images.read(here / "drawn.png"))
    result = call("again", "drawn.png", "--init", "other.png", "--mask", "mask.png", "--anyway", *model)
    assert result.code == 0 and "note: init: another one than the picture was made from was taken" in result.err
    assert call("draw", "кот", "--seed", 1, "--out", "plain.png").code == 0
    assert "init: the picture was made without; leave it out" in (
        call("again", "plain.png", "--init", "start.png", *model).error
    )


def test_what_cannot_be_drawn_again_is_told(call: Call, here: Path) -> None:
    Image.new("RGB", (8, 8)).save(here / "photo.jpg")
    result = call("again", "photo.jpg")
    assert result.code == 5 and "does not say how it was drawn" in result.error
    assert call("again", "nowhere.png").code == 5
    mixed = _drawn(here, sources=[{"use": "picture 0", "width": 8, "height": 8, "sha256": "0" * 64}])
    assert "use chashka mix, vary or extend" in call("again", mixed, "--model", families.DEFAULT).error
    newer = _drawn(here, request={"prompt": "a", "shine": 3})
    assert "shine: there is no such field" in call("again", newer, "--model", families.DEFAULT).error
    larger = _drawn(here, upscaled=[{"by": 2, "model": "m"}])
    assert "the file was enlarged after it was drawn" in call("again", larger, "--model", families.DEFAULT).err


def test_drawing_tells_what_the_model_was_opened_with(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = (Added("lora", "ink", "0" * 64, 0.8, 0.5), Added("vae", "soft"))
    monkeypatch.setattr(families, "load", lambda *_, **__: replace(toy_bundle(), added=added))
    assert call("draw", "кот", "--seed", 1, "--grid", "-n", 2, "--out", "drawn").code == 0
    for file in (here / "drawn").iterdir():
        stored = images.read_metadata(file)
        assert stored is not None and stored["vae"] == {"name": "soft"}
        assert stored["loras"] == [{"name": "ink", "sha256": "0" * 64, "weight": 0.8, "text_weight": 0.5}]


def _drawn(folder: Path, **said: Any) -> Path:
    """A file that says this."""
    told = {
        "request": {"prompt": "кот", "steps": 2, "seed": 1},
        "picture": 0,
        "seed": 1,
        "model": "m",
        "family": "f",
    } | said
    label = images.Label("trainedAlgorithmicMedia", "кот", json.dumps(told))
    return images.save(images.Labelled(np.zeros((8, 8, 4), np.uint8), label), folder / "said.png")
