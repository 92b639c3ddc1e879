"""Folders of diffusers: what their configurations say, what has to be in them, their own vocabularies, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_file import relative
from stable_folder import tiny_folder, tokenizer

from chashka import families
from chashka.checkpoints import write
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import WeightsError
from chashka.families.stable_diffusion import folder as folders
from chashka.prompts import clip_words

pytestmark = pytest.mark.torch
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
FILTER = np.zeros((3, 3), np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("folders") / "tiny-sd"
    tiny_folder(place)
    return place


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(whole, tmp_path / "tiny-sd")
    return tmp_path / "tiny-sd"


def said(place: Path, name: str, **fields: Any) -> None:
    """Write into one of its configurations."""
    file = place / name
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def weights(place: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = {key: np.array(value) for key, value in read_checkpoint(place / name).items()}
    change(tensors)
    write(place / name, tensors, {})


def bare(name: str) -> str:
    return name.removeprefix("text_model.")


def opened(place: Path) -> Any:
    return families.load(str(place), engine="torch")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (["scheduler"], r"without scheduler/scheduler_config\.json; found are unet, vae, text_encoder, tokenizer\."),
        (["tokenizer"], r"without tokenizer/vocab\.json with merges\.txt; found are unet, vae, text_encoder, scheduler\."),
        (["tokenizer/merges.txt"], r"without tokenizer/vocab\.json with merges\.txt;"),
        (["vae/config.json", UNET], r"without unet/diffusion_pytorch_model\.safetensors and vae/config\.json; found are text"),
        (["unet", "vae", "text_encoder", "scheduler", "tokenizer"], r"found is model_index\.json alone"),
    ],
)  # fmt: skip
def test_a_folder_that_lacks_something_says_what_it_has(gone: list[str], message: str, place: Path) -> None:
    for name in gone:
        shutil.rmtree(place / name) if (place / name).is_dir() else (place / name).unlink()
    with pytest.raises(WeightsError, match=message):
        families.find(str(place))


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("unet/config.json", {"block_out_channels": 5}, r"block_out_channels is 5; allowed: a list of whole numbers"),
        ("vae/config.json", {"block_out_channels": 5}, r"block_out_channels is 5; allowed: a list of whole numbers"),
        ("unet/config.json", {"attention_head_dim": "8"}, r"attention_head_dim is '8'; allowed: a number of heads"),
        ("unet/config.json", {"attention_head_dim": [4, 16]}, "equally many or equally wide heads"),
        ("unet/config.json", {"attention_head_dim": 7}, "which heads 7 or head_width None do not divide"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"]}, r"for 2 levels; allowed: DownBlock2D, CrossAttnDown"),
        ("unet/config.json", {"in_channels": 9}, r"in_channels is 9, its weights have 4: they are of two models"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is timestep; supported .*: None"),
        ("unet/config.json", {"act_fn": "gelu"}, "act_fn is gelu; supported of Stable Diffusion 1.x and 2.x: silu"),
        ("unet/config.json", {"only_cross_attention": [True, False]}, r"only_cross_attention is \[True, False\]"),
        ("vae/config.json", {"scaling_factor": 10**400}, "scaling_factor is 1000.*; allowed"),
        ("unet/config.json", {"block_out_channels": [1, 10**400]}, "the configuration does not fit: "),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor is 0; allowed: a number above 0"),
        ("vae/config.json", {"shift_factor": 0.1}, "shift_factor is 0.1"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "hidden_act is relu; supported .*: quick_gelu or gelu"),
        ("text_encoder/config.json", {"num_attention_heads": 7}, "width 24 is not a multiple of heads 7"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}, r"beta_end is 0\.02; supported .*: 0\.012"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear"}, "beta_schedule is linear"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "sample; supported .*: epsilon or v_prediction"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "another kind of model"),
        ("model_index.json", {"_class_name": "StableDiffusionUpscalePipeline"}, r"a StableDiffusionUpscalePipeline of diffusers"),
        ("model_index.json", {"_class_name": "StableDiffusionInstructPix2PixPipeline"}, r"supported are Stable Diffusion 1\.x"),
    ],
)  # fmt: skip
def test_what_a_configuration_says_is_read_or_refused(file: str, fields: Any, message: str, place: Path) -> None:
    said(place, file, **fields)
    with pytest.raises(WeightsError, match=message) as problem:
        opened(place)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (UNET, lambda t: t.update({"mid_block.extra.weight": FILTER}), r"mid_block\.extra\.weight: a U-Net of 1\.x or 2\.x has no"),
        (VAE, lambda t: t.update({"encoder.extra.weight": FILTER}), r"encoder\.extra\.weight: their autoencoder has no such"),
        (TEXT, lambda t: t.update({"vision_model.x.weight": FILTER}), r"vision_model\.x\.weight: CLIP's text encoder has no such"),
        (VAE, lambda t: t.pop("encoder.mid_block.attentions.0.to_q.bias"), r"vae.*attentions\.0\.to_q\.bias is missing"),
        (VAE, lambda t: t.update({"encoder.mid_block.attentions.0.to_q.weight": np.zeros((64, 64, 3, 3), np.float32)}),
         r"has the shape \[64, 64, 3, 3\]; allowed: \[C, C\] or \[C, C, 1, 1\]"),
        (VAE, lambda t: t.update({"encoder.mid_block.attentions.0.query.weight": np.zeros((64, 64), np.float32)}),
         r"query\.bias is missing"),
        (TEXT, lambda t: t.pop(next(k for k in t if k.endswith("layers.1.self_attn.k_proj.bias"))), r"k_proj\.bias is missing"),
        (TEXT, lambda t: t.update({key: np.zeros(7, np.float32) for key in t if key.endswith("layers.1.self_attn.k_proj.weight")}),
         "a weight of CLIP's text encoder has another shape than expected"),
        (TEXT, lambda t: t.update({bare(key): value for key, value in t.items() if "final_layer_norm" in key}
                                  | {f"text_model.{bare(key)}": value for key, value in t.items() if "final_layer_norm" in key}),
         r"final_layer_norm\.\w+ is there twice, with text_model\.\* before it and without"),
        (UNET, lambda t: t.update({"conv_in.weight": np.zeros((32, 8, 3, 3), np.float32)}), "8 channels: it is InstructPix2Pix"),
    ],
)  # fmt: skip
def test_weights_without_a_place_are_named(file: str, change: Any, message: str, place: Path) -> None:
    weights(place, file, change)
    with pytest.raises(WeightsError, match=message) as problem:
        opened(place)
    assert str(place) in str(problem.value) and "\n" not in str(problem.value)


def renamed(place: Path, name: str, *others: str) -> None:
    """A component's file under one or several other names. What is in it is as it was."""
    content = (place / name).read_bytes()
    (place / name).unlink()
    for other in others:
        (place / name).with_name(other).write_bytes(content)


