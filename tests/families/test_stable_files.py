"""Files of Stable Diffusion: what kind they are, diffusers' folders, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_file import opened, recorded, relative, single_file
from stable_folder import tiny_folder

from chashka import families, generate
from chashka.checkpoints import write
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import WeightsError
from chashka.families.stable_diffusion import opening
from chashka.families.stable_diffusion.layout import parts
from chashka.nets.autoencoder import DecoderKL, EncoderKL
from chashka.nets.clip import TextTower
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig
from chashka.nets.unet import UNet
from golden_files import golden

pytestmark = pytest.mark.torch
CLIP, OPENCLIP = "cond_stage_model.transformer.", "cond_stage_model.model."


def widened(state: dict[str, Any], channels: int) -> None:
    """Another number of channels for the first convolution."""
    state["model.diffusion_model.input_blocks.0.0.weight"] = np.zeros((32, channels, 3, 3), np.float32)


def test_kinds_are_told_by_keys(checkpoints: Path) -> None:
    compvis, runway, stability = (
        opened(checkpoints, n) for n in ("compvis.safetensors", "runway.safetensors", "stability.ckpt")
    )
    assert (compvis.masked, runway.masked, stability.masked) == (False, True, False)
    assert (compvis.denoiser.prediction, stability.denoiser.prediction) == ("eps", "v")
    assert compvis.model == "stable_diffusion-compvis" and compvis.codec.factor == 8
    rows = compvis.text.encode(["a cup", ""])["tokens"]
    assert rows.shape == (2, 77, 24)
    # 1.x pads with the end mark, which says something; 2.x takes the layer before the last, and pads with 0
    assert not np.allclose(rows, stability.text.encode(["a cup", ""])["tokens"])


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_key_says_v(suffix: str, tmp_path: Path) -> None:
    state = single_file("compvis") | {"v_pred": np.zeros(0, np.float32)}
    if suffix == ".ckpt":
        torch.save({name: torch.from_numpy(value) for name, value in state.items()}, tmp_path / f"x{suffix}")
    else:
        write(tmp_path / f"x{suffix}", state, {})
    assert opened(tmp_path, f"x{suffix}").denoiser.prediction == "v"


def test_what_keys_cannot_tell_is_a_note(checkpoints: Path, tmp_path: Path) -> None:
    """Of a 2.x file alone: a configuration beside it says it, and so does a request."""
    shutil.copy(checkpoints / "stability.ckpt", tmp_path / "x.ckpt")
    asked = {"prompt": "a cup", "seed": 1, "steps": 1, "width": 64, "height": 64}
    bundle = opened(tmp_path, "x.ckpt")
    assert bundle.denoiser.prediction == "eps"
    (note,) = generate.draw(bundle, bundle.request(**asked))[0].notes
    assert (
        note.startswith("keys cannot tell whether a network of 2.x predicts the noise or v") and "prediction=v" in note
    )
    for said in ("eps", "v"):
        assert not generate.draw(bundle, bundle.request(**asked, prediction=said))[0].notes
    assert bundle.preset.look() == (note,)
    (tmp_path / "x.yaml").write_text("model:\n  params:\n    image_size: 64\n", encoding="utf-8")
    settled = opened(tmp_path, "x.ckpt")
    assert settled.denoiser.prediction == "eps" and settled.preset.look() == ()
    for other in (settled, opened(checkpoints, "stability.ckpt"), opened(checkpoints, "compvis.safetensors")):
        assert not generate.draw(other, other.request(**asked))[0].notes


def test_averages_draw_where_a_configuration_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with both: the original's ``use_ema`` chooses. A kept graph of the one is never taken for the other."""
    state, prefix = single_file("compvis"), "model.diffusion_model."
    averages = {name: value * 0.75 for name, value in state.items() if name.startswith(prefix)}
    flat = {f"model_ema.{name.removeprefix('model.').replace('.', '')}": value for name, value in averages.items()}
    for name, tensors in (("both", state | flat), ("average", state | averages), ("one", state)):
        write(tmp_path / f"{name}.safetensors", tensors, {})
    x, t = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32), np.array([10.0], np.float32)
    graphs, variants = opening._graphs, []

    def noted(engine: Any, found: Any, sources: Any, changes: Any) -> Any:
        variants.append(changes["unet"])
        return graphs(engine, found, sources, changes)

    def says(name: str) -> Any:
        bundle = opened(tmp_path, f"{name}.safetensors")
        return bundle.denoiser.network(x, t, bundle.text.encode(["a cup"]))

    monkeypatch.setattr(opening, "_graphs", noted)
    one, average = says("one"), says("average")
    assert relative(one, average) > 0.1
    np.testing.assert_array_equal(says("both"), one)
    assert len(set(variants)) == 1
    (note,) = families.find(str(tmp_path / "both.safetensors"))[1].look()
    assert note.startswith("the file holds its U-Net twice, as it was learnt and averaged (EMA)")
    assert "use_ema: true" in note
    for text, expected in (
        ("use_ema: False  # inference", one),
        ("    use_ema: True", average),
        ("use_ema: true", average),
    ):
        for name in ("both", "one"):
            (tmp_path / f"{name}.yaml").write_text(f"model:\n  {text}\n", encoding="utf-8")
        np.testing.assert_array_equal(says("both"), expected)
        assert (variants[-1] != variants[0]) == (expected is average)
    np.testing.assert_array_equal(says("one"), one)  # it has no others
    assert variants[-1] == variants[0]
    assert families.find(str(tmp_path / "both.safetensors"))[1].look() == ()


