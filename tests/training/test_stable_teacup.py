"""A teacup of Stable Diffusion: it begins with a Kandinsky's weights, reads tokens alone, and is exported and drawn with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from little import RUN, UNET, frozen
from safetensors.torch import load_file

import chashka
from chashka.diffusion import Flow, Table
from chashka.errors import InputError, TrainingError
from chashka.nets.attention import QKVAttention, SpatialTransformer
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet, sinusoid
from chashka.request import Inputs
from chashka.training import crossing, stages
from chashka.training.catalogue import RECIPES, to_json
from chashka.training.crossing import Heard
from chashka.training.recipes import DistilRecipe
from chashka.training.ship import Finished, ship

pytestmark = pytest.mark.torch
MASKED = replace(UNET.network, in_channels=33)
STABLE = replace(
    UNET,
    network=replace(MASKED, attention="transformer", linear_proj=True, pooled=16),
    head=None,
    schedule="scaled_linear",
    mask_share=0.3,
    text_block=32,
    draw_steps=3,
)


@pytest.fixture(scope="module")
def start(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights made of those of the Kandinsky among ``runs``."""
    folder = tmp_path_factory.mktemp("crossing")
    (folder / "recipe.json").write_text(to_json(STABLE), encoding="utf-8")
    crossing.cross(runs / "unet", folder / "recipe.json", folder / "start.safetensors")
    return folder / "start.safetensors"


