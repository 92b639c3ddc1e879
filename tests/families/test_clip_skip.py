"""Other layers of the text tower: against transformers and diffusers, both engines, made once and late, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stable_file import opened, relative
from stable_folder import tiny_folder

from chashka import families, generate
from chashka.checkpoints import write
from chashka.engines.torch_engine import TorchEngine
from chashka.errors import InputError, WeightsError
from chashka.families.stable_diffusion import sampling
from chashka.prompts import clip_words

pytestmark = pytest.mark.torch
LAYERS = 5
SAID = "a red cup of tea"
ASKED = {"prompt": SAID, "seed": 1, "steps": 2, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, Any]:
    """A folder whose text tower has five layers, and diffusers' modules."""
    folder = tmp_path_factory.mktemp("skip") / "tiny-sd"
    return folder, *tiny_folder(folder, layers=LAYERS)


def heard(bundle: Any, text: str = SAID, **more: Any) -> np.ndarray:
    """What the U-Net is told."""
    found: np.ndarray = sampling.encoded(bundle, bundle.request(**{**ASKED, "prompt": "x"}, **more), text)["tokens"]
    return found


def last_norm(tower: Any) -> Any:
    return next(module for name, module in tower.named_modules() if name.endswith("final_layer_norm"))


def test_layers_are_those_of_transformers(tiny: Any, tmp_path: Path) -> None:
    folder, _, _, tower = tiny
    ids = torch.from_numpy(clip_words.encode_batch([SAID], clip_words.END)[0])
    norm = last_norm(tower)
    with torch.no_grad():
        states = tower(ids, output_hidden_states=True).hidden_states
        theirs = {n: norm(states[-n]).numpy() for n in range(1, LAYERS + 1)}
    for engine, closeness in (("torch", 1e-5), ("openvino", 5e-3)):  # kept graphs have float16 weights
        bundle = families.load(str(folder), engine=engine, precision="f32", cache_dir=tmp_path / "kept")
        usual = heard(bundle)
        for n, expected in theirs.items():
            assert relative(heard(bundle, clip_skip=n), expected) < closeness
            assert relative(heard(bundle, clip_skip=n, compat="diffusers"), expected) < closeness
        np.testing.assert_array_equal(heard(bundle, clip_skip=1), usual)
        np.testing.assert_array_equal(heard(bundle), usual)
        assert min(relative(theirs[1], theirs[n]) for n in range(2, LAYERS + 1)) > 0.05


def test_diffusers_counts_from_0(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    folder, unet, vae, tower = tiny
    # its pipeline looks for the norm where transformers had it before version 5
    monkeypatch.setattr(tower, "text_model", SimpleNamespace(final_layer_norm=last_norm(tower)), raising=False)
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77)
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
    pipeline = StableDiffusionPipeline(vae, tower, words, unet, scheduler, None, None, requires_safety_checker=False)
    bundle = families.load(str(folder), engine="torch")
    for skip in (None, *range(LAYERS)):
        theirs, _ = pipeline.encode_prompt(SAID, "cpu", 1, False, clip_skip=skip)
        own = None if skip is None else skip + 1
        assert relative(heard(bundle, clip_skip=own), theirs.detach().numpy()) < 1e-5


