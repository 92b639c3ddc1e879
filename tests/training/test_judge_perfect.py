"""A judge's own accuracy on perfect pictures of the prompts that models are asked, made of drawings that it never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chashka.data.grammar import Thing
from chashka.data.scenes import Scene
from chashka.data.shards import Labels, Record, pack, write_shard
from chashka.evaluation.composition_pages import _perfect
from chashka.evaluation.detections import Maps
from chashka.evaluation.detector import About
from chashka.evaluation.drawing import Float
from chashka.evaluation.scene_prompts import ScenePrompt
from chashka.training import judge_perfect
from chashka.training.scenes import SceneTable

pytestmark = pytest.mark.torch
ABOUT = About("judge", "0", ("ours",), 0.3, 0.5, 10, 1.0, 1.0, 1.0, 1.0)
NONE = torch.zeros(0, dtype=torch.int64)
TABLE = SceneTable(*[NONE] * 11, ["a", "b", "c"], ["flat"], ["en"])
PROMPTS = [
    ScenePrompt(0, "single", Scene("single", (Thing(0),)), "", False),
    ScenePrompt(1, "single", Scene("single", (Thing(1),)), "", False),
    ScenePrompt(2, "two", Scene("pair", (Thing(0), Thing(1))), "", False),
    ScenePrompt(3, "two", Scene("pair", (Thing(0), Thing(2))), "", False),
]


class ByColour:
    """Sees label 0 where a picture is red and 1 where it is blue, each in the middle of what it sees."""

    about = ABOUT

    def __init__(self, named: Callable[[int], int] = lambda label: label) -> None:
        self.named = named

    def look(self, pixels: Float) -> list[Maps]:
        return [self._maps(picture * 0.5 + 0.5) for picture in pixels]

    def _maps(self, unit: Float) -> Maps:
        heat, box, mask = (
            np.zeros((4, 8, 8), np.float32),
            np.zeros((4, 8, 8), np.float32),
            np.zeros((3, 8, 8), np.float32),
        )
        box[2:] = 0.2
        for label, channel in ((0, 0), (1, 2)):
            seen = unit[channel] > 0.4
            if seen.any():
                y, x = (int(np.argwhere(seen)[:, axis].mean() * 8 / seen.shape[axis]) for axis in (0, 1))
                heat[self.named(label), y, x] = 0.9
        return Maps(heat, box, mask)


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A red and a blue square by others; what the judge knows is green."""
    records = []
    for concept, channel, source in ((0, 0, "theirs"), (1, 2, "theirs"), (0, 1, "ours"), (1, 1, "ours")):
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[16:48, 16:48, channel], pixels[16:48, 16:48, 3] = 200, 255
        records.append(Record(f"{source}:{concept}", source, concept, 0, 0, 1.0, pack(pixels)))
    labels = Labels(("emoji:a", "emoji:b"), ("flat",), ("things",))
    write_shard(tmp_path / "pictures-000.safetensors", records, labels, 64)
    monkeypatch.setattr(judge_perfect, "load_scenes", lambda path: TABLE)
    monkeypatch.setattr(judge_perfect, "scene_prompts", lambda which: PROMPTS)
    return tmp_path


def test_a_judge_that_sees_gets_everything_right_and_one_that_errs_does_not(shards: Path) -> None:
    seen: list[int] = []
    found = judge_perfect.measure(ByColour(), shards, lambda: seen.append(1))
    assert (found.perfect, found.other["single"]) == ({"single": 1.0, "two": 1.0}, 0.0)
    assert len(seen) == 6, "nobody drew the third thing"
    assert found.threshold <= found.strict < 0.9
    blind = judge_perfect.measure(ByColour(lambda label: 0), shards)
    assert blind.perfect == {"single": 0.5, "two": 0.0} and blind.other["single"] == 0.5


def test_the_page_says_it_where_it_is_known() -> None:
    assert _perfect(ABOUT) == []
    (row,) = _perfect(replace(ABOUT, perfect={"single": 0.9, "counting": 0.5}))
    assert row.startswith("| *perfect pictures* | *70.0%* | 90.0% |  | 50.0% |")