@pytest.fixture(scope="module")
def trained(runs: Path, shards: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that begins with them."""
    run = tmp_path_factory.mktemp("stable")
    needed = {name: path for name, path in frozen(runs).items() if name != "t5"}
    stages.train(STABLE, shards, run, start=start, frozen=needed)
    return run / "average.safetensors"


@pytest.fixture(scope="module")
def exported(runs: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacups") / "small"
    latents = trained.parent / "features" / "latents.safetensors"
    known = frozen(runs)
    ship(Finished(known["autoencoder"], known["clip"], None, trained, latents), out)
    words = "\n".join(f"{piece}\t-3.0" for piece in "abcdefghijklmnop,")
    (out / "vocabulary.tsv").write_text(words + "\n", encoding="utf-8")  # the rest are bytes: 300 ids are enough
    return out


def heard(head: KandinskyTextHead, texts: int) -> tuple[Heard, dict[str, torch.Tensor]]:
    """Texts of four tokens; what the head says of them, and what it was given."""
    given = {"tokens1": torch.randn(texts, 4, 16), "pooled1": F.normalize(torch.randn(texts, 16), dim=-1) * 4}
    given["tokens2"] = given["pooled1"][:, None] * 0.3 + torch.zeros(texts, 4, 16)  # it says nothing else
    with torch.no_grad():
        context, added = head(**given)
    return Heard(given["tokens1"].flatten(0, 1), context[:, :4].flatten(0, 1), given["pooled1"], added), given


def test_what_joined_the_time_embedding_is_said_by_one_vector() -> None:
    torch.manual_seed(0)
    assert UNET.head is not None
    known, _ = heard(KandinskyTextHead(UNET.head), 400)
    label = UNet(STABLE.network).label_emb
    parts = crossing.joined(known, STABLE.network)
    label.load_state_dict({name.removeprefix("label_emb."): value for name, value in parts.items()})
    with torch.no_grad():
        missed = (label(known.pooled) - known.added).square().mean()
    assert missed < 0.2 * known.added.var(0).mean()
    with pytest.raises(TrainingError, match="pooled is 64; it must be 32 or less"):
        crossing.joined(replace(known, pooled=torch.randn(400, 64)), replace(STABLE.network, pooled=64))


def test_the_new_network_begins_as_the_old_one() -> None:
    """Far nearer to what it says than one that has only what needs no change; with a text as well."""
    torch.manual_seed(0)
    assert UNET.head is not None
    head, old, new, fresh = KandinskyTextHead(UNET.head), UNet(MASKED), UNet(STABLE.network), UNet(STABLE.network)
    for block in old.modules():
        if isinstance(block, QKVAttention):  # a new one adds nothing
            torch.nn.init.normal_(block.proj_out.weight, std=0.3)
    torch.nn.init.normal_(old.out[2].weight, std=0.3)
    weights, own = old.state_dict(), fresh.state_dict()
    fresh.load_state_dict(own | {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape})
    known, given = heard(head, 64)
    new.load_state_dict(crossing.crossed(weights, new, known))
    x, t = torch.randn(64, 33, 8, 8), torch.full((64,), 300.0)
    with torch.no_grad():
        tokens, added = head(**given)
        before = old(x, t, tokens[:, :4], added)
        carried, other = (one(x, t, given["tokens1"], given["pooled1"]) for one in (new, fresh))
    assert (carried - before).std() < 0.7 * (other - before).std()
    assert any(isinstance(block, SpatialTransformer) for block in new.modules())


def test_noise_means_the_same_on_the_new_scale() -> None:
    torch.manual_seed(0)
    wide = replace(MASKED, width=64)
    old = UNet(wide)
    weights = old.state_dict()
    flow, table = Flow(), Table.scaled_linear()
    found = crossing.timed(weights, 16, flow, table)
    new = UNet(wide)
    new.load_state_dict(weights | found)
    sigma = torch.tensor([0.1, 0.5, 2.0, 8.0])
    with torch.no_grad():
        said = [
            net.time_embed(sinusoid(schedule.sigma_to_t(sigma) * schedule.t_scale, 64))
            for net, schedule in ((old, flow), (new, table), (old, table))
        ]
    assert (said[1] - said[0]).square().mean() < 0.2 * (said[2] - said[0]).square().mean()
    first = "input_blocks.0.0.weight"
    assert torch.equal(found[first][:, 16:], weights[first][:, 16:]), "mask and places stay"
    assert 0.7 < float(found[first][:, :16].norm() / weights[first][:, :16].norm()) < 1


def test_only_what_fits_is_crossed(runs: Path, start: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(to_json(UNET), encoding="utf-8")
    with pytest.raises(TrainingError, match="the recipe of one without"):
        crossing.cross(runs / "unet", tmp_path / "recipe.json", tmp_path / "out.safetensors")
    shutil.copy(runs / "unet" / "average.safetensors", tmp_path)
    with pytest.raises(TrainingError, match="the run's folder with its features"):
        crossing.cross(tmp_path, start.parent / "recipe.json", tmp_path / "out.safetensors")


def test_it_is_trained_along_its_table(trained: Path) -> None:
    parts = {name.split("/")[0] for name in load_file(trained)}
    assert parts == {"unet"}
    assert not (trained.parent / "features" / "part").exists()
    assert load_file(trained.parent / "features" / "text.safetensors")["tokens2"].shape[1] == 0


def test_it_draws(exported: Path) -> None:
    model = chashka.load(str(exported))
    assert model.family.name == "stable_diffusion" and model.masked and isinstance(model.denoiser.schedule, Table)
    asked = {"seed": 1, "width": 64, "height": 64}
    (picture,) = chashka.draw(model, model.request(prompt="красное яблоко", **asked))
    assert picture.pixels.shape == (64, 64, 4) and picture.request.steps == 3
    texts = [model.text.chunked(text, True)["tokens"] for text in ("яблоко", "(яблоко:1.5)", "a BREAK b", "a " * 40)]
    assert [len(t[0]) for t in texts] == [32, 32, 64, 64]
    assert not np.allclose(texts[0], texts[1])
    whole = [model.text.chunked(text, True)["added"] for text in ("яблоко", "a BREAK b", "кот")]
    assert [one.shape for one in whole] == [(1, 16)] * 3 and "added" in model.denoiser.network.graph.inputs
    assert np.isclose(np.linalg.norm(whole[1]), np.linalg.norm(whole[0]), rtol=0.05)
    assert not np.allclose(whole[0], whole[2])
    assert (texts[0][0, -8:] == 0).all() and (texts[0][0, :3] != 0).any(axis=1).all(), "padded as in training"
    mask = np.zeros((64, 64), np.float32)
    mask[:32] = 1
    over = model.request(prompt="кот", **asked)
    (repainted,) = chashka.draw(model, over, Inputs(picture.pixels, mask))
    assert np.array_equal(repainted.pixels[40:], picture.pixels[40:])
    with pytest.raises(InputError, match="denoised_type"):
        model.request(prompt="x", denoised_type="none")
    exact, other = (chashka.load(str(exported), engine=engine, precision="f32") for engine in ("openvino", "torch"))
    picture, same = (chashka.draw(one, one.request(prompt="красное яблоко", **asked))[0] for one in (exact, other))
    assert np.abs(same.pixels.astype(int) - picture.pixels).max() <= 3, "both engines"


def test_few_steps_are_learned_along_the_table_too(runs: Path, shards: Path, trained: Path, tmp_path: Path) -> None:
    """Quarters of the teacher's way are the student's steps, and drafts are drawn at these levels."""
    told = {name: getattr(STABLE, name) for name in ("network", "schedule", "mask_share", "text_block")}
    few = DistilRecipe(run=RUN, head=None, paths=2, teacher_steps=8, rank=4, **told)
    known = {name: path for name, path in frozen(runs).items() if name != "t5"} | {"unet": trained}
    stages.train(few, shards, tmp_path / "few", frozen=known)
    path = load_file(tmp_path / "few" / "features" / "path-00000.safetensors")
    table = Table.scaled_linear()
    assert path["x"].shape[0] == 4
    (levels, finer) = (table.spaced(steps, "trailing") for steps in (4, 8))
    np.testing.assert_allclose(levels, finer[::2])
    assert float(path["x"][0].std()) == pytest.approx(1.0, abs=0.05), "noise, as the network sees it"
    latents = tmp_path / "few" / "features" / "latents.safetensors"
    average = tmp_path / "few" / "average.safetensors"
    out = tmp_path / "small"
    ship(Finished(known["autoencoder"], known["clip"], None, trained, latents, fast=average), out)
    (out / "vocabulary.tsv").write_text("\n".join(f"{p}\t-3.0" for p in "abcdefghijklmnop,") + "\n", encoding="utf-8")
    model = chashka.load(str(out), engine="openvino", precision="f32")
    assert dict(model.fast) == {"steps": 4, "guidance_scale": 1.0, "sampler": "euler", "spacing": "trailing"}
    (draft,) = chashka.draw(model, model.request(prompt="cat", seed=1, width=64, height=64, fast=True))
    assert (draft.request.steps, draft.request.spacing) == (4, "trailing")
    assert model.drafting().denoiser.network.graph.name == "fast"


def test_what_does_not_go_together_is_told(runs: Path, shards: Path, trained: Path, tmp_path: Path) -> None:
    assert RECIPES["stable-diffusion"].head is None
    with pytest.raises(TrainingError, match="need a text head"):
        replace(STABLE, picture_share=0.1)
    with pytest.raises(TrainingError, match="schedule is 'cosine'; allowed: flow, scaled_linear"):
        replace(STABLE, schedule="cosine")
    with pytest.raises(TrainingError, match=r"network\.context is 24; the text encoder's tokens have 16"):
        stages.train(
            replace(STABLE, network=replace(STABLE.network, context=24)), shards, tmp_path, frozen=frozen(runs)
        )
    known, latents = frozen(runs), trained.parent / "features" / "latents.safetensors"
    with pytest.raises(TrainingError, match=r"network\.pooled is 8; the text encoder's vector has 16"):
        stages.train(replace(STABLE, network=replace(STABLE.network, pooled=8)), shards, tmp_path, frozen=frozen(runs))
    with pytest.raises(TrainingError, match="not of the stage t5"):
        ship(
            Finished(known["autoencoder"], known["clip"], None, runs / "unet" / "average.safetensors", latents),
            tmp_path,
        )
