"""The judge's stage: targets say where things are, spoilt drawings are of no class, and a tiny network learns and resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chashka.data.shards import Labels, Record, pack, write_shard
from chashka.errors import TrainingError
from chashka.evaluation.detections import Maps, detections
from chashka.nets.configs import JudgeConfig
from chashka.training import stages
from chashka.training.components import metadata_of
from chashka.training.judge import JudgeTask, complete
from chashka.training.judge_scenes import Spoiler, augment, boxes_of, targets
from chashka.training.judge_styles import restyle
from chashka.training.layout import INSIDE, LEFT
from chashka.training.loop import generator
from chashka.training.pictures import Pictures, load_pictures, without
from chashka.training.recipes import JudgeRecipe, Optimiser, Run
from chashka.training.scenes import Composer, SceneTable

pytestmark = pytest.mark.torch
EMOJI = ["a", "b"]
RUN = Run(
    batch=8, steps=30, log_every=10, save_minutes=9.0, look_minutes=9.0, optimiser=Optimiser(lr=3e-3, warmup_steps=3)
)
RECIPE = JudgeRecipe(run=RUN, network=JudgeConfig(2, side=64, width=16, blocks=1), sources=("ours",), spoilt=0.0)


def drawings(side: int = 64) -> Pictures:
    """A disc (a) and a square (b)."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    half = side // 2
    shapes = [
        (x - half) ** 2 + (y - half) ** 2 < (side // 3) ** 2,
        (x - half).abs().maximum((y - half).abs()) < side // 3,
    ]
    pixels = torch.stack(
        [torch.stack([s * 200 * (i == 0), s * 0, s * 200 * (i == 1), s * 255]) for i, s in enumerate(shapes)]
    )
    number = torch.arange(2)
    names = [f"emoji:{e}" for e in EMOJI]
    return Pictures(
        pixels.to(torch.uint8), number, number * 0, number * 0, torch.ones(2), number < 0, names, ["flat"], ["things"]
    )


def table(*rows: tuple[list[int], int]) -> SceneTable:
    noun = torch.full((len(rows), 5), -1)
    for i, (nouns, _) in enumerate(rows):
        noun[i, : len(nouns)] = torch.tensor(nouns)
    blank, none, wide = torch.full((len(rows),), -1), torch.zeros(0, dtype=torch.int64), torch.full((len(rows), 5), -1)
    relation = torch.tensor([r for _, r in rows])
    return SceneTable(noun, wide, wide, relation, blank, blank, blank, none, none, none, none, EMOJI, ["flat"], ["en"])


SCENES = table(([0], -1), ([1], -1), ([0, 1], LEFT), ([1, 1, 1], -1), ([0, 0], -1))


def test_boxes_and_targets_find_every_thing_again() -> None:
    """What the targets say, read as a judge's maps, gives the things of the scene in their places."""
    composer, chance = Composer(SCENES, drawings(), "cpu"), generator(0, 0)
    rows = torch.arange(5)
    scene = composer.compose(rows, chance)
    boxes = boxes_of(SCENES.noun[:, :3], scene.visible, scene.whole, scene.spoilt, 2)
    wanted = targets(boxes, scene.visible, 16)
    for i, things in enumerate(([0], [1], [0, 1], [1, 1, 1], [0, 0])):
        heat = torch.stack([wanted.centre[i, 0] * (wanted.kind[i] == k) for k in range(3)])
        mask = torch.cat([wanted.covered[i, None], wanted.way[i]])
        found = detections(Maps(heat.numpy(), wanted.place[i].numpy(), mask.numpy()), 0.9)
        assert sorted(f.label for f in found) == things
        for thing in found:
            area = (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1])
            assert 0.5 * area < thing.mask.mean() < 1.5 * area
    left, right = (next(f for f in (boxes.centre[2],))[slot, 0] for slot in (0, 1))
    assert left < right


def test_a_holder_hides_the_lower_part_of_what_it_holds() -> None:
    composer = Composer(table(([0, 1], INSIDE)), drawings(), "cpu")
    scene = composer.compose(torch.tensor([0]), generator(0, 1))
    seen = scene.visible.sum((2, 3))[0] / scene.whole[0]
    assert 0.3 < float(seen[0]) < 0.9 and float(seen[1]) > 0.8
    assert float((scene.visible.sum(1) - (scene.picture[:, 3] * 0.5 + 0.5)).abs().max()) < 1e-4


