"""Every stage end to end on a handful of made pictures and captions: it runs, resumes, and its weights feed the next stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from chashka.data.composed_words import EMOJI
from chashka.data.shards import Labels, Record, pack, write_shard
from chashka.diffusion.schedule import Flow
from chashka.engines.export import export_component
from chashka.errors import TrainingError
from chashka.nets.autoencoder import Decoder, Encoder
from chashka.nets.configs import (
    AutoencoderConfig,
    ImageTowerConfig,
    T5Config,
    TextEncoderConfig,
    TextHeadConfig,
    UNetConfig,
)
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.multilingual import ContrastiveTextEncoder
from chashka.nets.unet import UNet
from chashka.training import recipes, stages
from chashka.training.appearance import Appearance, appearance
from chashka.training.captions import Draw, balanced, load_captions
from chashka.training.contrastive import ContrastiveTask, name_centres
from chashka.training.distil import DistilTask, rows_of, velocity
from chashka.training.features import clarity, load_features
from chashka.training.loop import generator
from chashka.training.picture import grounded
from chashka.training.pictures import load_pictures, to_network
from chashka.training.recipes import (
    RECIPES,
    AutoencoderRecipe,
    ContrastiveRecipe,
    DistilRecipe,
    Optimiser,
    PictureRecipe,
    Recipe,
    Run,
    T5Recipe,
    UNetRecipe,
    to_json,
)
from chashka.training.unet import Conditioned

pytestmark = pytest.mark.torch

CONCEPTS = ["emoji:1f34e", "emoji:1f408", "emoji:1f697"]
RUN = Run(batch=6, steps=4, log_every=2, save_minutes=9.0, look_minutes=9.0, optimiser=Optimiser(warmup_steps=1))
AUTOENCODER = AutoencoderRecipe(
    run=RUN,
    network=AutoencoderConfig(
        4, 4, 16, (1, 1, 1), 1, 16, 16, (1, 1, 1), 0, stem=4, shortcuts=True, mid_attention=False, norm_groups=4
    ),
    crop=64,
)
CLIP = ContrastiveRecipe(
    run=RUN,
    text=TextEncoderConfig(vocab=300, embed=8, width=16, layers=1, heads=2, pooled=16),
    appearance=4,
)
PICTURE = PictureRecipe(run=RUN, network=ImageTowerConfig(width=16, hidden=24, pooled=16, norm_groups=4))
T5 = T5Recipe(run=RUN, text=T5Config(vocab=300, embed=8, width=16, layers=1, heads=2, ff=16), decoder_layers=1)
UNET = UNetRecipe(
    run=RUN,
    network=UNetConfig(
        16, 16, 8, (1, 2), 1, (1,), head_width=8, context=16, resample="resblock", scale_shift=True, qk_norm=True,
        norm_groups=4,
    ),
    head=TextHeadConfig(16, 16, 16, 16, 32, 2),
)  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures (discs of three colours in two styles) and their captions."""
    folder = tmp_path_factory.mktemp("shards")
    y, x = np.mgrid[:256, :256]
    records = []
    for i in range(60):
        disc = (y - 128) ** 2 + (x - 100 - i) ** 2 < 80**2
        pixels = np.zeros((256, 256, 4), np.uint8)
        pixels[disc] = (255 * (i % 3 == 0), 255 * (i % 3 == 1), 255 * (i % 3 == 2), 255)
        source = "other" if i % 5 == 4 else "made"
        records.append(Record(f"{source}:{i}", source, i % 3, i % 2, 0, 1.0, pack(pixels)))
    write_shard(folder / "pictures-000.safetensors", records, Labels(tuple(CONCEPTS), ("flat", "3d"), ("things",)), 256)
    rows = [(c, kind, style) for c in range(3) for kind, style in ((0, -1), (1, -1), (2, -1), (3, 0), (3, 1))]
    ids = [[1, 270 + c, 280 + kind, 290 + style, 2] for c, kind, style in rows]
    tensors = {
        "ids": torch.tensor([piece for row in ids for piece in row], dtype=torch.int32),
        "offsets": torch.arange(len(rows) + 1) * 5,
        "concept": torch.tensor([r[0] for r in rows], dtype=torch.int32),
        "locale": torch.zeros(len(rows), dtype=torch.int16),
        "kind": torch.tensor([r[1] for r in rows], dtype=torch.int8),
        "style": torch.tensor([r[2] for r in rows], dtype=torch.int16),
        "language_weight": torch.ones(len(rows)),
    }
    lists = {"concepts": CONCEPTS, "locales": ["en"], "styles": ["flat", "3d"], "main": ["en"]}
    save_file(tensors, folder / "captions.safetensors", {k: json.dumps(v) for k, v in lists.items()})
    return folder