def test_a_line_about_averages_says_nothing_of_the_prediction(checkpoints: Path, tmp_path: Path) -> None:
    """Only a whole configuration means the noise where it does not say v."""
    shutil.copy(checkpoints / "stability.ckpt", tmp_path / "x.ckpt")
    (tmp_path / "x.yaml").write_text("use_ema: false\n", encoding="utf-8")
    assert opened(tmp_path, "x.ckpt").preset.look()[0].startswith("keys cannot tell")
    (tmp_path / "x.yaml").write_text("use_ema: false\nparameterization: v\n", encoding="utf-8")
    settled = opened(tmp_path, "x.ckpt")
    assert settled.denoiser.prediction == "v" and settled.preset.look() == ()


def test_a_text_encoder_without_its_last_layer(tmp_path: Path) -> None:
    """diffusers' script writes 23 of 24 layers and no projection: the last of them is the layer before the last."""
    text = CLIPTextConfig(49408, 77, 24, 1, 24, 24)
    with torch.device("meta"):
        tower = TextTower(text)
    state = {name: value for name, value in single_file("stability").items() if not name.startswith(OPENCLIP)}
    full = {f"{OPENCLIP}{name}": value for name, value in recorded(tower, 50).items()}
    gone = ("resblocks.23.", "text_projection", "logit_scale")
    converted = {name: value for name, value in full.items() if not any(part in name for part in gone)}
    said = []
    for name, own in (("full", full), ("converted", converted)):
        write(tmp_path / f"{name}.safetensors", state | own, {})
        bundle = opened(tmp_path, f"{name}.safetensors")
        said.append(bundle.text.encode(["a cup of tea"])["tokens"])
    np.testing.assert_array_equal(*said)


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
    with pytest.raises(
        WeightsError, match=r"without scheduler/scheduler_config\.json; found are unet, vae, text_encoder, tokenizer\."
    ):
        families.load(str(folder), engine="torch")


@pytest.mark.parametrize("side", [(), (1, 1)])
def test_former_names_of_an_autoencoders_attention(side: tuple[int, ...], tmp_path: Path) -> None:
    """Older repositories have query, key, value and proj_attn, linear or as convolutions."""
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tiny_folder(tmp_path / "new")
    tiny_folder(tmp_path / "old")
    file = tmp_path / "old" / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for name, value in read_checkpoint(file).items():
        own = next((new for new in former if f".attentions.0.{new}." in name), None)
        wide = own is not None and name.endswith(".weight")
        renamed[name.replace(own, former[own]) if own else name] = value.reshape(*value.shape, *side) if wide else value
    assert sum(".query." in name for name in renamed) == 4
    write(file.with_suffix(".new"), renamed, {})
    file.with_suffix(".new").replace(file)
    pixels = np.random.default_rng(1).uniform(-1, 1, (1, 4, 64, 64)).astype(np.float32)
    new, old = (families.load(str(tmp_path / n), engine="torch").codec.encode(pixels) for n in ("new", "old"))
    np.testing.assert_array_equal(new, old)


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
        (lambda s: s.update({f"{CLIP}text_model.extra": np.zeros(3, np.float32)}), r"text_model\.extra: the text encoder of 1\.x"),
        (lambda s: s.update({f"{CLIP}vision_model.x": np.zeros(3, np.float32)}), r"vision_model\.x: the text encoder of 1\.x"),
        (lambda s: s.pop(next(k for k in s if k.endswith("1.self_attn.q_proj.weight"))), r"q_proj\.weight is missing"),
        (lambda s: s.update({f"{OPENCLIP}ln_final.bias": np.zeros(3, np.float32)}), "it has two text encoders, .* Two files were"),
        (lambda s: widened(s, 5), "takes 5 channels: it is one that takes a depth map; supported are 4 channels .* and 9"),
        (lambda s: widened(s, 7), "takes 7 channels: it is an upscaler"),
        (lambda s: widened(s, 8), "takes 8 channels: it is InstructPix2Pix"),
        (lambda s: widened(s, 6), "takes 6 channels: it is another kind of model"),
        (lambda s: s.update({"ztsnr": np.zeros(0, np.float32)}), r"its key ztsnr .*zero terminal SNR"),
    ],
)  # fmt: skip
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


def first_text() -> dict[str, np.ndarray]:
    """Every weight of the text encoder in a file of 1.x (openai/clip-vit-large-patch14, 197 names), none of them in memory."""
    outer, width, wider = "cond_stage_model.transformer.text_model", 768, 3072
    shapes = {
        f"{outer}.embeddings.position_ids": (1, 77),
        f"{outer}.embeddings.token_embedding.weight": (49408, width),
        f"{outer}.embeddings.position_embedding.weight": (77, width),
        f"{outer}.final_layer_norm.weight": (width,),
        f"{outer}.final_layer_norm.bias": (width,),
    }
    for i in range(12):
        layer = f"{outer}.encoder.layers.{i}"
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"):
            shapes |= {f"{layer}.{name}.weight": (width, width), f"{layer}.{name}.bias": (width,)}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)}
        shapes |= {f"{layer}.mlp.fc1.weight": (wider, width), f"{layer}.mlp.fc1.bias": (wider,)}
        shapes |= {f"{layer}.mlp.fc2.weight": (width, wider), f"{layer}.mlp.fc2.bias": (width,)}
    assert len(shapes) == 197
    return {name: np.broadcast_to(np.int8(0), shape) for name, shape in shapes.items()}


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
            state |= first_text()
            found = parts(state, tmp_path)
            assert found.text == CLIPTextConfig(width=768, heads=12, embed=768)
            read = {key: tuple(value.shape) for key, value in found.weights["text"].items()}
            assert read == {key: tuple(value.shape) for key, value in tower.items()}
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
