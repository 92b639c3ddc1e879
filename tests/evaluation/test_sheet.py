"""The contact sheet from a model whose mathematics is closed: files, what they say, and that they come out the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chashka.errors import FileError, InputError
from chashka.evaluation.drawing import draw_prompts, settings, weights_of
from chashka.evaluation.prompts import PROMPTS
from chashka.evaluation.sheet import GAP, LABEL, SIDE, contact_sheet, strip
from chashka.families import Preset
from chashka.families.kandinsky import FAMILY
from chashka.generate import draw
from toy_model import toy_bundle

FEW = PROMPTS[:7]


def test_all_prompts_with_their_seeds_and_nearest_pictures(shards: Path, tmp_path: Path) -> None:
    seen: list[None] = []
    out = tmp_path / "new" / "folder"
    report = contact_sheet(toy_bundle(), out, shards=shards, steps=2, on_picture=lambda: seen.append(None))
    assert len(seen) == 48
    assert [row.prompt for row in report.rows] == list(PROMPTS)
    assert report.settings["steps"] == 2
    assert report.settings["sampler"] == "ddim"
    assert "seed" not in report.settings
    stored = json.loads((out / "sheet.json").read_text(encoding="utf-8"))
    assert stored["rows"][0]["prompt"]["text"] == "космос внутри чайной чашки"
    assert {row["nearest"]["licence"] for row in stored["rows"]} == {"CC0-1.0"}
    assert stored["drawn"]["pictures"] == 48
    assert stored["held_out"]["pictures"] == 6
    assert stored["held_out"]["latent_distance"] > 0
    page = (out / "sheet.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == 48
    assert all(row.count("|") == 10 for row in rows)
    assert "![the sheet](sheet.png)" in page
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.height == 8 * (SIDE + LABEL + GAP) + GAP


def test_the_sheet_shows_what_draw_gives(tmp_path: Path) -> None:
    bundle = toy_bundle()
    contact_sheet(bundle, tmp_path, prompts=FEW)
    with Image.open(tmp_path / "sheet.png") as sheet:
        values = np.asarray(sheet)
    for i, prompt in enumerate(FEW):
        left, top = GAP + i % 6 * (SIDE + GAP), GAP + i // 6 * (SIDE + LABEL + GAP) + LABEL
        cell = values[top : top + SIDE, left : left + SIDE].astype(float)
        (alone,) = draw(bundle, bundle.request(prompt=prompt.text, seed=prompt.seed))
        wanted = alone.pixels[..., :3].reshape(-1, 3).mean(0)
        assert np.abs(cell.reshape(-1, 3).mean(0) - wanted).max() < 3


def test_strip_is_the_first_prompts_of_one_thing_in_no_named_style() -> None:
    drawings = draw_prompts(toy_bundle(), PROMPTS[:14], steps=1)
    wanted = [d for d in drawings if d.prompt.seed in (3, 4, 5, 6, 7, 8, 9, 10)]
    line = np.asarray(strip(drawings)).astype(float)
    assert line.shape == (128, 8 * 128, 3)
    for i, drawing in enumerate(wanted):
        cell = line[:, i * 128 : (i + 1) * 128].reshape(-1, 3).mean(0)
        assert np.abs(cell - drawing.picture.pixels[..., :3].reshape(-1, 3).mean(0)).max() < 3


def test_same_model_same_files(shards: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        contact_sheet(toy_bundle(), tmp_path / name, shards=shards, prompts=FEW, steps=2, guidance_scale=2.0)
    for name in ("sheet.png", "strip.png", "sheet.md", "sheet.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_without_shards_nothing_is_compared(tmp_path: Path) -> None:
    report = contact_sheet(toy_bundle(), tmp_path, prompts=FEW, steps=2)
    assert report.drawn is None
    assert all(row.nearest is None for row in report.rows)
    page = (tmp_path / "sheet.md").read_text(encoding="utf-8")
    assert "nearest" not in page
    assert page.endswith("|\n")


def test_wrong_settings_and_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="steps: 0 is not possible"):
        contact_sheet(toy_bundle(), tmp_path, steps=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write the sheet"):
        contact_sheet(toy_bundle(), tmp_path / "file", prompts=FEW[:1], steps=2)


def test_weights_are_named_by_their_sha256(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    bundle = toy_bundle()
    preset = Preset("plain", tmp_path, ("a.xml", "a.safetensors"), 256 * 256, 64, "", "", lambda *_: bundle)
    opened = type(bundle)(FAMILY, preset, bundle.denoiser, bundle.codec, bundle.text, bundle.denoise)
    assert list(weights_of(opened)) == ["a.safetensors"]
    assert weights_of(opened)["a.safetensors"].startswith("9a129038")


def test_settings_are_those_really_used() -> None:
    drawings = draw_prompts(toy_bundle(), FEW[:2], steps=3, guidance_scale=None)
    drawn = settings(drawings[0].picture.request)
    assert drawn["steps"] == 3 and drawn["guidance_scale"] == 1.0
    assert not {"prompt", "seed", "mask_blur"} & drawn.keys()
    assert [d.picture.seed for d in drawings] == [0, 1]
