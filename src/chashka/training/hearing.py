"""How much a model hears of who is where: by its errors, without a judge.

Of each prompt that names a relation a scene is composed anew of the drawings that the model learnt from. It is put in noise, and
the model takes the noise away three times: told the prompt, the same with its two things exchanged, and nothing. A model that
knows who is where makes a smaller error with the first than with the second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from chashka.diffusion import PictureNoise, mask_channels
from chashka.errors import InputError
from chashka.evaluation.drawing import Float, left_out
from chashka.evaluation.retrieval import Share, share
from chashka.evaluation.scene_prompts import ScenePrompt, Which, scene_prompts
from chashka.families import Bundle
from chashka.training.judge import complete
from chashka.training.judge_perfect import asking
from chashka.training.loop import generator
from chashka.training.pictures import load_pictures, without
from chashka.training.scenes import Composer, load_scenes

TIMES = (0.95, 0.85, 0.7, 0.5)
"""Shares of noise t; the noise level is t / (1 - t) deviations of the data."""
SEED = 13


@dataclass(frozen=True, slots=True)
class Hearing:
    """At one share of noise ``t``: mean squared errors of x0 over all scenes, told the prompt, the exchanged one and nothing.

    preferred: how often the prompt has a smaller error than the exchanged one; chance is a half.
    """

    t: float
    told: float
    exchanged: float
    silent: float
    preferred: Share

    @property
    def heard(self) -> float:
        """What the exchange costs, as a share of what silence costs: 0 is deaf to the order, above 1 worse than saying nothing."""
        return (self.exchanged - self.told) / (self.silent - self.told)


@dataclass(frozen=True, slots=True)
class HearingReport:
    """Of ``scenes`` scenes."""

    model: str
    locale: str
    prompts: Which
    scenes: int
    levels: tuple[Hearing, ...]


def hearing(
    bundle: Bundle,
    shards: Path,
    which: Which = "dev",
    locale: str = "en",
    n: int = 1,
    on_scene: Callable[[], object] | None = None,
) -> HearingReport:
    """n: scenes of each prompt, of other drawings in other places.

    Raises FileError for shards without scenes, InputError for shards that have no drawings of any prompt's things.
    """
    prompts = [prompt for prompt in scene_prompts(which) if prompt.triple]
    scenes = load_scenes(shards / "scenes.safetensors")
    composer = Composer(asking(prompts, scenes), load_pictures(shards, keep=without(left_out(bundle))), "cpu")
    rows = complete(composer).tolist()
    if not rows:
        raise InputError(
            f"shards: {shards} has no drawings of any prompt's two things; give those that the model learnt from"
        )
    errors: list[Float] = []
    for row, again in ((row, again) for row in rows for again in range(n)):
        picture = composer(torch.tensor([row]), generator(SEED + again, row)).numpy()
        errors.append(_errors(bundle, picture, _said(prompts[row], locale), row * n + again))
        if on_scene is not None:
            on_scene()
    return HearingReport(bundle.model, locale, which, len(errors), tuple(_levels(np.stack(errors))))


def count(which: Which) -> int:
    """Prompts that name a relation."""
    return sum(bool(prompt.triple) for prompt in scene_prompts(which))


def _said(prompt: ScenePrompt, locale: str) -> list[str]:
    """The prompt, the same with its things exchanged, nothing."""
    scene = dataclasses.replace(prompt.scene, things=prompt.scene.things[::-1])
    return [prompt.text(locale), dataclasses.replace(prompt, scene=scene).text(locale), ""]


def _errors(bundle: Bundle, picture: Float, texts: Sequence[str], seed: int) -> Float:
    """(levels, texts)."""
    x = bundle.codec.encode(picture)
    cond, rows = {**bundle.text.encode(texts)}, len(texts)
    if bundle.masked:  # nothing of the picture is kept
        cond["concat"] = np.repeat(mask_channels(np.zeros_like(x), np.ones_like(x[:, :1])), rows, 0)
    noise, found = PictureNoise([seed], x.shape[1:]), []
    for number, t in enumerate(TIMES):
        sigma = t / (1 - t)
        noisy = np.repeat(x + np.float32(sigma) * noise(number), rows, 0)
        found.append(np.square(bundle.denoiser(noisy, sigma, cond) - x).mean((1, 2, 3)))
    return np.stack(found)


def _levels(errors: Float) -> list[Hearing]:
    """errors: (scenes, levels, texts)."""
    found = []
    for number, t in enumerate(TIMES):
        here = errors[:, number]
        told, exchanged, silent = (float(each) for each in here.mean(0, dtype=np.float64))
        preferred = share((here[:, 0] < here[:, 1]).astype(float).tolist())
        found.append(Hearing(t, told, exchanged, silent, preferred))
    return found