@pytest.fixture(scope="module")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, one after the other."""
    folder = tmp_path_factory.mktemp("runs")
    for recipe in (AUTOENCODER, CLIP, T5, PICTURE):
        stages.train(recipe, shards, folder / recipe.stage, frozen=frozen(folder))
    stages.train(UNET, shards, folder / "unet", frozen=frozen(folder))
    return folder


def frozen(runs: Path) -> dict[str, Path]:
    return {stage: runs / stage / stages.AVERAGE for stage in ("autoencoder", "clip", "t5")}


@pytest.mark.parametrize("recipe", [AUTOENCODER, CLIP, T5, PICTURE, UNET], ids=lambda r: r.stage)
def test_a_stage_leaves_weights_log_and_recipe(runs: Path, recipe: Recipe) -> None:
    folder = runs / recipe.stage
    assert stages.recipe_of(folder / stages.AVERAGE, "any") == recipe
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]
    assert all(torch.isfinite(value).all() for value in load_file(folder / stages.AVERAGE).values())


def test_latents_fill_the_range_that_thresholds_expect(runs: Path, shards: Path) -> None:
    """99.5 % of |x| lie within 1 (design decision 14)."""
    features = load_features(runs / "unet" / "features", "cpu")
    assert float(torch.quantile(features.latents[0].float().abs().flatten(), 0.995)) == pytest.approx(1, rel=0.05)


def test_a_finished_decoder_can_be_trained_on_while_latents_stay(runs: Path, shards: Path, tmp_path: Path) -> None:
    recipe = replace(AUTOENCODER, freeze_encoder=True)
    stages.train(recipe, shards, tmp_path, start=runs / "autoencoder" / stages.AVERAGE)
    before, after = load_file(runs / "autoencoder" / stages.AVERAGE), load_file(tmp_path / stages.AVERAGE)
    same = {key: torch.equal(before[key], after[key]) for key in before}
    assert all(same[key] for key in same if key.startswith("encoder/"))
    assert not all(same[key] for key in same if key.startswith("decoder/"))
    # the frozen half is part of the run's state: it resumes without --start
    stages.train(recipe, shards, tmp_path)
    assert all(torch.equal(after[key], value) for key, value in load_file(tmp_path / stages.AVERAGE).items())


@pytest.fixture(scope="module")
def exported(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the package would hold of the first two stages."""
    out, source = tmp_path_factory.mktemp("exported"), {"recipe": to_json(AUTOENCODER)}
    example = {"latents": {"latents": torch.zeros(1, 16, 4, 4)}, "pixels": {"pixels": torch.zeros(1, 4, 64, 64)}}
    for kind, given, answer in ((Encoder, "pixels", "moments"), (Decoder, "latents", "pixels")):
        name = kind.__name__.lower()
        module = stages.load_component(kind(AUTOENCODER.network), runs / "autoencoder" / stages.AVERAGE, name).eval()
        export_component(module, name, example[given], [given], [answer], out, source)
    text = stages.load_component(ContrastiveTextEncoder(CLIP.text), runs / "clip" / stages.AVERAGE, "text_contrastive")
    ids = {"ids": torch.ones(2, 8, dtype=torch.int64), "mask": torch.ones(2, 8)}
    export_component(
        text.eval(), "text_contrastive", ids, list(ids), ["tokens", "pooled"], out, {"recipe": to_json(CLIP)}
    )
    return out


def test_training_goes_on_from_exported_components(runs: Path, exported: Path, shards: Path, tmp_path: Path) -> None:
    # the frozen half is what was exported, at its float16
    stages.train(replace(AUTOENCODER, freeze_encoder=True), shards, tmp_path / "decoder", start=exported)
    before, after = load_file(exported / "encoder.safetensors"), load_file(tmp_path / "decoder" / stages.AVERAGE)
    assert all(torch.equal(after[f"encoder/{k}"].half(), v) for k, v in before.items() if v.dtype == torch.float16)
    # the U-Net takes a folder of components for a stage
    stages.train(UNET, shards, tmp_path / "unet", frozen=frozen(runs) | {"autoencoder": exported, "clip": exported})
    # and the text encoder brings no prototypes: they begin where it has the names
    looks = Appearance(torch.eye(4)[:3], torch.eye(4)[:3, None].repeat(1, 2, 1))
    captions = load_captions(shards / "captions.safetensors")
    task = ContrastiveTask(CLIP, load_pictures(shards, 64), captions, "cpu", looks)
    stages._begin_with(task, exported)
    centres = name_centres(task.text, captions)[:, 4:]
    assert torch.allclose(unit(task.prototypes.concept), unit(centres), atol=1e-5)
    with pytest.raises(TrainingError, match="none of text_t5"):
        stages.train(T5, shards, tmp_path / "t5", start=exported)