def test_the_only_variant_is_taken_whatever_it_is_called(place: Path) -> None:
    renamed(place, UNET, "diffusion_pytorch_model.non_ema.safetensors")
    renamed(place, VAE, "diffusion_pytorch_model.bf16.safetensors", "diffusion_pytorch_model.fp16.bin")
    renamed(place, TEXT, "pytorch_model.fp16.bin", "flax_model.msgpack")
    sources = folders.read(place).sources
    assert [file.name for file in sources.values()] == [
        "diffusion_pytorch_model.non_ema.safetensors",
        "diffusion_pytorch_model.bf16.safetensors",
        "pytorch_model.fp16.bin",
    ]


@pytest.mark.parametrize("plain", ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"])
def test_of_several_variants_the_plain_one_is_taken(plain: str, place: Path) -> None:
    variants = [f"diffusion_pytorch_model.{name}.safetensors" for name in ("fp16", "non_ema")]
    renamed(place, UNET, plain, *variants)
    assert folders.read(place).sources["unet"].name == plain
    (place / "unet" / plain).unlink()
    message = (
        r"unet: several files of weights, diffusion_pytorch_model\.fp16\.safetensors, diffusion_pytorch_model\.non_ema\."
        r"safetensors, and none of them is the plain one; leave one of them there"
    )
    for _ in range(2):
        with pytest.raises(WeightsError, match=message):
            families.find(str(place))
        # torch's file of one of them is no way out of it
        (place / "unet" / "diffusion_pytorch_model.fp16.bin").write_bytes((place / "unet" / variants[0]).read_bytes())
        message = message.replace(", and none", r", diffusion_pytorch_model\.fp16\.bin, and none")


def test_harmless_weights_stay_allowed(place: Path) -> None:
    weights(place, TEXT, lambda t: t.update({"text_model.embeddings.position_ids": np.arange(77)[None]}))
    opened(place)


@pytest.mark.parametrize("heads", [4, [4, 8]])
def test_heads_are_the_configurations(heads: Any, tmp_path: Path) -> None:
    """Of all levels, or of each, of which diffusers keeps those of 2.x."""
    place = tmp_path / "tiny-sd"
    unet, _, _ = tiny_folder(place, attention_head_dim=heads)
    bundle = opened(place)
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([10.0])
    tokens = bundle.text.encode(["a cup"])
    with torch.no_grad():
        theirs = unet(x, t, torch.from_numpy(tokens["tokens"])).sample.numpy()
    assert relative(bundle.denoiser.network(x.numpy(), t.numpy(), tokens), theirs) < 1e-5


def test_the_scale_of_latents_is_the_configurations(whole: Path, place: Path) -> None:
    said(place, "vae/config.json", scaling_factor=0.25)
    pixels = np.random.default_rng(1).uniform(-1, 1, (1, 4, 64, 64)).astype(np.float32)
    usual, other = (opened(folder).codec.encode(pixels) for folder in (whole, place))
    assert relative(other * 0.18215 / 0.25, usual) < 1e-5


def own_words(pairs: int = 300) -> clip_words.BytePairs:
    """The first of CLIP's merges, with the marks at the beginning: texts are other pieces, and pieces have other ids."""
    letters = [piece for piece in clip_words.original().ids if len(piece.removesuffix("</w>")) == 1]
    merges = clip_words.original().merges[:pairs]
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(first + last for first, last in merges)]
    ids = {piece: i for i, piece in enumerate(pieces)}
    return clip_words.BytePairs(merges, ids, 0, 1)


