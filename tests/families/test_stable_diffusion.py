"""Stable Diffusion from single files and folders: the originals' runs, diffusers' modules, masks, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "nets"))
from golden_weights import weights
from stable_folder import tiny_folder

from chashka import families, generate
from chashka.checkpoints import write
from chashka.errors import InputError, WeightsError
from chashka.families import Bundle, EngineChoice
from chashka.families.stable_diffusion import sampling
from chashka.families.stable_diffusion.layout import parts
from chashka.families.stable_diffusion.opening import open_file
from chashka.families.stable_diffusion.options import Options
from chashka.families.stable_diffusion.text import chunks
from chashka.generate import loop
from chashka.nets.autoencoder import DecoderKL, EncoderKL
from chashka.nets.clip import TextTower
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, UNetConfig
from chashka.nets.unet import UNet
from chashka.request import Inputs
from golden_files import golden

pytestmark = pytest.mark.torch
TORCH = EngineChoice("torch")
I2I_SCALE = 5.0
STABLE: dict[str, Any] = {"attention_levels": (0, 1), "attention": "transformer", "context": 24, "res_blocks": 1}
UNETS = {
    "compvis": (UNetConfig(4, 4, 32, (1, 2), heads=4, **STABLE), 40),
    "stability": (UNetConfig(4, 4, 32, (1, 2), head_width=16, linear_proj=True, **STABLE), 40),
    "runway": (UNetConfig(9, 4, 32, (1, 2), heads=4, **STABLE), 42),
}
VAE = AutoencoderConfig(
    width=32, mult=(1, 1, 2, 2), res_blocks=1, decoder_width=32, decoder_mult=(1, 1, 2, 2), decoder_res_blocks=1
)
TEXT = CLIPTextConfig(49408, 77, 24, 1, 3, 24)


def recorded(module: nn.Module, seed: int, last: float = 1.0) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float16) for name, value in weights(module, seed, last)[0].items()}


def single_file(who: str) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint under the original's prefixes, with what such files have besides."""
    cfg, seed = UNETS[who]
    with torch.device("meta"):
        unet, encoder, decoder, tower = UNet(cfg), EncoderKL(VAE), DecoderKL(VAE), TextTower(TEXT)
    state = {f"model.diffusion_model.{n}": v for n, v in recorded(unet, seed, 0.5).items()}
    halves = recorded(encoder, 41) | recorded(decoder, 41)
    state |= {f"first_stage_model.{name}": value for name, value in halves.items()}
    text = recorded(tower, 50)
    if who == "stability":
        state |= {f"cond_stage_model.model.{name}": value for name, value in text.items()}
    else:
        state |= {f"cond_stage_model.transformer.{name}": value for name, value in as_transformers(text).items()}
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(77)[None]
    others = {
        "betas": np.zeros(1000),
        "model_ema.decay": np.zeros(()),
        "model_ema.diffusion_modelout2weight": np.zeros(3),
    }
    return state | {name: value.astype(np.float32) for name, value in others.items()}