@pytest.mark.parametrize("kind", range(4))
def test_spoilt_drawings_are_of_no_class(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randint", _always(kind))
    own = drawings()
    worn = torch.full((1, 4, 64, 64), 99, dtype=torch.uint8)
    given = own.pixels[:1].float() / 255
    out, chosen = Spoiler(own.pixels, worn, 1.0)(given, generator(0, 2))
    assert bool(chosen.all()) and float((out - given).abs().mean()) > 0.01
    scene = Composer(SCENES, own, "cpu").compose(torch.tensor([0]), generator(0, 3), Spoiler(own.pixels, worn, 1.0))
    boxes = boxes_of(SCENES.noun[:1, :1], scene.visible, scene.whole, scene.spoilt, 2)
    assert boxes.label.tolist() in ([[2]], [[-1]])  # a blob may be too faint to be seen at all


def test_restyled_drawings_are_the_same_things_in_other_hands() -> None:
    given = drawings().pixels.repeat(20, 1, 1, 1).float() / 255
    assert torch.equal(restyle(given, 0.0, generator(0, 8)), given)
    out = restyle(given, 1.0, generator(0, 9))
    assert torch.equal(restyle(given, 1.0, generator(0, 9)), out) and bool(torch.isfinite(out).all())
    assert float(out.min()) >= 0 and bool((out[:, :3] <= out[:, 3:] + 1e-5).all())  # premultiplied
    assert float(((out - given).abs().mean((1, 2, 3)) > 1e-3).float().mean()) > 0.9
    before, after = given[:, 3] > 0.5, out[:, 3] > 0.5
    shared = (before & after).sum((1, 2)) / (before | after).sum((1, 2))
    assert float(shared.mean()) > 0.6  # bent, not another shape


def test_naming_learns_from_all_concepts_of_the_sources() -> None:
    """Things outside of the grammar move the backbone too."""
    other = replace(drawings(), concepts=["x", "emoji:a", "emoji:b"], concept=torch.tensor([0, 0]))
    own = replace(drawings(), concepts=other.concepts, concept=torch.tensor([1, 2]))
    task = JudgeTask(replace(RECIPE, named=1.0, named_batch=4), SCENES, own, own, "cpu", every=other)
    loss, parts = task.loss(generator(0, 10), 0.0)
    loss.backward()
    assert task.names.weight.grad is not None and float(parts["named"].detach()) > 0
    lower, higher = task.names.weight.grad[0].abs().sum(), task.names.weight.grad[1].abs().sum()
    assert float(lower) > float(higher) > 0  # only "x" was shown
    silent = JudgeTask(replace(RECIPE, named=0.0), SCENES, own, own, "cpu")
    assert "named" not in silent.loss(generator(0, 10), 0.0)[1]


def _always(kind: int):
    real = torch.randint

    def fixed(*arguments: object, **options: object) -> torch.Tensor:
        values = real(*arguments, **options)  # type: ignore[call-overload]
        return torch.full_like(values, kind) if arguments[0] == 4 and kind < 4 else values

    return fixed


def test_augmented_boxes_follow_the_picture() -> None:
    scene = Composer(SCENES, drawings(), "cpu").compose(torch.tensor([2] * 8), generator(0, 4))
    pixels, visible = augment(scene, 0.0, generator(0, 5))
    red, blue = (pixels[:, c] * 0.5 + 0.5 for c in (0, 2))
    assert float((red * visible[:, 0]).sum() / red.sum()) > 0.9
    assert float((blue * visible[:, 1]).sum() / blue.sum()) > 0.9


def test_sources_decide_who_sees_a_picture(shards: Path) -> None:
    assert len(load_pictures(shards)) == 4
    assert load_pictures(shards, keep=without(("ours",))).concept.tolist() == [0, 1]
    with pytest.raises(TrainingError, match="there are ours, theirs"):
        load_pictures(shards, keep=lambda shard, i: False)


def test_a_tiny_judge_learns_and_goes_on(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage trains on its own sources, is tested on the others', and stores what it knows beside the weights."""
    monkeypatch.setattr(stages, "load_scenes", lambda path: SCENES)
    stages.train(RECIPE, shards, tmp_path, minutes=0.0)
    stages.train(RECIPE, shards, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in log if "loss" in record]
    assert [record["step"] for record in log if "loss" in record] == [10, 20, 30]
    assert losses[-1] < 0.7 * losses[0]
    metadata = metadata_of(tmp_path / "average.safetensors", "judge")
    assert json.loads(metadata["emoji"]) == EMOJI and 0 <= float(metadata["scenes"]) <= 1
    assert (tmp_path / "look-0000030.png").is_file()


def test_a_network_of_another_grammar_is_refused(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "load_scenes", lambda path: SCENES)
    with pytest.raises(TrainingError, match="the grammar has 2 things, the recipe's network 3 classes"):
        stages.train(replace(RECIPE, network=JudgeConfig(3, side=64, width=16)), shards, tmp_path)


def test_only_scenes_that_can_be_drawn_are_shown() -> None:
    one = drawings()
    few = replace(one, concepts=["emoji:a", "emoji:other"])
    assert complete(Composer(SCENES, few, "cpu")).tolist() == [0, 4]
    task = JudgeTask(RECIPE, SCENES, few, one, "cpu")
    assert task.known.tolist() == [0, 4] and len(task.tested) == 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two drawings from two sources each."""
    folder = tmp_path_factory.mktemp("shards")
    pixels = drawings(64).pixels.permute(0, 2, 3, 1).numpy()
    records = [
        Record(f"{source}:{i}", source, i, 0, 0, 1.0, pack(np.ascontiguousarray(pixels[i])))
        for source in ("ours", "theirs")
        for i in range(2)
    ]
    labels = Labels(("emoji:a", "emoji:b"), ("flat",), ("things",))
    write_shard(folder / "pictures-000.safetensors", records, labels, 64)
    return folder
