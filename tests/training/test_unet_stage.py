"""The U-Net's stage and its tuning to few steps, on made pictures: what they are shown and what they leave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from little import AUTOENCODER, CLIP, CONCEPTS, PICTURE, RUN, UNET, frozen, with_scenes
from safetensors.torch import load_file

from chashka.checkpoints import sha256
from chashka.diffusion.guidance import Denoise, cfg
from chashka.diffusion.samplers import SAMPLERS
from chashka.errors import TrainingError
from chashka.nets.image_tower import ImageTower
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from chashka.training import stages
from chashka.training.catalogue import RECIPES, from_json, to_json
from chashka.training.components import load_component
from chashka.training.distil import DistilTask
from chashka.training.features import load_features
from chashka.training.loop import generator
from chashka.training.material import network_of
from chashka.training.origin import origin
from chashka.training.pictures import load_pictures, without
from chashka.training.recipes import DistilRecipe, UNetRecipe
from chashka.training.scenes import Composer, load_scenes
from chashka.training.unet import Conditioned

pytestmark = pytest.mark.torch


def test_scenes_join_the_training_of_the_unet(runs: Path, shards: Path, tmp_path: Path) -> None:
    with_scenes(shards)
    recipe = replace(UNET, scenes=0.5, scene_pool=2)
    stages.train(recipe, shards, tmp_path, frozen=frozen(runs))
    features = load_features(tmp_path / "features", "cpu")
    assert features.scene_latents.shape[0] == 2 and (features.scene_first.diff() == torch.tensor([2, 1])).all()
    rows = features.scene_first[0]
    assert int(rows) == int((features.row_weight > 0).sum()) + 1 and len(features.offsets) == int(rows) + 4
    assert features.offsets[-1] == len(features.tokens1) == len(features.tokens2)
    task = stages._unet_task(replace(recipe, scenes=1.0), shards, tmp_path, "cpu", frozen(runs))
    x0, said, scene = task._with_scenes(
        features.latents[0, :6].float(), torch.zeros(6, dtype=torch.int64), features.scene_latents, generator(0, 0)
    )
    known = torch.stack([(x0 == one.float()).flatten(1).all(1) for one in features.scene_latents])
    assert bool(known.any(0).all())
    right = torch.where(known[0], (said >= rows) & (said < rows + 2), said == rows + 2)
    assert bool((right | (said == 0)).all()) and torch.equal(scene, torch.where(known[0], 0, 1))


CANVASES = ((64, 128, 0.4), (128, 64, 0.3))


def test_wide_and_tall_canvases_join_the_training_of_the_unet(runs: Path, shards: Path, tmp_path: Path) -> None:
    with_scenes(shards)
    recipe = replace(
        UNET,
        canvases=CANVASES,
        canvas_pictures=20,
        scenes=0.5,
        scene_pool=2,
        canvas_scenes=9,
        composed_only=(CONCEPTS[0],),
    )
    stages.train(recipe, shards, tmp_path, frozen=frozen(runs))
    features = load_features(tmp_path / "features", "cpu", recipe.canvases)
    wide, tall = features.canvases
    assert wide.latents.shape == (20, 16, 4, 8) and tall.latents.shape == (20, 16, 8, 4)
    assert wide.scenes.shape == (2, 16, 4, 8) and wide.share == 0.4
    for canvas in (wide, tall):
        assert not features.held_out[canvas.rows].any() and len(set(canvas.rows.tolist())) == 20
        assert (features.concept[canvas.rows] != 0).all()
    task = stages._unet_task(recipe, shards, tmp_path, "cpu", frozen(runs))
    shapes: dict[tuple[int, ...], int] = {}
    for step in range(200):
        x0, rows, seen, _ = task._batch(generator(0, step))
        shapes[tuple(x0.shape[2:])] = shapes.get(tuple(x0.shape[2:]), 0) + 1
        single = seen >= 0
        own = features.row_concept[rows[single & (rows > 0)]]
        assert (own == features.concept[seen[single & (rows > 0)]]).all() and (own != 0).all()
    assert [round(shapes[s] / 200, 1) for s in ((4, 8), (8, 4), (16, 16))] == [0.4, 0.3, 0.3]
    assert sorted(path.name for path in tmp_path.glob("look-*4-*x*.png")) == [
        "look-0000004-4x8.png",
        "look-0000004-8x4.png",
    ]


def test_only_steps_are_compiled(runs: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other shape would be compiled anew: what a look draws goes through the network as it is."""
    seen: list[tuple[int, ...]] = []

    def compiled(network: torch.nn.Module, **_: Any) -> Any:
        def call(x: torch.Tensor, *rest: Any, **more: Any) -> Any:
            seen.append(tuple(x.shape))
            return network(x, *rest, **more)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    recipe = replace(UNET, compile=True, canvases=CANVASES, canvas_pictures=20)
    task = stages._unet_task(recipe, shards, tmp_path, "cpu", frozen(runs))
    drawn = []
    for step in range(12):
        canvas = task._canvas(generator(0, step))
        drawn.append(
            (UNET.run.batch, UNET.network.in_channels, *((16, 16) if canvas is None else canvas.latents.shape[2:]))
        )
        task.loss(generator(0, step), 0.0)
    assert seen == drawn and len(set(drawn)) == 3
    task.unet.eval()
    with torch.no_grad():
        task.look(tmp_path, 0)
    assert seen == drawn


