"""Model cards from files alone, and with a registry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chashka import families
from chashka.checkpoints import sha256, write
from chashka.checkpoints.bfloat16 import BFLOAT16
from chashka.evaluation.card import card, precision_of, weight_facts
from chashka.evaluation.card_figures import REPORTS
from chashka.evaluation.registry import Entry, Registry
from chashka.families import Preset
from toy_model import toy_bundle


@pytest.fixture
def preset(tmp_path: Path) -> Preset:
    folder = tmp_path / "model"
    metadata = {"precision": "int8", "licence": "MIT", "steps": "1200", "defaults": '{"steps": 4}'}
    write(folder / "unet.safetensors", {"w": np.ones(3, np.float32)}, metadata)
    (tmp_path / "ATTRIBUTION.md").write_text("# Attribution\n\n## Drawings\n\nby many\n", encoding="utf-8")
    files = ("unet.xml", "unet.safetensors", "lost.safetensors")
    return Preset("tiny", folder, files, 1, 1, "tiny things", "MIT", lambda *_: toy_bundle())


def test_files_alone_are_enough(preset: Preset) -> None:
    text = card("m-tiny", preset, None)
    assert text.startswith("# m-tiny\n\nTiny things. Licence: MIT.")
    digest = sha256(preset.folder / "unet.safetensors")
    ((file,), faults) = weight_facts(preset)
    assert not faults
    assert f"| `unet.safetensors` | {file['bytes']:,} | int8 | MIT | `{digest}` |" in text
    assert "no registry beside this model" in text and "1,200 steps" in text
    assert 'defaults {"steps": 4}' in text
    assert "## What it learnt from\n\n### Drawings\n\nby many\n" in text


def test_precision_is_what_most_numbers_are(tmp_path: Path) -> None:
    tensors = {"a": np.ones(40, np.float16), "b": np.ones(3, np.float32), "ids": np.ones(2, np.int64)}
    write(tmp_path / "a.safetensors", tensors, {})
    write(tmp_path / "b.safetensors", {"a": np.ones(4, np.float16).view(BFLOAT16)}, {})
    write(tmp_path / "c.safetensors", {}, {})
    assert [precision_of(tmp_path / f"{name}.safetensors") for name in "abc"] == ["fp16", "bf16", "not known"]


def test_the_registry_tells_history_and_what_is_not_known(preset: Preset) -> None:
    digest = sha256(preset.folder / "unet.safetensors")
    parent = Entry("old/unet.safetensors", "m", "unet", "ab" * 32, 1, "fp16", "MIT")
    entry = replace(parent, file="unet.safetensors", sha256=digest, hours=2.5, parents=["ab" * 32], note="by night")
    text = card("m-tiny", preset, Registry((entry,), (parent,)))
    assert "- hours of the last run: 2.5" in text and "- machine: not known" in text and "- note: by night" in text
    assert "- began with: `abababababababab…` (old/unet.safetensors)" in text
    lost = replace(parent, file="(not shipped: average.safetensors)")
    assert "`abababababababab…` (not shipped: average.safetensors)" in card(
        "m-tiny", preset, Registry((entry,), (lost,))
    )
    told = replace(entry, captions="c" * 64, frozen={"clip": "f" * 64})
    text = card("m-tiny", preset, Registry((told,), (parent,)))
    assert f"- captions (sha256): `{'c' * 64}`" in text and f"- read as it was: clip `{'f' * 16}…`" in text
    assert "scenes (sha256)" not in text
    assert "began with: random weights" in card("m", preset, Registry((replace(entry, parents=[]),)))
    assert "is not in the registry; 1,200 steps" in card("m", preset, Registry((parent,)))


def test_drafts_are_told_of_once(preset: Preset) -> None:
    """By the change that they are drawn with, where there is one; by the U-Net's own settings otherwise."""
    metadata = {"precision": "int8", "licence": "MIT", "fast": '{"steps": 8}'}
    write(preset.folder / "unet.safetensors", {"w": np.ones(3, np.float32)}, metadata)
    assert '- unet: fast {"steps": 8}' in card("m-tiny", preset, None)
    write(preset.folder / "fast.safetensors", {"w": np.ones(3, np.float32)}, metadata | {"fast": '{"steps": 4}'})
    both = replace(preset, files=(*preset.files, "fast.safetensors"))
    lines = [line for line in card("m-tiny", both, None).splitlines() if ": fast " in line]
    assert lines == ['- fast: fast {"steps": 4}']


def test_measured_figures_are_shown_where_their_reports_are(preset: Preset, tmp_path: Path) -> None:
    digest = sha256(preset.folder / "unet.safetensors")
    folder = tmp_path / "reports" / "m-tiny"
    folder.mkdir(parents=True)
    recognition = {
        "weights": {"../other/unet.safetensors": digest},
        "judge": "nearest",
        "drawn": {"pictures": 84, "top1": 0.5, "top5": 0.75},
        "held_out": {"top1": 0.6, "top5": 0.7},
    }
    languages = {
        "weights": {"unet.safetensors": "0" * 64},
        "sentences": 200,
        "unseen": 74,
        "rows": [{"locale": "ru", "found": {"share": 0.98}, "found_unseen": {"share": 0.9}}],
    }
    for name, report in (("recognition", recognition), ("languages", languages)):
        (folder / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    text = card("m_tiny", preset, None, tmp_path / "reports")
    assert (
        "50.0% at once, 75.0% among five, of 84 drawings (of held-out pictures 60.0%, 70.0%): `recognition.json`"
        in text
    )
    assert "nearest of 200: ru 98.0% (of other weights than these): `languages.json`" in text
    assert "the 74 that no training scene says: ru 90.0%" in text
    assert "not beside this model" in card("m-other", preset, None, tmp_path / "reports")
    assert "not beside this model" in card(str(folder), preset, None, tmp_path / "reports")
    assert "not beside this model" in card("m-tiny", preset, None)


def test_the_cards_of_the_package_have_figures(project: Path) -> None:
    """Every kind of report that is stored can be read; whether they are of these weights, they say themselves."""
    for name in ("kandinsky-teacup", "stable_diffusion-teacup"):
        preset = families.find(name)[1]
        text = card(name, preset, None, project / "docs" / "models")
        figures = text.partition("## How well")[2].partition("## Where")[0]
        stored = project / "docs" / "models" / name.replace("_", "-")
        shown = [file for file in REPORTS if (stored / file).is_file()]
        assert shown and all(f"`{Path(file).name}`" in figures for file in shown)
        assert text.count(": fast ") <= 1