def as_transformers(text: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A text tower by transformers' names; its projection is not stored with Stable Diffusion 1."""
    pairs = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
    pairs |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    made = {
        "text_model.embeddings.token_embedding.weight": text["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": text["positional_embedding"],
    }
    made |= {f"text_model.final_layer_norm.{k}": text[f"ln_final.{k}"] for k in ("weight", "bias")}
    for i in range(TEXT.layers):
        ours, theirs = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
        for kind in ("weight", "bias"):
            made |= {f"{theirs}.{other}.{kind}": text[f"{ours}.{own}.{kind}"] for own, other in pairs.items()}
            thirds = np.split(text[f"{ours}.attn.in_proj_{kind}"], 3)
            made |= {f"{theirs}.self_attn.{n}_proj.{kind}": third for n, third in zip("qkv", thirds, strict=True)}
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("checkpoints")
    write(place / "compvis.safetensors", single_file("compvis"), {})
    write(place / "runway.safetensors", single_file("runway"), {})
    state = {name: torch.from_numpy(value) for name, value in single_file("stability").items()}
    torch.save({"state_dict": state, "global_step": 3}, place / "stability.ckpt")
    (place / "stability.yaml").write_text('model:\n  params:\n    parameterization: "v"\n', encoding="utf-8")
    return place


def opened(folder: Path, name: str, engine: EngineChoice = TORCH) -> Bundle:
    """With heads of the recorded networks, which the published ones have not."""
    declaration, preset = families.find(str(folder / name))
    assert declaration.name == "stable_diffusion"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chashka.families.stable_diffusion.layout.HEAD_WIDTH", 16)
        return open_file(preset, engine, name, heads=4)


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    return dict(np.load(golden("diffusion/ldm_texts.npz")))


class Said:
    """Recorded text tokens instead of a text tower's."""

    def __init__(self, cond: Any, uncond: Any, real: Any) -> None:
        self._rows, self.meter = (cond, uncond), real.meter

    def encode(self, texts: Any, pooled: Any = None) -> Any:
        return {"tokens": np.stack([self._rows[0 if text else 1] for text in texts])}


def relative(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def drawn(
    bundle: Bundle, request: Any, monkeypatch: pytest.MonkeyPatch, start: Any, inputs: Inputs | None = None
) -> Any:
    """Final latents of a run that starts from given noise."""

    class Replayed:
        def __init__(self, seeds: Any, shape: Any, first_picture: int = 0) -> None:
            pass

        def start(self) -> Any:
            return start

        def __call__(self, step: int, draw: int = 0) -> Any:
            return np.zeros_like(start)

    monkeypatch.setattr(loop, "PictureNoise", Replayed)
    seen: list[Any] = []
    codec = bundle.codec

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(codec, name)

        def decode(self, x: Any) -> Any:
            seen.append(x)
            return codec.decode(x)

    generate.draw(replace(bundle, codec=Watched()), request, inputs)
    return seen[0]


def test_kinds_are_told_by_keys(folder: Path) -> None:
    compvis, runway, stability = (
        opened(folder, n) for n in ("compvis.safetensors", "runway.safetensors", "stability.ckpt")
    )
    assert (compvis.masked, runway.masked, stability.masked) == (False, True, False)
    assert (compvis.denoiser.prediction, stability.denoiser.prediction) == ("eps", "v")
    assert compvis.model == "stable_diffusion-compvis" and compvis.codec.factor == 8
    rows = compvis.text.encode(["a cup", ""])["tokens"]
    assert rows.shape == (2, 77, 24)
    # 1.x pads with the end mark, which says something; 2.x takes the layer before the last, and pads with 0
    assert not np.allclose(rows, stability.text.encode(["a cup", ""])["tokens"])


@pytest.mark.parametrize(
    ("who", "name", "run", "steps", "scale", "sampler"),
    [
        ("compvis", "compvis.safetensors", "ddim10_cfg7.5", 10, 7.5, "ddim"),
        ("compvis", "compvis.safetensors", "ddim30_cfg1", 30, 1.0, "ddim"),
        ("compvis", "compvis.safetensors", "plms10_cfg7.5", 10, 7.5, "plms"),
        ("stability", "stability.ckpt", "ddim10_cfg7.5", 10, 7.5, "ddim"),
        ("stability", "stability.ckpt", "ddim30_cfg1", 30, 1.0, "ddim"),
        ("runway", "runway.safetensors", "ddim10_cfg7.5", 10, 7.5, "ddim"),
    ],
)
def test_runs_of_the_originals(
    who: str, name: str, run: str, steps: int, scale: float, sampler: str, folder: Path, runs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Their U-Nets' own weights, their text, their noise, through our loop from a request: 31 steps where 30 are asked."""
    bundle = opened(folder, name)
    for row in range(2):
        if who == "runway":  # its run had a mask and a masked picture of its own
            seen = np.concatenate([runs["runway.mask"], runs["runway.masked_latent"]], axis=1)[row : row + 1]
            monkeypatch.setattr(sampling, "known_to_the_network", lambda _, seen=seen: seen)
        told = replace(bundle, text=Said(runs[f"{who}.c"][row], runs[f"{who}.u"][row], bundle.text))
        request = told.request(
            prompt="x",
            seed=1,
            steps=steps,
            guidance_scale=scale,
            sampler=sampler,
            compat="original",
            width=64,
            height=64,
        )
        latents = drawn(told, request, monkeypatch, runs[f"{who}.xT"][row : row + 1])
        assert relative(latents, runs[f"{who}.{run}.samples"][row : row + 1]) < 1e-4


@pytest.mark.parametrize(("who", "name"), [("compvis", "compvis.safetensors"), ("stability", "stability.ckpt")])
def test_pictures_of_the_originals(
    who: str, name: str, folder: Path, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From recorded latents: the noise of one level more than the first step believes, then 15 of 20 steps."""
    bundle = opened(folder, name)
    for row in range(2):
        z0 = runs[f"{who}.i2i.z0"][row : row + 1]

        class Encoded:
            def __getattr__(self, name: str) -> Any:
                return getattr(bundle.codec, name)

            def encode(self, pixels: Any, noise: Any = None, z0: Any = z0) -> Any:
                return z0

        said = Said(runs[f"{who}.c"][row], runs[f"{who}.u"][row], bundle.text)
        told = replace(bundle, codec=Encoded(), text=said)
        request = told.request(
            prompt="x", seed=1, steps=20, guidance_scale=I2I_SCALE, sampler="ddim", compat="original", strength=0.75
        )
        noise = runs[f"{who}.i2i.noise"][row : row + 1]
        latents = drawn(told, request, monkeypatch, noise, Inputs(np.zeros((64, 64, 4), np.uint8)))
        assert relative(latents, runs[f"{who}.i2i.decoded"][row : row + 1]) < 1e-4


def test_samplers_sizes_and_masks(folder: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (70, 100, 4), np.uint8)
    picture[..., 3] = 255
    white = np.zeros((70, 100), np.float32)
    white[:30] = 1
    for name in ("compvis.safetensors", "runway.safetensors", "stability.ckpt"):
        bundle = opened(folder, name)
        for sampler in ("dpmpp_2m", "euler_a", "ddim", "unipc"):
            asked = {"prompt": "a cup", "negative_prompt": "tea", "seed": 1, "steps": 4, "sampler": sampler}
            whole, started, painted = (
                generate.draw(bundle, bundle.request(**asked, **more), inputs)[0].pixels
                for more, inputs in (
                    ({"width": 64, "height": 70}, None),
                    ({"strength": 0.5}, Inputs(picture)),
                    ({}, Inputs(picture, white)),
                )
            )
            assert whole.shape == (70, 64, 4) and started.shape == (70, 100, 4)
            assert np.array_equal(painted[30:], picture[30:]) and not np.array_equal(painted[:30], picture[:30])


def test_what_an_inpainting_network_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """x, the mask (1 = drawn anew), and the latents of the picture whose masked part is grey."""
    bundle = opened(folder, "runway.safetensors")
    network, seen = bundle.denoiser.network, []

    def watched(x: Any, t: Any, cond: Any) -> Any:
        seen.append(x)
        return network(x, t, cond)

    bundle = replace(bundle, denoiser=replace(bundle.denoiser, network=watched))
    picture = np.full((64, 64, 4), 200, np.uint8)
    picture[..., 3] = 255
    white = np.zeros((64, 64), np.float32)
    white[:32] = 1
    generate.draw(bundle, bundle.request(prompt="x", seed=1, steps=1), Inputs(picture, white))
    x = seen[0]
    assert x.shape[1] == 9 and np.array_equal(x[0, 4, :4], np.ones((4, 8))) and not x[0, 4, 4:].any()
    grey = np.where(white[..., None] >= 0.5, 127.5, picture[..., :3]) / 127.5 - 1
    pixels = np.concatenate([grey, np.ones((64, 64, 1))], axis=2).transpose(2, 0, 1)[None].astype(np.float32)
    assert np.allclose(x[:1, 5:], bundle.codec.encode(pixels), atol=1e-4)


def test_both_engines(folder: Path, tmp_path: Path) -> None:
    pictures = []
    for engine in ("torch", "openvino"):
        bundle = opened(folder, "compvis.safetensors", EngineChoice(engine, precision="f32", cache_dir=tmp_path))
        request = bundle.request(prompt="a cup", seed=1, steps=3, width=64, height=64)
        pictures.append(generate.draw(bundle, request)[0].pixels.astype(int))
    assert np.mean(np.abs(pictures[0] - pictures[1]) <= 2) > 0.99


def test_a_folder_of_diffusers(tmp_path: Path) -> None:
    """The same modules in both layouts draw the same."""
    folder = tmp_path / "tiny-sd"
    unet, vae, text = tiny_folder(folder)
    bundle = families.load(str(folder), engine="torch")
    assert bundle.model == "stable_diffusion-tiny-sd"
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([10.0, 10.0])
    tokens = bundle.text.encode(["a cup", ""])
    ours = bundle.denoiser.network(x.numpy(), t.numpy(), tokens)
    with torch.no_grad():
        from chashka.prompts import clip_words

        ids = torch.from_numpy(clip_words.encode_batch(["a cup", ""], clip_words.END)[0])
        said = text(ids).last_hidden_state
        assert relative(tokens["tokens"], said.numpy()) < 1e-5
        assert relative(ours, unet(x, t, said).sample.numpy()) < 1e-5
        pixels = torch.rand(1, 3, 64, 64) * 2 - 1
        rgba = np.concatenate([pixels.numpy(), np.ones((1, 1, 64, 64), np.float32)], axis=1)
        assert relative(bundle.codec.encode(rgba), 0.18215 * vae.encode(pixels).latent_dist.mean.numpy()) < 1e-5
    generate.draw(bundle, bundle.request(prompt="cup", seed=1, steps=2, width=64, height=64))
    index = folder / "model_index.json"
    index.write_text('{"_class_name": "StableDiffusionXLPipeline"}', encoding="utf-8")
    with pytest.raises(WeightsError, match="StableDiffusionXLPipeline of diffusers"):
        families.load(str(folder))
    index.write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(WeightsError, match=r"scheduler_config\.json: cannot be read"):
        families.load(str(folder), engine="torch")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("first_stage_model.decoder.conv_in.weight"), r"conv_in\.weight"),
        (lambda s: s.update({"surprise.weight": np.zeros(3, np.float32)}), r"surprise\.weight: no part"),
        (lambda s: s.update({"conditioner.embedders.0.x": np.zeros(3, np.float32)}), "Stable Diffusion XL"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("cond_stage_model")], "no text encoder"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("first_stage_model")], "no autoencoder"),
        (lambda s: s.pop("model.diffusion_model.out.2.weight"), "its U-Net is not one"),
        (lambda s: s.update({"model.diffusion_model.extra": np.zeros(3, np.float32)}), "1 unexpected: extra"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, message: str, tmp_path: Path) -> None:
    state = single_file("compvis")
    change(state)
    write(tmp_path / "model.safetensors", state, {})
    with pytest.raises(WeightsError, match=message):
        opened(tmp_path, "model.safetensors")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lora_unet_down.weight"], "is a LoRA"),
        (["input_blocks.0.0.weight"], "a U-Net alone"),
        (["encoder.down.0.x"], "an autoencoder alone"),
        (["some.weight"], r"no Stable Diffusion checkpoint: no model\.diffusion_model"),
    ],
)
def test_other_files_are_told(names: list[str], message: str, tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors", {name: np.zeros(2, np.float32) for name in names}, {})
    with pytest.raises(WeightsError, match=message):
        families.find(str(tmp_path / "x.safetensors"))


def test_real_inventories_are_recognised(tmp_path: Path) -> None:
    """Sizes by keys and shapes alone, of all four published kinds."""
    import gzip

    class Shape:
        def __init__(self, shape: list[int]) -> None:
            self.shape, self.ndim = tuple(shape), len(shape)

    vae = AutoencoderConfig()
    with torch.device("meta"):
        halves = EncoderKL(vae).state_dict() | DecoderKL(vae).state_dict()
    stored = json.loads(gzip.decompress(golden("nets/real_state_dict_keys_sd.json.gz").read_bytes()))
    for name, keys in stored.items():
        second = name.startswith("sd2")
        text = CLIPTextConfig(width=1024, heads=16, layers=24, embed=1024, activation="gelu", skip_last=1)
        with torch.device("meta"):
            tower = TextTower(text if second else CLIPTextConfig(width=768, heads=12, embed=768)).state_dict()
        state: dict[str, Any] = {key: Shape(shape) for key, shape in keys.items()}
        state |= {f"first_stage_model.{key}": value for key, value in halves.items()}
        if second:
            state |= {f"cond_stage_model.model.{key}": value for key, value in tower.items()}
            found = parts(state, tmp_path)
            assert found.text == text
        else:
            state["cond_stage_model.model.token_embedding.weight"] = tower["token_embedding.weight"]
            state |= {f"cond_stage_model.model.{key}": value for key, value in tower.items()}
            found = parts(state, tmp_path)
        assert found.version == ("2" if second else "1") and found.autoencoder == vae
        assert found.inpainting == name.endswith("inpaint")
        with torch.device("meta"):
            have = {f"model.diffusion_model.{k}": list(v.shape) for k, v in UNet(found.unet).state_dict().items()}
        assert have == {key: list(shape) for key, shape in keys.items()}


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    state = single_file("compvis")
    name = "model.diffusion_model.out.2.bias"
    state[name] = np.full_like(state[name], np.nan)
    write(tmp_path / "x.safetensors", state, {})
    bundle = opened(tmp_path, "x.safetensors")
    with pytest.raises(WeightsError, match=rf"x\.safetensors: {name} holds numbers that are not finite"):
        generate.draw(bundle, bundle.request(prompt="a cup", seed=1, steps=1, width=64, height=64))


def test_chunks() -> None:
    """75 words, cut behind a comma that is not too far back; BREAK begins a new one."""
    assert [len(c.ids) for c in chunks("cup " * 75)] == [75]
    assert [len(c.ids) for c in chunks("cup " * 80)] == [75, 5]
    assert [len(c.ids) for c in chunks("cup " * 64 + ", " + "tea " * 20)] == [65, 20]
    assert [len(c.ids) for c in chunks("cup " * 40 + ", " + "tea " * 40)] == [75, 6]
    assert [len(c.ids) for c in chunks("a cup BREAK tea")] == [2, 1]
    assert [len(c.ids) for c in chunks("a cup BREAK tea", grammar=False)] == [4]
    assert [c.ids for c in chunks("")] == [[]]
    (chunk,) = chunks("a (red:1.5) cup")
    assert chunk.weights == [1.0, 1.5, 1.0]


def test_weights_change_tokens_and_keep_their_mean(folder: Path) -> None:
    text: Any = opened(folder, "compvis.safetensors").text
    plainly, heavy = text.chunked("a red cup", True)["tokens"], text.chunked("a (red:1.5) cup", True)["tokens"]
    assert np.allclose(plainly, text.encode(["a red cup"])["tokens"], atol=1e-6)
    assert heavy.mean() == pytest.approx(plainly.mean(), rel=1e-3) and not np.allclose(heavy, plainly)
    ratio = heavy[0, 2] / heavy[0, 1] * plainly[0, 1] / plainly[0, 2]
    assert np.allclose(ratio, 1.5, rtol=1e-3)
    assert text.chunked("cup " * 100, True)["tokens"].shape == (1, 154, 24)
    assert text.meter("cup " * 100).cut == 0 and text.meter("(cup:1.2)").used == 1


def test_what_is_said_in_each_step() -> None:
    options = Options(prompt="a [cat:dog:2] AND tea :0.5", negative_prompt="[x|y]")
    said = sampling.prompts(options, 5)
    assert [parts[0].text for parts, _ in said] == ["a cat", "a cat", "a cat", "a dog", "a dog"]
    assert {(parts[1].text, parts[1].weight) for parts, _ in said} == {("tea", 0.5)}
    assert [negative for _, negative in said] == ["x", "x", "y", "x", "y"]
    asis = sampling.prompts(options.with_fields(syntax="plain"), 2)
    assert asis[0][0][0].text == "a [cat:dog:2] AND tea :0.5"
    sigmas = (8.0, 4.0, 2.0, 0.0)
    assert [sampling.step_of(s, sigmas) for s in (8.0, 5.0, 4.0, 2.0, 1.0)] == [0, 0, 1, 2, 2]


def test_the_grammar_draws(folder: Path) -> None:
    bundle = opened(folder, "compvis.safetensors")
    asked = {"seed": 1, "steps": 4, "width": 64, "height": 64}

    def pixels(prompt: str, **more: Any) -> Any:
        return generate.draw(bundle, bundle.request(prompt=prompt, **asked, **more))[0].pixels

    plainly = pixels("a red cup")
    different = [
        "a (red:1.4) cup",
        "a [red:blue:2] cup",
        "a red cup AND tea",
        "a red cup BREAK tea",
        "a red cup, " * 40,
    ]
    assert all(not np.array_equal(plainly, pixels(prompt)) for prompt in different)
    assert np.array_equal(pixels("a (red) cup", syntax="plain"), pixels("a (red) cup", syntax="plain"))
    assert np.array_equal(plainly, pixels("a [red:blue:99] cup"))


def test_strength_of_the_original(folder: Path) -> None:
    bundle = opened(folder, "compvis.safetensors")
    asked = {"prompt": "x", "seed": 1, "steps": 10, "sampler": "ddim", "compat": "original"}
    picture = np.zeros((64, 64, 4), np.uint8)
    steps: list[int] = []
    generate.draw(
        bundle, bundle.request(**asked, strength=0.75), Inputs(picture), on_step=lambda p: steps.append(p.total)
    )
    assert steps == [7] * 7
    for strength in (1.0, 0.05):
        with pytest.raises(InputError, match="where the original fails"):
            generate.draw(bundle, bundle.request(**asked, strength=strength), Inputs(picture))


def test_requests_that_are_wrong(folder: Path) -> None:
    options = families.options(str(folder / "compvis.safetensors"))
    for field, value in (("prediction", "x"), ("compat", "2023"), ("spacing", "shifted"), ("denoised_type", "none")):
        with pytest.raises(InputError, match=field):
            options(prompt="x", **{field: value})
    with pytest.raises(WeightsError, match="no such file or folder"):
        families.find("nowhere.safetensors")