def test_a_look_draws_with_the_recipe_s_sampler_and_its_noise(runs: Path, shards: Path, tmp_path: Path) -> None:
    drawn = []
    for sampler in ("euler", "euler_a", "euler_a"):
        recipe = replace(UNET, draw_sampler=sampler, draw_steps=3)
        task = stages._unet_task(recipe, shards, tmp_path, "cpu", frozen(runs))
        task.unet.eval()
        with torch.no_grad():
            drawn.append(task._draw(task._look_rows()[:2], (16, 16), generator(0, 0)))
    assert all(bool(pixels.isfinite().all()) for pixels in drawn)
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("canvases", "words"),
    [(((100, 128, 0.1),), "multiples of 64"), (((64, 128, 0.0),), "share above 0"), (((64, 64, 0.6),) * 2, "squares")],
)
def test_impossible_canvases_are_refused(canvases: Any, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        replace(UNET, canvases=canvases)


MASKED = replace(UNET, network=replace(UNET.network, in_channels=33), mask_share=0.5)


def test_a_network_learns_masks_from_weights_that_know_none(runs: Path, shards: Path, tmp_path: Path) -> None:
    folder, start = tmp_path / "run", runs / "unet" / stages.AVERAGE
    stages.train(MASKED, shards, folder, frozen=frozen(runs), start=start, minutes=0.0)
    begun = load_file(folder / stages.AVERAGE)
    old, stem = load_file(start), "unet/input_blocks.0.0.weight"
    assert begun[stem].shape[1] == 33 and not begun[stem][:, 16:].any()
    assert all(torch.equal(begun[key], old[key]) for key in old if key != stem)
    stages.train(MASKED, shards, folder, frozen=frozen(runs))
    after = load_file(folder / stages.AVERAGE)
    assert bool(after[stem][:, 16:].any()), "the mask is listened to"
    task = stages._unet_task(MASKED, shards, folder, "cpu", frozen(runs))
    x0 = task.features.latents[0, :40].float()
    nothing = task._known(x0)["concat"]
    assert bool((nothing[:, 0] == 1).all()) and not nothing[:, 1:].any()
    seen = task._known(x0, generator(0, 0))["concat"]
    assert 5 < int((seen[:, 0] == 0).flatten(1).any(1).sum()) < 35
    assert torch.equal(seen[:, 1:], x0 * (1 - seen[:, :1]))
    # and it can be tuned to few steps
    recipe = replace(FEW, network=MASKED.network, head=MASKED.head, mask_share=0.5)
    weights = frozen(runs) | {"unet": folder / stages.AVERAGE}
    stages.train(recipe, shards, tmp_path / "distil", frozen=weights)
    few = tmp_path / "distil" / stages.AVERAGE
    assert all(torch.isfinite(v).all() for v in load_file(few).values())
    stages.train(recipe, shards, tmp_path / "again", start=few, frozen=weights)
    parents = json.loads(origin(tmp_path / "again", 0)["parents"])
    assert parents == [sha256(weights["unet"]), sha256(few)], "the network that is changed, and the change before"


def test_a_run_goes_on_when_recipes_have_learnt_new_fields(runs: Path, shards: Path, tmp_path: Path) -> None:
    recipe = replace(UNET, run=replace(RUN, steps=2))
    stages.train(recipe, shards, tmp_path, frozen=frozen(runs))
    stored = json.loads((tmp_path / "recipe.json").read_text())
    del stored["mask_share"]
    (tmp_path / "recipe.json").write_text(json.dumps(stored))
    stages.train(recipe, shards, tmp_path, frozen=frozen(runs))
    with pytest.raises(TrainingError, match="another recipe"):
        stages.train(replace(recipe, drop_text=0.5), shards, tmp_path, frozen=frozen(runs))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mask_share": 0.5}, "set network.in_channels to 33"),
        ({"network": MASKED.network, "mask_share": 1.5}, "mask_share is 1.5"),
        ({"network": replace(UNET.network, in_channels=20)}, "network.in_channels is 20"),
    ],
)
def test_recipes_with_impossible_masks_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        replace(UNET, **fields)


