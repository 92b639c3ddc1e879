"""Model cards from files alone, and with a registry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chashka.checkpoints import sha256, write
from chashka.evaluation.card import card, weight_facts
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
    (file,) = weight_facts(preset)
    assert f"| `unet.safetensors` | {file['bytes']:,} | int8 | MIT | `{digest}` |" in text
    assert "no registry beside this model" in text and "1,200 steps" in text
    assert 'defaults {"steps": 4}' in text
    assert "## What it learnt from\n\n### Drawings\n\nby many\n" in text


def test_the_registry_tells_history_and_what_is_not_known(preset: Preset) -> None:
    digest = sha256(preset.folder / "unet.safetensors")
    parent = Entry("old/unet.safetensors", "m", "unet", "ab" * 32, 1, "fp16", "MIT")
    entry = replace(parent, file="unet.safetensors", sha256=digest, hours=2.5, parents=["ab" * 32], note="by night")
    text = card("m-tiny", preset, Registry((entry,), (parent,)))
    assert "- hours of the last run: 2.5" in text and "- machine: not known" in text and "- note: by night" in text
    assert "- began with: `abababababababab…` (old/unet.safetensors)" in text
    assert "began with: random weights" in card("m", preset, Registry((replace(entry, parents=[]),)))
    assert "is not in the registry; 1,200 steps" in card("m", preset, Registry((parent,)))
