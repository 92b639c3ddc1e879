"""What a judge says of perfect pictures, prompts composed of drawings that it never saw: how strict it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chashka.data.scenes import columns_of
from chashka.evaluation.detections import Maps
from chashka.evaluation.detector import Detector
from chashka.evaluation.drawing import Float
from chashka.evaluation.scene_checks import judged
from chashka.evaluation.scene_prompts import TASKS, ScenePrompt, Which, scene_prompts
from chashka.training.judge import THRESHOLDS, complete
from chashka.training.loop import generator
from chashka.training.pictures import load_pictures
from chashka.training.scenes import Composer, SceneTable, load_scenes

SEED = 12
COUNTING = "counting"


@dataclass(frozen=True, slots=True)
class Measured:
    """Thresholds, chosen on the tuning prompts, and with them, of the report prompts by task: ``perfect``, the share whose perfect
    picture is right, and ``other``, the share that is found in the perfect picture of another prompt of the same task."""

    threshold: float
    strict: float
    perfect: dict[str, float]
    other: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Shown:
    prompt: ScenePrompt
    picture: Float
    maps: Maps


def measure(judge: Detector, shards: Path, on_picture: Callable[[], object] | None = None) -> Measured:
    """Show it a perfect picture of every prompt, as large as the shards', of all drawings that are not of the judge's own sources.
    A prompt with a thing that these lack is left out.

    The usual threshold is the one at which perfect pictures are most often right, and others least; the strict one, among those
    above it, the one at which most numbers are right.
    """
    tuning, report = (_shown(judge, shards, which, on_picture) for which in ("dev", "report"))
    usual = max(THRESHOLDS, key=lambda t: _mean(_shares(tuning, t, t)) - _mean(_shares(tuning, t, t, 1)))
    above = [t for t in THRESHOLDS if t >= usual]
    strict = max(above, key=lambda t: _shares(tuning, usual, t).get(COUNTING, 0.0))
    return Measured(usual, strict, _shares(report, usual, strict), _shares(report, usual, strict, 1))


def _shown(judge: Detector, shards: Path, which: Which, on_picture: Callable[[], object] | None) -> list[_Shown]:
    prompts, scenes = scene_prompts(which), load_scenes(shards / "scenes.safetensors")
    nouns, own = {f"emoji:{code}" for code in scenes.emoji}, judge.about.sources
    others = load_pictures(shards, keep=lambda s, i: s.sources[i] not in own and s.concepts[s.concept[i]] in nouns)
    # all of them: what a generator was not shown is as good as any
    others = dataclasses.replace(others, held_out=torch.zeros_like(others.held_out))
    composer, found = Composer(asking(prompts, scenes), others, "cpu"), []
    for row in complete(composer).tolist():
        picture = composer(torch.tensor([row]), generator(SEED, row)).numpy()
        found.append(_Shown(prompts[row], picture[0], judge.look(picture)[0]))
        if on_picture is not None:
            on_picture()
    return found


def _shares(shown: Sequence[_Shown], usual: float, strict: float, further: int = 0) -> dict[str, float]:
    """Task → share of its prompts that are found in their own pictures, or in those so many ``further`` on in their task."""
    found = {}
    for task in TASKS:
        own = [one for one in shown if one.prompt.task == task]
        right = [_right(own[i].prompt, own[(i + further) % len(own)], usual, strict) for i in range(len(own))]
        if right:
            found[task] = sum(right) / len(right)
    return found


def _right(prompt: ScenePrompt, shown: _Shown, usual: float, strict: float) -> bool:
    return judged(prompt.asked, shown.maps, usual, strict, shown.picture).correct


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / max(len(shares), 1)


def asking(prompts: Sequence[ScenePrompt], scenes: SceneTable) -> SceneTable:
    """A table of the prompts' scenes, without captions."""
    found = columns_of([prompt.scene for prompt in prompts])
    columns: dict[str, Any] = {name: torch.from_numpy(values).long() for name, values in found.items()}
    return dataclasses.replace(scenes, **columns)