def test_scenes_join_the_training_of_the_unet(runs: Path, shards: Path, tmp_path: Path) -> None:
    noun = torch.tensor([[10, 4, -1, -1, -1], [4, 4, 4, -1, -1], [6, -1, -1, -1, -1]], dtype=torch.int8)
    row = torch.full((3,), -1, dtype=torch.int8)
    wide = torch.full((3, 5), -1, dtype=torch.int8)
    columns = {"noun": noun, "colour": wide.clone(), "size": wide.clone(), "relation": torch.tensor([3, -1, -1])}
    columns |= {name: row.clone() for name in ("ground", "ground_colour", "style")}
    captions = {
        "scene": [0, 0, 1, 2],
        "locale": [0, 1, 0, 0],
        "offsets": [0, 4, 8, 12, 16],
        "ids": [1, 270, 280, 2] * 4,
    }
    columns |= {name: torch.tensor(values) for name, values in captions.items()}
    metadata = {"emoji": json.dumps(EMOJI), "styles": '["flat", "3d"]'}
    save_file(columns, shards / "scenes.safetensors", metadata)
    recipe = replace(UNET, scenes=0.5, scene_pool=2)
    stages.train(recipe, shards, tmp_path, frozen=frozen(runs))
    features = load_features(tmp_path / "features", "cpu")
    assert features.scene_latents.shape[0] == 2 and (features.scene_first.diff() == torch.tensor([2, 1])).all()
    rows = features.scene_first[0]
    assert int(rows) == int((features.row_weight > 0).sum()) + 1 and len(features.offsets) == int(rows) + 4
    assert features.offsets[-1] == len(features.tokens1) == len(features.tokens2)
    task = stages._unet_task(replace(recipe, scenes=1.0), shards, tmp_path, "cpu", frozen(runs))
    x0, said, composed = task._with_scenes(
        features.latents[0, :6].float(), torch.zeros(6, dtype=torch.int64), features.scene_latents, generator(0, 0)
    )
    known = torch.stack([(x0 == scene.float()).flatten(1).all(1) for scene in features.scene_latents])
    assert bool(known.any(0).all())
    right = torch.where(known[0], (said >= rows) & (said < rows + 2), said == rows + 2)
    assert bool((right | (said == 0)).all()) and bool(composed.all())


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
    recipe = DistilRecipe(run=RUN, network=MASKED.network, head=MASKED.head, mask_share=0.5)
    weights = frozen(runs) | {"unet": folder / stages.AVERAGE}
    stages.train(recipe, shards, tmp_path / "distil", frozen=weights)
    assert all(torch.isfinite(v).all() for v in load_file(tmp_path / "distil" / stages.AVERAGE).values())


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


def test_pictures_find_their_concepts(shards: Path, runs: Path, tmp_path: Path) -> None:
    """Discs of three colours: seconds of training are enough to tell them apart, also those that were held out."""
    with pytest.raises(TrainingError, match="--frozen clip"):
        stages.train(PICTURE, shards, tmp_path)
    run = replace(RUN, batch=24, steps=60, log_every=10, optimiser=Optimiser(lr=4e-3, warmup_steps=5, ema_rel=0.05))
    recipe = replace(PICTURE, run=run)
    apart = {"concept": torch.eye(16)[:3], "styled": torch.eye(16)[:3, None].repeat(1, 2, 1), "anchor": torch.zeros(16)}
    (tmp_path / "features").mkdir()
    save_file({k: v.contiguous() for k, v in apart.items()}, tmp_path / "features" / "prototypes.safetensors")
    stages.train(recipe, shards, tmp_path, frozen=frozen(runs))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["held_out"]["found_first"] > 0.9 and lines[-1]["held_out"]["cosine"] > 0.8
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]


def test_what_pictures_aim_at_is_what_captions_say(shards: Path, runs: Path) -> None:
    known = load_file(runs / "picture" / "features" / "prototypes.safetensors")
    text = stages.load_component(ContrastiveTextEncoder(CLIP.text), frozen(runs)["clip"], "text_contrastive").eval()
    ids = torch.tensor([[1, 271, 283, 291, 2]])  # concept 1 in style 1
    with torch.no_grad():
        said = text(ids, torch.ones(1, 5))[1][0]
    assert torch.allclose(known["styled"][1, 1], unit(said), atol=1e-5)
    assert torch.allclose(known["concept"].norm(dim=-1), torch.ones(3), atol=1e-5)