def test_a_layer_is_made_when_it_is_asked_for_and_once(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    build = TorchEngine.build
    monkeypatch.setattr(TorchEngine, "build", lambda self, *given: (made.append(given[0].name), build(self, *given))[1])
    bundle = families.load(str(tiny[0]), engine="torch")
    usual = generate.draw(bundle, bundle.request(**ASKED))[0]
    first = generate.draw(bundle, bundle.request(**ASKED, clip_skip=1))[0]
    assert sorted(made) == ["decoder", "encoder", "text", "unet"]
    other, again = (generate.draw(bundle, bundle.request(**ASKED, clip_skip=2))[0] for _ in range(2))
    assert sorted(made) == ["decoder", "encoder", "text", "text", "unet"]
    assert np.array_equal(usual.pixels, first.pixels) and np.array_equal(other.pixels, again.pixels)
    assert not np.array_equal(usual.pixels, other.pixels)
    assert other.request.clip_skip == 2 and not other.notes


def test_2x_has_a_layer_of_its_own(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before the last; in 1.x it is the last."""
    monkeypatch.setattr("chashka.families.stable_diffusion.layout.HEAD_WIDTH", 16)  # the file is read again
    second, first = (opened(checkpoints, name) for name in ("stability.ckpt", "compvis.safetensors"))
    np.testing.assert_array_equal(heard(second), heard(second, clip_skip=2))
    assert relative(heard(second), heard(second, clip_skip=1)) > 1e-2
    np.testing.assert_array_equal(heard(first), heard(first, clip_skip=1))
    assert relative(heard(first), heard(first, clip_skip=2)) > 1e-2


def test_the_grammar_and_chunks_stay(tiny: Any) -> None:
    bundle = families.load(str(tiny[0]), engine="torch")
    plainly, heavy = (heard(bundle, text, clip_skip=3) for text in ("a red cup", "a (red:1.5) cup"))
    ratio = heavy[0, 2] / heavy[0, 1] * plainly[0, 1] / plainly[0, 2]
    assert np.allclose(ratio, 1.5, rtol=1e-3)
    assert heard(bundle, "cup " * 100, clip_skip=3).shape == (1, 154, 24)
    part, whole = (heard(bundle, text, clip_skip=3) for text in ("a cup", "a cup BREAK tea"))
    np.testing.assert_array_equal(part[0], whole[0, :77])


def test_loras_and_embeddings_count_in_every_layer(tiny: Any, tmp_path: Path) -> None:
    name = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    rng = np.random.default_rng(3)
    halves = {
        half: rng.normal(0, 1, shape).astype(np.float32) for half, shape in (("lora_A", (2, 24)), ("lora_B", (96, 2)))
    }
    write(tmp_path / "ink.safetensors", {f"{name}.{half}.weight": value for half, value in halves.items()}, {})
    write(tmp_path / "blob.safetensors", {"emb_params": np.ones((2, 24), np.float32)}, {})
    plain, changed, worded = (
        families.load(str(tiny[0]), engine="torch", **more)
        for more in (
            {},
            {"loras": [(tmp_path / "ink.safetensors", 1.0)]},
            {"embeddings": [tmp_path / "blob.safetensors"]},
        )
    )
    for skip in (1, 3):
        assert relative(heard(changed, clip_skip=skip), heard(plain, clip_skip=skip)) > 1e-2
        np.testing.assert_array_equal(heard(worded, clip_skip=skip), heard(plain, clip_skip=skip))
        told = [heard(bundle, "a blob", clip_skip=skip) for bundle in (worded, plain)]
        assert relative(*told) > 1e-2


def test_what_is_not_possible_is_told(tiny: Any, tmp_path: Path) -> None:
    bundle = families.load(str(tiny[0]), engine="torch")
    with pytest.raises(
        InputError, match="clip_skip: 6 is not possible; the text encoder of this model has 5 layers; allowed: 1 to 5"
    ):
        generate.draw(bundle, bundle.request(**ASKED, clip_skip=6))
    for wrong in (0, 13, -1, 1.5, True, "last"):
        with pytest.raises(InputError, match=r"clip_skip: .* is not possible; allowed: a whole number from 1 to 12"):
            bundle.request(**ASKED, clip_skip=wrong)
    assert bundle.request(**ASKED, clip_skip="2").clip_skip == 2


def test_a_file_that_was_exchanged_is_not_mixed_in(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-sd"
    tiny_folder(folder, layers=3)
    bundle = families.load(str(folder), engine="torch")
    heard(bundle, clip_skip=2)
    file = folder / "text_encoder" / "model.safetensors"
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole)
    heard(bundle, clip_skip=2)
    with pytest.raises(WeightsError, match=r"model\.safetensors was changed since the model was opened; open it again"):
        heard(bundle, clip_skip=3)


def test_a_teacup_says_that_it_has_none() -> None:
    bundle = families.load("stable_diffusion-teacup")
    small = {"prompt": "a cup", "seed": 1, "steps": 1}
    usual, other = (generate.draw(bundle, bundle.request(**small, **more))[0] for more in ({}, {"clip_skip": 2}))
    assert np.array_equal(usual.pixels, other.pixels)
    assert set(other.notes) - set(usual.notes) == {
        "clip_skip has no effect: the text encoder of this model has no layers to choose from"
    }
