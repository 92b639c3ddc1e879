"""How much is heard of who is where, of models whose hearing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from test_judge_perfect import TABLE
from test_judge_perfect import shards as shards

from chashka.data.grammar import Thing
from chashka.data.scenes import Scene
from chashka.errors import InputError
from chashka.evaluation.drawing import Float
from chashka.evaluation.scene_checks import ABOVE, LEFT
from chashka.evaluation.scene_prompts import ScenePrompt
from chashka.families import Bundle
from chashka.training import hearing

pytestmark = pytest.mark.torch
PROMPTS = [
    ScenePrompt(0, "position", Scene("pair", (Thing(0), Thing(1)), LEFT), "seen", False),
    ScenePrompt(1, "single", Scene("single", (Thing(0),)), "", False),
    ScenePrompt(2, "position", Scene("pair", (Thing(1), Thing(0)), ABOVE), "unseen", False),
    ScenePrompt(3, "position", Scene("pair", (Thing(0), Thing(2)), LEFT), "seen", False),
]


@dataclass
class Toy:
    """Says ``of_told``, ``of_exchanged`` and ``of_silent`` shares of the picture, by the row."""

    shares: Sequence[float]
    asked: list[list[str]] = field(default_factory=list)
    masks: list[Any] = field(default_factory=list)
    masked: bool = False
    model: str = "toy"
    preset: Any = None

    def __post_init__(self) -> None:
        self.preset = SimpleNamespace(place=Path("/nowhere"))
        self.codec = SimpleNamespace(encode=self._encode)
        self.text = SimpleNamespace(encode=self._heard)

    def _encode(self, picture: Float) -> Float:
        self.x = picture
        return picture

    def _heard(self, texts: Sequence[str]) -> dict[str, Float]:
        self.asked.append(list(texts))
        return {"tokens": np.zeros((len(texts), 1, 1), np.float32)}

    def denoiser(self, x: Float, sigma: float, cond: Mapping[str, Any]) -> Float:
        assert x.shape == (3, *self.x.shape[1:]) and np.abs(x - self.x).std() > 0.2 * sigma
        self.masks.append(cond.get("concat"))
        return np.concatenate([self.x * np.float32(one) for one in self.shares])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, shards: Path) -> Path:
    monkeypatch.setattr(hearing, "load_scenes", lambda path: TABLE)
    monkeypatch.setattr(hearing, "scene_prompts", lambda which: PROMPTS)
    return shards


def measured(toy: Toy, shards: Path, n: int = 1) -> hearing.HearingReport:
    return hearing.hearing(cast(Bundle, toy), shards, n=n)


def test_a_model_that_hears_and_one_that_does_not(told: Path) -> None:
    toy = Toy((1.0, 0.8, 0.6))
    report = measured(toy, told)
    assert report.scenes == 2, "the third thing has no drawing, and one prompt names no relation"
    assert [level.t for level in report.levels] == list(hearing.TIMES)
    for level in report.levels:
        assert level.told == 0 and level.heard == pytest.approx(0.25) and level.preferred.share == 1
    deaf = measured(Toy((0.9, 0.9, 0.7)), told).levels[0]
    assert deaf.heard == 0 and deaf.preferred.share == 0
    assert measured(Toy((0.8, 1.0, 0.6)), told).levels[0].heard < 0


def test_what_it_is_told(told: Path) -> None:
    toy = Toy((1.0, 0.8, 0.6), masked=True)
    assert measured(toy, told, n=2).scenes == 4
    right, exchanged, nothing = toy.asked[0]
    assert nothing == "" and sorted(right.split()) == sorted(exchanged.split()) and right != exchanged
    assert toy.asked[0] == toy.asked[1] != toy.asked[2]
    assert all(mask.shape[:2] == (3, 5) for mask in toy.masks), "a picture's four channels, and the mask"


def test_shards_without_its_things_are_refused(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "scene_prompts", lambda which: PROMPTS[3:])
    with pytest.raises(InputError, match="no drawings of any prompt's two things"):
        measured(Toy((1.0, 1.0, 1.0)), told)