def test_grounds_and_light_keep_pictures_possible() -> None:
    pixels = torch.full((64, 4, 8, 8), -1.0)
    pixels[:, 3, 2:6, 2:6] = 1.0
    pixels[:, 0, 2:6, 2:6] = 0.5
    seen = grounded(pixels, 0.5, generator(0, 0))
    assert bool((seen[:, :3] <= seen[:, 3:]).all()) and float(seen.min()) >= -1
    opaque = (seen[:, 3] == 1).flatten(1).all(1)
    assert 15 < int(opaque.sum()) < 50
    assert torch.equal(seen[~opaque][:, 3], pixels[~opaque][:, 3])


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
    shown = task._with_pictures(text, rows, seen, generator(0, 0))
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


def test_recipes_of_before_are_read_and_mean_the_same(runs: Path, shards: Path) -> None:
    old = json.loads(to_json(CLIP)) | {"images": 8, "image": {"width": 192, "blocks": 2}}
    assert recipes.from_json(json.dumps(old)) == CLIP
    task = stages._unet_task(UNET, shards, runs / "unet", "cpu", frozen(runs))
    x0, rows, seen = task._batch(generator(0, 0))
    text = task._text(rows)
    assert task._with_pictures(text, rows, seen, generator(0, 0)) is text and task._known(x0, generator(0, 0)) == {}


def unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def test_texts_learn_what_things_look_like(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--frozen autoencoder"):
        stages.train(CLIP, shards, tmp_path)
    # pictures are sums of a concept's and a style's own direction: codes tell both, and do not mix concepts
    chance = torch.Generator().manual_seed(0)
    base, way = torch.randn(5, 2, 3, 4, generator=chance), torch.randn(2, 2, 3, 4, generator=chance)
    concept, style = torch.arange(40) % 5, torch.arange(40) // 5 % 2
    latents = base[concept] + 0.3 * way[style] + 0.01 * torch.randn(40, 2, 3, 4, generator=chance)
    looks = appearance(latents, concept, style, torch.ones(40), (6, 2), 4)
    assert looks.concept.shape == (6, 4) and looks.styled.shape == (6, 2, 4)
    assert torch.allclose(looks.concept[:5].norm(dim=-1), torch.ones(5)) and not looks.concept[5].any()
    cosine = looks.concept[:5] @ looks.concept[:5].T
    assert float((cosine - 2 * torch.eye(5)).max()) < 0.8
    assert bool(((looks.styled[:5] * looks.concept[:5, None]).sum(-1) > 0.9).all())
    design = torch.cat([looks.concept[concept], torch.ones(40, 1)], 1)
    flat = latents.flatten(1)
    left = (flat - design @ torch.linalg.lstsq(design, flat).solution).square().mean()
    assert float(left) < 0.1 * float((flat - flat.mean(0)).square().mean())


def test_captions_count_as_far_as_the_encoder_understands_them(runs: Path, shards: Path) -> None:
    encoder = stages.load_component(
        ContrastiveTextEncoder(CLIP.text), runs / "clip" / stages.AVERAGE, "text_contrastive"
    )
    centres = name_centres(encoder, load_captions(shards / "captions.safetensors"))
    assert torch.allclose(centres.norm(dim=-1), torch.ones(3))
    apart = torch.eye(3)
    clear = clarity(torch.stack([apart[0] * 4, apart[0] + apart[1], apart[2]]), torch.tensor([0, 0, 1]), apart, 20.0)
    assert clear.tolist() == pytest.approx([1.0, 0.5, 0.01], abs=0.01)
    features = load_features(runs / "unet" / "features", "cpu")
    assert features.row_weight[0] == 0 and bool((features.row_weight[1:] > 0).all())


def test_the_unet_says_which_weights_it_lacks(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="clip, t5"):
        stages.train(UNET, shards, tmp_path, frozen={"autoencoder": tmp_path / "none"})


def test_a_unet_is_tuned_to_few_steps(runs: Path, shards: Path, tmp_path: Path) -> None:
    recipe = DistilRecipe(run=RUN, network=UNET.network, head=UNET.head)
    with pytest.raises(TrainingError, match="weights of: unet"):
        stages.train(recipe, shards, tmp_path / "none", frozen=frozen(runs))
    weights = frozen(runs) | {"unet": runs / "unet" / stages.AVERAGE}
    task = stages._unet_task(recipe, shards, runs / "unet", "cpu", weights)
    assert isinstance(task, DistilTask)
    trained = stages.load_component(UNet(UNET.network), weights["unet"], "unet").state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in task.unet.state_dict().items())
    assert task.bounds[0] == 0 and task.bounds[-1] == pytest.approx(0.999) and len(task.bounds) == 5
    # the four lower ends are where four Euler steps stop, so that a jump is one of them
    stops = [sigma / (1 + sigma) for sigma in Flow(shift=recipe.shift).spaced(4)]
    assert task.bounds.flip(0).tolist() == pytest.approx(stops, abs=1e-6)
    stages.train(recipe, shards, tmp_path / "run", frozen=weights)
    after = load_file(tmp_path / "run" / stages.AVERAGE)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not all(torch.equal(after[f"unet/{key}"], value) for key, value in trained.items())


