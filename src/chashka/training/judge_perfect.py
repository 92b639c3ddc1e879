"""What a judge says of perfect pictures: the report prompts composed of drawings that it never saw. No model can score more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from chashka.data.scenes import columns_of
from chashka.evaluation.composition import judged
from chashka.evaluation.detector import Detector
from chashka.evaluation.scene_prompts import TASKS, ScenePrompt, scene_prompts
from chashka.training.judge import complete
from chashka.training.loop import generator
from chashka.training.pictures import load_pictures
from chashka.training.scenes import Composer, SceneTable, load_scenes


def perfect_shares(
    judge: Detector, shards: Path, on_picture: Callable[[], object] | None = None, seed: int = 12
) -> dict[str, float]:
    """Task → share of its report prompts whose perfect picture the judge gets right; one picture each, as large as the shards' are.

    Drawings are of all sources that are not the judge's own. A prompt with a thing that these lack is left out.
    """
    prompts, scenes = scene_prompts("report"), load_scenes(shards / "scenes.safetensors")
    nouns, own = {f"emoji:{code}" for code in scenes.emoji}, judge.about.sources
    others = load_pictures(shards, keep=lambda s, i: s.sources[i] not in own and s.concepts[s.concept[i]] in nouns)
    # all of them: what a generator was not shown is as good as any
    others = dataclasses.replace(others, held_out=torch.zeros_like(others.held_out))
    composer = Composer(asking(prompts, scenes), others, "cpu")
    right: dict[str, list[bool]] = {task: [] for task in TASKS}
    for row in complete(composer).tolist():
        picture = composer(torch.tensor([row]), generator(seed, row)).numpy()
        right[prompts[row].task].append(judged(judge, prompts[row].asked, picture)[0].correct)
        if on_picture is not None:
            on_picture()
    return {task: sum(found) / len(found) for task, found in right.items() if found}


def asking(prompts: list[ScenePrompt], scenes: SceneTable) -> SceneTable:
    """A table of the prompts' scenes, without captions."""
    found = columns_of([prompt.scene for prompt in prompts])
    columns: dict[str, Any] = {name: torch.from_numpy(values).long() for name, values in found.items()}
    return dataclasses.replace(scenes, **columns)
