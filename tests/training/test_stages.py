"""Every stage end to end on a handful of made pictures and captions: it runs, resumes, and its weights feed the next stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from little import AUTOENCODER, CLIP, PICTURE, RUN, T5, UNET, frozen, with_scenes
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from chashka.checkpoints import sha256
from chashka.engines.export import export_component
from chashka.errors import TrainingError
from chashka.nets.autoencoder import Decoder, Encoder
from chashka.nets.multilingual import ContrastiveTextEncoder
from chashka.training import stages
from chashka.training.appearance import Appearance, appearance
from chashka.training.captions import Draw, balanced, load_captions
from chashka.training.catalogue import to_json
from chashka.training.components import load_component, recipe_of
from chashka.training.contrastive import ContrastiveTask, name_centres
from chashka.training.features import clarity, load_features
from chashka.training.loop import generator
from chashka.training.picture import grounded
from chashka.training.pictures import load_pictures, to_network
from chashka.training.recipes import (
    Optimiser,
    Recipe,
)
from chashka.training.ship import provenance

pytestmark = pytest.mark.torch


def unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("recipe", [AUTOENCODER, CLIP, T5, PICTURE, UNET], ids=lambda r: r.stage)
def test_a_stage_leaves_weights_log_and_recipe(runs: Path, recipe: Recipe) -> None:
    folder = runs / recipe.stage
    assert recipe_of(folder / stages.AVERAGE, "any") == recipe
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
        module = load_component(kind(AUTOENCODER.network), runs / "autoencoder" / stages.AVERAGE, name).eval()
        export_component(module, name, example[given], [given], [answer], out, source)
    text = load_component(ContrastiveTextEncoder(CLIP.text), runs / "clip" / stages.AVERAGE, "text_contrastive")
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


def test_an_encoder_whose_vector_is_kept_begins_with_its_weights(exported: Path, shards: Path, tmp_path: Path) -> None:
    with_scenes(shards)
    recipe = replace(CLIP, kept=5.0, translated=4)
    with pytest.raises(TrainingError, match="give the encoder with --start"):
        stages.train(recipe, shards, tmp_path / "none")
    stages.train(recipe, shards, tmp_path / "first", start=exported)
    first = load_file(tmp_path / "first" / stages.AVERAGE)
    begun = load_component(ContrastiveTextEncoder(recipe.text), exported, "text_contrastive").state_dict()
    assert all(torch.equal(first[f"kept/{key}"], value) for key, value in begun.items())
    # what goes on from such a run is held to the same vector, not to what the run made of it
    stages.train(recipe, shards, tmp_path / "second", start=tmp_path / "first" / stages.AVERAGE)
    second = load_file(tmp_path / "second" / stages.AVERAGE)
    assert all(torch.equal(second[f"kept/{key}"], value) for key, value in begun.items())
    assert not torch.equal(second["text_contrastive/project.weight"], begun["project.weight"])


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
    text = load_component(ContrastiveTextEncoder(CLIP.text), frozen(runs)["clip"], "text_contrastive").eval()
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
    encoder = load_component(ContrastiveTextEncoder(CLIP.text), runs / "clip" / stages.AVERAGE, "text_contrastive")
    centres = name_centres(encoder, load_captions(shards / "captions.safetensors"))
    assert torch.allclose(centres.norm(dim=-1), torch.ones(3))
    apart = torch.eye(3)
    clear = clarity(torch.stack([apart[0] * 4, apart[0] + apart[1], apart[2]]), torch.tensor([0, 0, 1]), apart, 20.0)
    assert clear.tolist() == pytest.approx([1.0, 0.5, 0.01], abs=0.01)
    features = load_features(runs / "unet" / "features", "cpu")
    assert features.row_weight[0] == 0 and bool((features.row_weight[1:] > 0).all())


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


def test_a_picture_encoder_begun_with_weights_learns_its_own_text_encoder(
    runs: Path, shards: Path, tmp_path: Path
) -> None:
    """What the weights' run was told by another text encoder stays behind."""
    with safe_open(runs / "picture" / stages.AVERAGE, framework="pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    others = {key: value * 0 - 1 if key.startswith("prototypes/") else value for key, value in tensors.items()}
    save_file(others, tmp_path / "start.safetensors", metadata)
    stages.train(PICTURE, shards, tmp_path / "run", start=tmp_path / "start.safetensors", frozen=frozen(runs))
    after = load_file(tmp_path / "run" / stages.AVERAGE)
    own = [key for key in tensors if key.startswith("prototypes/")]
    assert own and all(torch.equal(after[key], tensors[key]) for key in own)


def test_weights_name_everything_that_their_run_read(shards: Path, runs: Path) -> None:
    told = provenance(runs / "unet" / "average.safetensors", "unet")  # what an export writes down
    assert told["captions"] == sha256(shards / "captions.safetensors") and "scenes" not in told
    assert json.loads(told["frozen"]) == {stage: sha256(path) for stage, path in frozen(runs).items()}
    assert "captions" not in provenance(runs / "autoencoder" / "average.safetensors", "encoder")