@pytest.mark.parametrize("name", ["unet", "unet-96", "unet-128", "distil"])
def test_the_networks_of_the_recipes_fit(name: str) -> None:
    recipe = RECIPES[name]
    assert isinstance(recipe, UNetRecipe)
    with torch.device("meta"):
        both = Conditioned(UNet(recipe.network), KandinskyTextHead(recipe.head))
        text = torch.zeros(2, 16, 256), torch.zeros(2, 256), torch.zeros(2, 16, 192)
        assert both(torch.zeros(2, 16, 16, 16), torch.zeros(2), *text).shape == (2, 16, 16, 16)


def test_a_velocity_goes_straight_to_the_data() -> None:
    chance = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 2, 4, 4, generator=chance)
    t = torch.tensor([0.3, 0.7, 0.999])

    def exact(x: torch.Tensor, sigma: torch.Tensor, cond: object) -> torch.Tensor:
        return x0

    z = rows_of(1 - t) * x0 + rows_of(t) * noise
    assert torch.allclose(velocity(exact, z, t, {}), noise - x0, atol=1e-4)  # type: ignore[arg-type]


def test_weights_of_another_recipe_are_refused(runs: Path, shards: Path, tmp_path: Path) -> None:
    recipe = replace(AUTOENCODER, network=replace(AUTOENCODER.network, decoder_width=32))
    with pytest.raises(TrainingError, match="another recipe"):
        stages.train(recipe, shards, tmp_path, start=runs / "autoencoder" / stages.AVERAGE)


def test_pictures_come_back_as_written(shards: Path) -> None:
    pictures = load_pictures(shards)
    assert pictures.pixels.shape == (60, 4, 256, 256)
    assert pictures.pixels[0, 0, 128, 100] == 255
    assert 0 < int(pictures.held_out.sum()) < 10
    assert float(to_network(pictures.pixels[0]).min()) == -1.0


def test_draws_follow_their_weights_within_ranges() -> None:
    draw = Draw(torch.tensor([1.0, 3.0, 0.0, 5.0, 1.0]))
    chance = generator(0, 0)
    counts = torch.bincount(draw(20000, chance), minlength=5) / 20000
    assert torch.allclose(counts, torch.tensor([0.1, 0.3, 0.0, 0.5, 0.1]), atol=0.02)
    start, end = torch.tensor([0, 2]).repeat(5000), torch.tensor([2, 5]).repeat(5000)
    drawn = draw.within(start, end, chance)
    assert bool(((drawn >= start) & (drawn < end)).all())
    assert float((drawn[::2] == 1).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_languages_come_as_often_as_asked(shards: Path) -> None:
    captions = load_captions(shards / "captions.safetensors")
    captions = replace(captions, locales=["en", "pt", "sw"], locale=torch.arange(len(captions.locale)) % 3)
    weight = captions.weight(8.0, (("pt", 3.0),))
    assert [weight[captions.locale == i].unique().tolist() for i in range(3)] == [[8.0], [3.0], [1.0]]
    assert torch.equal(captions.weight(8.0)[captions.locale == 1], captions.language_weight[captions.locale == 1])


def test_concepts_are_balanced_whatever_their_number_of_rows() -> None:
    concept = torch.tensor([0, 0, 0, 0, 1, 2])
    weights = balanced(concept, 4, torch.ones(6), torch.tensor([1.0, 1.0, 2.0, 1.0]))
    assert torch.allclose(weights, torch.tensor([0.25] * 4 + [1.0, 2.0], dtype=torch.float64))


def test_captions_are_padded_with_zeros(shards: Path) -> None:
    captions = load_captions(shards / "captions.safetensors")
    ids, mask = captions.batch(torch.tensor([0, 3]), 8)
    assert ids.tolist()[1] == [1, 270, 283, 290, 2, 0, 0, 0]
    assert mask.sum(1).tolist() == [5.0, 5.0]
