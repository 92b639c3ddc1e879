"""Who is where in composed scenes, and a text head that learns to read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from little import UNET, frozen, with_scenes
from safetensors.torch import load_file
from test_composer import pictures, table  # noqa: F401

from chashka.errors import InputError, TrainingError
from chashka.nets.configs import TextHeadConfig
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from chashka.training import stages
from chashka.training.composed import encoded, laid_out, write_composed
from chashka.training.layout import BESIDE, LEFT, ON, RIGHT
from chashka.training.loop import Slice, Trainer, generator
from chashka.training.pictures import Pictures
from chashka.training.places import NOTHING, Lesson, in_reading_order, load_places, with_places
from chashka.training.recipes import UNetRecipe
from chashka.training.scenes import Composer

pytestmark = pytest.mark.torch
RECIPE = UNetRecipe(scene_pool=100)
READING = replace(
    UNET,
    network=replace(UNET.network, told=2),
    head=replace(UNET.head, places=2),
    scenes=0.5,
    scene_pool=2,
    related=0.5,
    reading=0.5,
)


def write_places(path: Path, composer: Composer, side: int) -> None:
    write_composed(path.parent, composer, {path.name: laid_out(composer.scenes, side)}, RECIPE)


def test_places_say_who_is_where(pictures: Pictures, tmp_path: Path) -> None:  # noqa: F811
    scenes = table(([0, 1], LEFT), ([0, 1], RIGHT), ([1, 0], ON), ([2], -1), ([0], -1), colour=[3, 3, 3, 3, -1])
    write_places(tmp_path / "places", Composer(scenes, pictures, "cpu"), 4)
    found = load_places(tmp_path / "places", scenes, "cpu")
    left, right, on, bar, _ = found.thing.reshape(5, 4, 4)
    assert set(left[:, :2].flatten().tolist()) <= {0, NOTHING} and 0 in left[1:3, 0]
    assert set(left[:, 2:].flatten().tolist()) <= {1, NOTHING} and 1 in left[1:3, 3]
    assert set(right[:, :2].flatten().tolist()) <= {1, NOTHING} and 0 in right[1:3, 3]
    assert 1 in on[:2] and 0 not in on[0] and 0 in on[2:] and 1 not in on[3]
    assert (bar[1:3, 1:3] == 2).all() and (bar[0] == NOTHING).all()
    colour = found.colour.reshape(5, 4, 4)
    assert (colour[0][left == 0] == 3).all() and (colour[0][left == 1] == NOTHING).all(), (
        "of the first alone it is said"
    )
    assert (colour[4] == NOTHING).all()


def test_texts_that_mean_two_pictures_are_left_out(pictures: Pictures, tmp_path: Path) -> None:  # noqa: F811
    """Those of two things in no said order, where the first stands on the right."""
    kinds = [([0, 1], BESIDE), ([0, 1], -1), ([0, 1], RIGHT), ([0, 0], -1), ([0, 1, 2], -1), ([2], -1)]
    scenes = table(*(kinds * 16))
    composer = Composer(scenes, pictures, "cpu")
    write_places(tmp_path / "places", composer, 4)
    found = load_places(tmp_path / "places", scenes, "cpu")
    visible = composer.compose(torch.arange(64), generator(RECIPE.run.seed + 79, 0)).visible
    ordered = in_reading_order(visible)
    kept, related = set(found.kept.tolist()), set(found.related.tolist())
    for i in range(64):
        free = i % 6 < 2
        assert (i in kept) == (not free or bool(ordered[i])), i
        assert (i in related) == (i in kept and i % 6 < 3), i
    assert 8 < sum(i in kept for i in range(64) if i % 6 < 2) < 18


def test_they_are_of_the_very_pictures_that_are_shown(pictures: Pictures, tmp_path: Path) -> None:  # noqa: F811
    scenes = table(*([([0, 1], BESIDE)] * 12))
    composer = Composer(scenes, pictures, "cpu")
    write_places(tmp_path / "places", composer, 2)

    class Seen(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:  # red minus blue, left and right, as "moments"
            halves = (pixels[:, 0] - pixels[:, 2]).mean(1).unflatten(1, (2, -1)).mean(2)
            return torch.cat([halves, halves], 1)[:, :, None, None]

    write_composed(tmp_path, composer, {"scenes": encoded(Seen(), 1.0)}, RECIPE)
    red = load_file(tmp_path / "scenes")["latents"].float().squeeze()
    thing = load_file(tmp_path / "places")["thing"].reshape(12, 2, 2)
    assert torch.equal((red[:, 0] > red[:, 1]), (thing[:, :, 0] == 0).any(1))


def test_a_head_learns_to_read_places_and_begins_with_weights_that_know_none(
    runs: Path, shards: Path, tmp_path: Path
) -> None:
    with_scenes(shards)
    before = replace(READING, network=UNET.network, head=UNET.head, reading=0.0)
    stages.train(before, shards, tmp_path / "plain", frozen=frozen(runs))
    plain = load_file(tmp_path / "plain" / stages.AVERAGE)
    assert not any("places" in name for name in plain)
    stages.train(READING, shards, tmp_path / "reading", start=tmp_path / "plain" / stages.AVERAGE, frozen=frozen(runs))
    made = load_file(tmp_path / "reading" / stages.AVERAGE)
    assert {"text_head/places.asked", "text_head/places.where", "lesson/thing.weight"} <= made.keys()
    task = stages._unet_task(READING, shards, tmp_path / "reading", "cpu", frozen(runs))
    assert task.places is not None and task.places.thing.shape == (2, 4)
    rows = torch.tensor([int(task.features.scene_first[0]), int(task.features.scene_first[1])] * 8)
    scene = torch.tensor([0, 1] * 8)
    learning = torch.optim.AdamW([*task.head.parameters(), *task.lesson.parameters()], 3e-3)
    losses = []
    for _ in range(60):
        loss = task._reading(task._text(rows), scene)
        learning.zero_grad()
        loss.backward()
        learning.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert float(task._reading(task._text(rows), torch.full_like(scene, -1)).detach()) == 0
    _, figures = task.loss(generator(0, 0), 0.0)
    assert set(figures) == {"low", "high", "reading"}


def _over(asked: Iterator[int]) -> bool:
    return next(asked, None) is None


def test_the_lesson_alone_comes_first(runs: Path, shards: Path, tmp_path: Path) -> None:
    """Nothing but the head's places moves then; a run that is cut within a line of its log goes on with the figures of both."""
    with_scenes(shards)
    run = replace(READING.run, steps=8, log_every=8)
    recipe = replace(READING, reading_first=0.5, run=run)
    task = stages._unet_task(recipe, shards, tmp_path / "whole", "cpu", frozen(runs))
    loss, figures = task.loss(generator(0, 0), 0.499)
    loss.backward()
    assert set(figures) == {"reading"}
    assert all(p.grad is None for p in task.unet.parameters())
    assert {name.split(".")[0] for name, p in task.head.named_parameters() if p.grad is not None} >= {"places"}
    assert set(task.loss(generator(0, 0), 0.5)[1]) == {"low", "high", "reading"}

    def trained(folder: Path, *cuts: int) -> list[dict[str, object]]:
        for cut in (*cuts, 99):
            trainer = Trainer(stages._unet_task(recipe, shards, folder, "cpu", frozen(runs)), recipe, folder, "cpu")
            asked = iter(range(cut))
            trainer.train(Slice(), say=lambda line: None, stop=partial(_over, asked))
        return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]

    whole = trained(tmp_path / "whole")
    assert {"loss", "reading", "low", "high"} <= whole[0].keys()
    assert trained(tmp_path / "cut", 2, 4) == whole
    with pytest.raises(TrainingError, match="reading_first"):
        replace(recipe, reading=0.0)