def heard(bundle: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> list[int]:
    """The ids that the text tower is given."""
    seen: list[Any] = []
    tower = bundle.text._tower
    monkeypatch.setattr(bundle.text, "_tower", lambda ids: (seen.append(list(ids)), tower(ids))[1])
    bundle.text.encode([text])
    found: list[int] = seen[0]
    return found


def test_clips_own_vocabulary_is_the_packages(whole: Path) -> None:
    assert folders.read(whole).tokenizer.pairs is clip_words.original()


@pytest.mark.extra
@pytest.mark.parametrize("form", ["two files", "one file"])
def test_a_vocabulary_of_its_own(form: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ids as transformers gives with the folder's files."""
    transformers = pytest.importorskip("transformers")
    words = own_words()
    tokenizer(place / "tokenizer", words)
    theirs = transformers.CLIPTokenizer.from_pretrained(str(place / "tokenizer"), local_files_only=True)
    if form == "one file":
        shutil.rmtree(place / "tokenizer")
        theirs.save_pretrained(place / "tokenizer")
        assert (place / "tokenizer" / "tokenizer.json").is_file() and not (place / "tokenizer" / "vocab.json").is_file()
    bundle = opened(place)
    for text in ("a photograph of a cup, with tea", "the other thing"):
        ids = heard(bundle, monkeypatch, text)
        assert [0, *ids, 1] == theirs(text)["input_ids"] and ids != clip_words.encode(text)
    read = folders.read(place).tokenizer
    assert (read.pairs.start, read.pairs.end) == (0, 1)
    chunk = bundle.text._reader.chunks("the " * 60 + ", " + "the " * 30)[0]
    assert chunk.ids[-1] == words.ids[",</w>"], "the cut is behind the vocabulary's own comma"


def test_added_words_and_the_padding_are_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(key for key in read_checkpoint(place / TEXT) if key.endswith("token_embedding.weight"))
    weights(place, TEXT, lambda t: t.update({name: np.concatenate([t[name], np.ones((1, 24), np.float32)])}))
    (place / "tokenizer" / "added_tokens.json").write_text('{"<red-cat>": 49408}', encoding="utf-8")
    (place / "tokenizer" / "special_tokens_map.json").write_text('{"pad_token": {"content": "!"}}', encoding="utf-8")
    bundle = opened(place)
    assert heard(bundle, monkeypatch, "a <Red-Cat>") == [*clip_words.encode("a"), 49408]
    assert folders.read(place).tokenizer.pad == 0
    assert not np.allclose(*bundle.text.pooled(["a <red-cat>", "a <red-cat> on a table"]))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("vocab.json", "{", r"vocab\.json: cannot be read"),
        ("vocab.json", "[]", r"vocab\.json: is not a table"),
        ("vocab.json", '{"a": 1}', r"lacks <\|startoftext\|> and <\|endoftext\|>"),
        ("vocab.json", '{"<|startoftext|>": 0, "<|endoftext|>": 99999}',
         "has the id '99999', the text encoder's table has the rows 0 to 49407"),
        ("vocab.json", '{"<|startoftext|>": 0, "<|endoftext|>": "1"}', "has the id '1'"),
        ("merges.txt", "#version: 0.2\na b\na b c\n", r"merges\.txt: its merge 2 is 'a b c'; allowed: two pieces"),
        ("added_tokens.json", '{"\\ud800": 5}', "the configuration does not fit: "),
        ("special_tokens_map.json", '{"pad_token": "<pad>"}', r"its pad_token '<pad>' is not in the vocabulary"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_does_not_fit_is_told(file: str, text: str, message: str, place: Path) -> None:
    (place / "tokenizer" / file).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        opened(place)