SHOWN = replace(UNET, picture_share=0.5, picture_copies=3, without=("other",))


def test_a_network_learns_to_see_pictures_in_place_of_texts(runs: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--frozen picture"):
        stages.train(SHOWN, shards, tmp_path / "none", frozen=frozen(runs))
    weights = frozen(runs) | {"picture": runs / "picture" / stages.AVERAGE}
    stages.train(SHOWN, shards, tmp_path, frozen=weights)
    task = stages._unet_task(SHOWN, shards, tmp_path, "cpu", weights)
    f = task.features
    assert f.picture_pooled is not None and f.picture_pooled.shape == (3, len(f.concept), 16) == (3, 48, 16)
    assert torch.allclose(f.picture_pooled.float().norm(dim=-1), torch.tensor(4.0), atol=0.01)
    rows, seen = torch.arange(1, 13).repeat(50), torch.arange(12).repeat(50)
    rows[:100], seen[100:200] = 0, -1  # no text; a composed scene
    text, empty = task._text(rows), task._text(torch.zeros_like(rows))
    shown = task._differently(text, rows, seen, generator(0, 0))
    changed = (shown["pooled1"] != text["pooled1"]).any(1)
    assert not changed[:200].any() and 0.4 < float(changed[200:].float().mean()) < 0.6
    for name in ("tokens1", "tokens2"):
        assert torch.equal(shown[name][changed], empty[name][changed])
        assert torch.equal(shown[name][~changed], text[name][~changed])
    alone = (shown["pooled1"][:, None] == f.picture_pooled[:, seen.clamp(min=0)].float().transpose(0, 1)).all(2).any(1)
    near = (unit(shown["pooled1"])[:, None] * unit(f.picture_pooled[:, seen.clamp(min=0)].float().transpose(0, 1))).sum(
        -1
    )
    assert 0.4 < float((near.amax(1) > 0.9999)[changed].float().mean()) < 0.85 and not alone[~changed].any()


def test_the_tokens_speak_alone_now_and_then(runs: Path, shards: Path, tmp_path: Path) -> None:
    recipe = replace(SHOWN, picture_share=0.25, words_share=0.5)
    weights = frozen(runs) | {"picture": runs / "picture" / stages.AVERAGE}
    task = stages._unet_task(recipe, shards, tmp_path, "cpu", weights)
    rows, seen = torch.arange(1, 13).repeat(50), torch.arange(12).repeat(50)
    rows[:100] = 0
    text, empty = task._text(rows), task._text(torch.zeros_like(rows))
    shown = task._differently(text, rows, seen, generator(0, 0))
    silent = (shown["pooled1"] == empty["pooled1"]).all(1)
    pictured = (shown["tokens1"] == empty["tokens1"]).flatten(1).all(1)
    assert silent[:100].all() and pictured[:100].all()
    silent, pictured = silent[100:], pictured[100:]
    assert 0.4 < float(silent.float().mean()) < 0.6 and 0.15 < float(pictured.float().mean()) < 0.35
    assert not (silent & pictured).any()
    for name in ("tokens1", "tokens2"):
        assert torch.equal(shown[name][100:][silent], text[name][100:][silent])
    alone = stages._unet_task(replace(recipe, picture_share=0.0), shards, tmp_path / "alone", "cpu", frozen(runs))
    shown = alone._differently(text, rows, seen, generator(0, 0))
    assert torch.equal((shown["pooled1"] == empty["pooled1"]).all(1)[100:], silent)
    with pytest.raises(TrainingError, match=r"make 1\.25; allowed: 1 at most"):
        replace(recipe, picture_share=0.75)


def test_composed_scenes_are_shown_in_place_of_texts_too(runs: Path, shards: Path, tmp_path: Path) -> None:
    with_scenes(shards)
    recipe = replace(SHOWN, scenes=0.5, scene_pool=2, picture_share=1.0, picture_mix=0.0, drop_text=0.0)
    weights = frozen(runs) | {"picture": runs / "picture" / stages.AVERAGE}
    task = stages._unet_task(recipe, shards, tmp_path, "cpu", weights)
    f = task.features
    assert f.picture_pooled is not None and f.picture_pooled.shape == (3, 48 + 2, 16)
    # the very pictures whose latents are kept: composed again, they are embedded as they were
    composer = Composer(
        load_scenes(shards / "scenes.safetensors"), load_pictures(shards, keep=without(recipe.without)), "cpu"
    )
    picture = composer(torch.arange(2), generator(recipe.run.seed + 79, 0))
    encoder = network_of("encoder", weights["autoencoder"], "cpu")
    tower = load_component(ImageTower(PICTURE.network), weights["picture"], "picture").eval()
    with torch.no_grad():
        again = encoder(picture).chunk(2, 1)[0] * f.latent_scale
        own = tower(torch.nn.functional.interpolate(picture, size=(64, 64), mode="area"))
    assert float((again - f.scene_latents.float()).std()) < 0.03 * float(again.std())  # bfloat16 there
    assert torch.allclose(f.picture_pooled[1, 48:].float(), own, atol=0.01)
    x0, rows, seen, _ = task._batch(generator(0, 0))
    composed = (x0[:, None] == f.scene_latents.float()).flatten(2).all(2)
    assert torch.equal(seen >= 48, composed.any(1)) and 0 < int(composed.any(1).sum()) < len(seen)
    shown = task._differently(task._text(rows), rows, seen, generator(0, 0))
    which = (seen - 48)[composed.any(1)]
    assert torch.allclose(shown["pooled1"][composed.any(1)], f.picture_pooled[0, 48:].float()[which], atol=0.01)


def test_recipes_of_before_are_read_and_mean_the_same(runs: Path, shards: Path) -> None:
    old = json.loads(to_json(CLIP)) | {"images": 8, "image": {"width": 192, "blocks": 2}}
    assert from_json(json.dumps(old)) == CLIP
    task = stages._unet_task(UNET, shards, runs / "unet", "cpu", frozen(runs))
    x0, rows, seen, _ = task._batch(generator(0, 0))
    text = task._text(rows)
    assert task._differently(text, rows, seen, generator(0, 0)) is text and task._known(x0, generator(0, 0)) == {}


def unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def test_the_unet_says_which_weights_it_lacks(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="clip, t5"):
        stages.train(UNET, shards, tmp_path, frozen={"autoencoder": tmp_path / "none"})


FEW = DistilRecipe(run=RUN, network=UNET.network, head=UNET.head, paths=3, teacher_steps=8, rank=4)


def test_a_unet_is_tuned_to_few_steps(runs: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="weights of: unet"):
        stages.train(FEW, shards, tmp_path / "none", frozen=frozen(runs))
    weights = frozen(runs) | {"unet": runs / "unet" / stages.AVERAGE}
    task = stages._unet_task(FEW, shards, tmp_path / "run", "cpu", weights)
    assert isinstance(task, DistilTask)
    trained = load_component(UNet(UNET.network), weights["unet"], "unet").state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in task.unet.state_dict().items())
    path, cond = task.paths[1], task._shown(1)[0]
    assert path["x"].shape == path["denoised"].shape == (4, RUN.batch, 16, 16, 16)
    with torch.no_grad():
        # four Euler steps that say what was kept are where the teacher was after each quarter of its eight
        ours = [step.x for step in SAMPLERS["euler"](told(path, task), start(path, task), task.sigmas)]
        denoise = cfg(task.denoiser, cond, task._shown(1)[1], FEW.guidance, (1 / 9, 1e9))
        theirs = [s.x for s in SAMPLERS["dpmpp_2m"](denoise, start(path, task), task.schedule.spaced(8))]
        for own, other in zip(ours, theirs[1::2], strict=True):
            # kept as float16, drawn with bfloat16 where there is that
            assert (own - other).norm() < 0.03 * other.norm()
        before = of_seen(task)
    chance = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(task.change.parameters(), 1e-2)
    for _ in range(80):
        loss, _ = task.loss(chance, 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        assert of_seen(task) < 0.8 * before
    assert all(torch.equal(value, trained[key]) for key, value in task.unet.state_dict().items())


def of_seen(task: DistilTask) -> float:
    """The loss of all jumps of the drawings that are learned from."""
    segments = [torch.full((RUN.batch,), segment) for segment in range(4)]
    return sum(float(task._jump_loss(task.paths[n], n, segment).mean()) for n in (1, 2) for segment in segments)


def told(path: dict[str, torch.Tensor], task: DistilTask) -> Denoise:
    """What was kept, as a network would say it."""
    return lambda x, sigma: path["denoised"][task.sigmas.index(sigma)].float()


def start(path: dict[str, torch.Tensor], task: DistilTask) -> torch.Tensor:
    begin: torch.Tensor = path["x"][0].float() / task.schedule.scale(task.sigmas[0])
    return begin


def test_a_tuning_keeps_its_change_alone_and_goes_on(runs: Path, shards: Path, tmp_path: Path) -> None:
    weights = frozen(runs) | {"unet": runs / "unet" / stages.AVERAGE}
    stages.train(FEW, shards, tmp_path, frozen=weights)
    after = load_file(tmp_path / stages.AVERAGE)
    assert after and all(key.startswith("fast/") and torch.isfinite(value).all() for key, value in after.items())
    assert all(min(value.shape) == 4 for value in after.values())
    drawn = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "features").glob("path-*")}
    assert sorted(drawn) == [f"path-{i:05d}.safetensors" for i in range(3)]
    stages.train(FEW, shards, tmp_path, frozen=weights)
    assert drawn == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "features").glob("path-*")}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"teacher_steps": 10}, "teacher_steps is 10; allowed: multiples of segments, which is 4"),
        ({"paths": 1}, "paths is 1"),
        ({"rank": 0}, "rank is 0"),
    ],
)
def test_tunings_that_cannot_be_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        replace(FEW, **fields)


@pytest.mark.parametrize("name", ["unet", "unet-96", "unet-128", "distil"])
def test_the_networks_of_the_recipes_fit(name: str) -> None:
    recipe = RECIPES[name]
    assert isinstance(recipe, UNetRecipe)
    with torch.device("meta"):
        both = Conditioned(UNet(recipe.network), KandinskyTextHead(recipe.head))
        text = torch.zeros(2, 16, 256), torch.zeros(2, 256), torch.zeros(2, 16, 192)
        assert both(torch.zeros(2, recipe.network.in_channels, 12, 20), torch.zeros(2), *text).shape == (2, 16, 12, 20)


def test_weights_of_another_recipe_are_refused(runs: Path, shards: Path, tmp_path: Path) -> None:
    recipe = replace(AUTOENCODER, network=replace(AUTOENCODER.network, decoder_width=32))
    with pytest.raises(TrainingError, match="another recipe"):
        stages.train(recipe, shards, tmp_path, start=runs / "autoencoder" / stages.AVERAGE)
