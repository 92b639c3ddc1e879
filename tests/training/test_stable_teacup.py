"""A teacup of Stable Diffusion: it begins with a Kandinsky's weights, reads tokens alone, and is exported and drawn with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from little import UNET, frozen
from safetensors.torch import load_file

import chashka
from chashka.diffusion import Table
from chashka.errors import InputError, TrainingError
from chashka.nets.attention import QKVAttention, SpatialTransformer
from chashka.nets.unet import UNet
from chashka.request import Inputs
from chashka.training import stages
from chashka.training.catalogue import RECIPES
from chashka.training.crossing import with_transformers
from chashka.training.recipes import DistilRecipe
from chashka.training.ship import Finished, ship

pytestmark = pytest.mark.torch
MASKED = replace(UNET.network, in_channels=33)
STABLE = replace(
    UNET,
    network=replace(MASKED, attention="transformer", linear_proj=True),
    head=None,
    schedule="scaled_linear",
    mask_share=0.3,
    text_block=32,
    draw_steps=3,
)


@pytest.fixture(scope="module")
def trained(runs: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that begins with the weights of the Kandinsky among ``runs``."""
    run = tmp_path_factory.mktemp("stable")
    needed = {name: path for name, path in frozen(runs).items() if name != "t5"}
    stages.train(STABLE, shards, run, start=runs / "unet" / "average.safetensors", frozen=needed)
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


def test_a_network_with_transformers_begins_as_the_one_without() -> None:
    torch.manual_seed(0)
    old, new = UNet(MASKED).eval(), UNet(STABLE.network).eval()
    for block in old.modules():
        if isinstance(block, QKVAttention):  # a new one adds nothing
            torch.nn.init.normal_(block.proj_out.weight, std=0.3)
    torch.nn.init.normal_(old.out[2].weight, std=0.3)
    weights = old.state_dict()
    fresh = UNet(STABLE.network).eval()
    own = fresh.state_dict()
    fresh.load_state_dict(own | {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape})
    new.load_state_dict(with_transformers(weights, new))
    x, t, nothing = torch.randn(2, 33, 8, 8), torch.full((2,), 300.0), torch.zeros(2, 4, 16)
    with torch.no_grad():
        before, carried, other = old(x, t), new(x, t, nothing), fresh(x, t, nothing)
    assert (carried - before).std() < 0.8 * (other - before).std()
    assert with_transformers(new.state_dict(), new).keys() == new.state_dict().keys()
    assert with_transformers(weights, old) == dict(weights)
    assert any(isinstance(block, SpatialTransformer) for block in new.modules())


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
    assert (texts[0][0, -8:] == 0).all() and (texts[0][0, :3] != 0).any(axis=1).all(), "padded as in training"
    mask = np.zeros((64, 64), np.float32)
    mask[:32] = 1
    over = model.request(prompt="кот", **asked)
    (repainted,) = chashka.draw(model, over, Inputs(picture.pixels, mask))
    assert np.array_equal(repainted.pixels[40:], picture.pixels[40:])
    with pytest.raises(InputError, match="denoised_type"):
        model.request(prompt="x", denoised_type="none")
    (same,) = chashka.draw(chashka.load(str(exported), engine="torch"), model.request(prompt="красное яблоко", **asked))
    assert np.abs(same.pixels.astype(int) - picture.pixels).max() <= 3, "both engines"


def test_what_does_not_go_together_is_told(runs: Path, shards: Path, trained: Path, tmp_path: Path) -> None:
    assert RECIPES["stable-diffusion"].head is None
    with pytest.raises(TrainingError, match="picture_share needs a text head"):
        replace(STABLE, picture_share=0.1)
    with pytest.raises(TrainingError, match="schedule is 'cosine'; allowed: flow, scaled_linear"):
        replace(STABLE, schedule="cosine")
    with pytest.raises(TrainingError, match="few steps are learned along the straight path"):
        DistilRecipe(head=None)
    with pytest.raises(TrainingError, match=r"network\.context is 24; the text encoder's tokens have 16"):
        stages.train(
            replace(STABLE, network=replace(STABLE.network, context=24)), shards, tmp_path, frozen=frozen(runs)
        )
    known, latents = frozen(runs), trained.parent / "features" / "latents.safetensors"
    with pytest.raises(TrainingError, match="not of the stage t5"):
        ship(
            Finished(known["autoencoder"], known["clip"], None, runs / "unet" / "average.safetensors", latents),
            tmp_path,
        )