def test_related_scenes_come_as_often_as_asked(runs: Path, shards: Path, tmp_path: Path) -> None:
    with_scenes(shards)
    task = stages._unet_task(replace(READING, related=0.75), shards, tmp_path, "cpu", frozen(runs))
    assert task.places is not None and task.places.related.tolist() == [0]
    chance = generator(0, 0)
    scene = task._chosen(torch.rand(4000, generator=chance), 2, chance)
    assert 0.85 < float((scene == 0).float().mean()) < 0.9, "three quarters, and half of the rest"
    assert (task._chosen(torch.rand(50, generator=chance), 1, chance) == 0).all()


def test_places_of_a_head() -> None:
    cfg = TextHeadConfig(16, 16, 16, 16, 32, 2, places=3)
    head = KandinskyTextHead(cfg)
    tokens1, pooled, tokens2 = torch.randn(2, 5, 16), torch.randn(2, 16), torch.randn(2, 5, 16)
    tokens, added = head(tokens1, pooled, tokens2)
    assert tokens.shape == (2, 10 + 9, 16) and added.shape == (2, 32)
    plain = KandinskyTextHead(replace(cfg, places=0))
    plain.load_state_dict({k: v for k, v in head.state_dict().items() if not k.startswith("places.")})
    assert torch.equal(plain(tokens1, pooled, tokens2)[0], tokens[:, 9:]), "the others are as they were"
    again = KandinskyTextHead(cfg)
    again.load_state_dict(with_places(dict(plain.state_dict()), again))
    assert torch.equal(again(tokens1, pooled, tokens2)[0][:, 9:], tokens[:, 9:])
    other = head(tokens1 * 2, pooled, tokens2)[0]
    assert not torch.allclose(other[:, :9], tokens[:, :9], atol=1e-3), "places hear the text"


def test_a_network_is_told_what_stands_in_each_place() -> None:
    """At first it makes nothing of it; a place's token moves what is seen there, and little elsewhere."""
    torch.manual_seed(0)
    cfg = replace(UNET.network, told=2)
    unet = UNet(cfg).eval()
    plain = UNet(UNET.network).eval()
    plain.load_state_dict({k: v for k, v in unet.state_dict().items() if not k.startswith("told.")})
    x, t, tokens = torch.randn(1, 16, 16, 16), torch.tensor([700.0]), torch.randn(1, 9, 16)
    added = torch.randn(1, 32)
    assert torch.equal(unet(x, t, tokens, added), plain(x, t, tokens, added))
    torch.nn.init.normal_(unet.told.weight)
    seen = unet.laid_out(torch.zeros(1, 8, 16, 16), tokens)
    other = tokens.clone()
    other[:, 1] = 0  # the upper right
    moved = (unet.laid_out(torch.zeros(1, 8, 16, 16), other) - seen).abs().mean((0, 1))
    assert (moved[:4, 12:] > 0.1).all() and not moved[12:, :4].any()
    assert unet.laid_out(torch.zeros(1, 8, 10, 20), tokens).shape == (1, 8, 10, 20)
    with pytest.raises(InputError, match="told is 2, but no context"):
        replace(cfg, context=None)


def test_a_lesson_counts_nothing_as_an_answer() -> None:
    lesson = Lesson(4, 3, 2)
    loss = lesson(torch.zeros(2, 5, 4), torch.full((2, 5), NOTHING), torch.full((2, 5), 1))
    assert loss.shape == (2,) and bool((loss > 0).all())


def test_reading_needs_places() -> None:
    with pytest.raises(TrainingError, match="reading needs a text head with places"):
        replace(UNET, reading=0.1)
