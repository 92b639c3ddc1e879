"""The user's own models: kept once, linked, found by name, taken away again; and what is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from chashka import adapters, families
from chashka.checkpoints import write
from chashka.collection import CONTENTS, Collection, kind_of
from chashka.errors import FileError, InputError, WeightsError
from chashka.evaluation.card import weight_facts

DIFFUSERS = "diffusion_pytorch_model.safetensors"
UNET = {"model.diffusion_model.input_blocks.0.0.weight": np.zeros((4, 4), np.float32)}
LORA = {
    "lora_unet_a.lora_down.weight": np.zeros((2, 4), np.float32),
    "lora_unet_a.lora_up.weight": np.zeros((4, 2), np.float32),
}


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path / "models")


def checkpoint(path: Path, fill: float = 0.0, second: bool = False) -> Path:
    """A file that looks like a checkpoint of Stable Diffusion as far as a look goes. second: of 2.x."""
    path.parent.mkdir(parents=True, exist_ok=True)
    linear = {"model.diffusion_model.input_blocks.1.1.proj_in.weight": np.zeros((4, 4), np.float32)} if second else {}
    write(path, {name: value + np.float32(fill) for name, value in (UNET | linear).items()}, {})
    return path


def diffusers_folder(path: Path, fill: float = 0.0) -> Path:
    (path / "unet").mkdir(parents=True)
    (path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    (path / ".git").mkdir()
    (path / ".git" / "config").write_text("hidden")
    for i, (part, file) in enumerate((("unet", DIFFUSERS), ("vae", DIFFUSERS), ("text_encoder", "model.safetensors"))):
        checkpoint(path / part / file, fill + i)
        (path / part / "config.json").write_text(f'{{"of": "{part}"}}')
    for file in ("scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"):
        (path / file).parent.mkdir(exist_ok=True)
        (path / file).write_text(f'{{"of": "{file}"}}')
    return path


def test_a_file_is_linked_and_has_a_name(collection: Collection, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "v1-5 pruned.safetensors")
    kept = collection.add(file)
    assert (kept.name, kept.kind, kept.source) == ("v1-5-pruned", "model", str(file))
    assert kept.place.samefile(file)
    declaration, preset = families.find("v1-5-pruned", collection.folder)
    assert declaration.name == "stable_diffusion" and preset.name == "v1-5-pruned" and preset.place == kept.folder
    assert families.kept_names(collection.folder) == ["v1-5-pruned"]
    assert collection.add(file) == kept  # again is no mistake
    assert [one.name for one in collection.all()] == ["v1-5-pruned"]


def test_equal_contents_are_kept_once(collection: Collection, tmp_path: Path) -> None:
    first = collection.add(diffusers_folder(tmp_path / "one"), copy=True)
    second = collection.add(diffusers_folder(tmp_path / "two"), "other", copy=True)
    assert set(first.files) == {
        "model_index.json",
        f"unet/{DIFFUSERS}",
        "unet/config.json",
        f"vae/{DIFFUSERS}",
        "vae/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
    }
    assert not (tmp_path / "one" / "model_index.json").samefile(first.folder / "model_index.json")
    assert all((first.folder / name).samefile(second.folder / name) for name in first.files)
    assert len(list((collection.folder / CONTENTS).iterdir())) == len(first.files)
    assert families.find("other", collection.folder)[1].name == "other"


def test_what_is_taken_away_is_free_if_nothing_else_has_it(collection: Collection, tmp_path: Path) -> None:
    collection.add(diffusers_folder(tmp_path / "one"), copy=True)
    collection.add(diffusers_folder(tmp_path / "two"), copy=True)
    size = collection.get("one").size
    assert collection.remove("one") == 0
    assert families.find("two", collection.folder)[1].name == "two"
    assert collection.remove("two") == size
    assert collection.all() == [] and not list((collection.folder / CONTENTS).iterdir())
    collection.add(checkpoint(tmp_path / "a.safetensors"))
    assert collection.remove("a") == 0  # the user's own file is still there
    assert (tmp_path / "a.safetensors").is_file()
    with pytest.raises(InputError, match=r"model 'a' was not added to .*; allowed: nothing was added yet"):
        collection.remove("a")


def test_adapters_go_where_they_are_looked_for(collection: Collection, tmp_path: Path) -> None:
    write(tmp_path / "ink.safetensors", LORA, {})
    write(tmp_path / "cat.safetensors", {"emb_params": np.zeros((2, 8), np.float32)}, {})
    assert collection.add(tmp_path / "ink.safetensors").place == collection.folder / "loras" / "ink.safetensors"
    kept = collection.add(tmp_path / "cat.safetensors", "red-cat")
    assert (kept.kind, kept.place) == ("embedding", collection.folder / "embeddings" / "red-cat.safetensors")
    assert families.kept_names(collection.folder) == []
    collection.remove("ink")
    assert [one.name for one in collection.all()] == ["red-cat"]
    assert not list((collection.folder / "loras").iterdir())


VAE = {
    "encoder.down.0.block.0.norm1.weight": np.zeros(4, np.float32),
    "decoder.conv_in.weight": np.zeros((8, 4, 3, 3), np.float32),
}


def vae_folder(path: Path, **said: object) -> Path:
    """A folder of diffusers, as far as a look goes."""
    path.mkdir(parents=True)
    names = {"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 4, 3, 3)}
    write(path / DIFFUSERS, {name: np.zeros(shape, np.float32) for name, shape in names.items()}, {})
    config = {"_class_name": "AutoencoderKL", "block_out_channels": [8]} | said
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_autoencoders_go_where_they_are_looked_for(collection: Collection, tmp_path: Path) -> None:
    write(tmp_path / "kl-f8.vae.safetensors", VAE, {})
    file = collection.add(tmp_path / "kl-f8.vae.safetensors")
    assert (file.kind, file.name) == ("vae", "kl-f8.vae")
    assert file.place == collection.folder / "vaes" / "kl-f8.vae.safetensors"
    folder = collection.add(vae_folder(tmp_path / "sd-vae.v1"), copy=True)
    assert (folder.kind, folder.place) == ("vae", collection.folder / "vaes" / "sd-vae.v1")
    assert set(folder.files) == {"sd-vae.v1/config.json", f"sd-vae.v1/{DIFFUSERS}"}
    assert families.kept_names(collection.folder) == []
    assert set(adapters.vaes(collection.folder).files) == {"kl-f8.vae", "sd-vae.v1"}
    for kept in (file, folder):
        assert adapters.vae(kept.name, collection.folder) == kept.place
        assert adapters.vae(kept.name, collection.folder, paths=False) == kept.place
        assert adapters.vae(str(kept.place), None) == kept.place
        with pytest.raises(InputError, match=r"vae: .* does not exist; allowed: kl-f8\.vae, sd-vae\.v1$"):
            adapters.vae(str(kept.place), collection.folder, paths=False)
    with pytest.raises(
        InputError, match=r"vae: 'x' is neither a file nor a name .*; allowed: .*, or a file or \./FOLDER"
    ):
        adapters.vae("x", collection.folder)
    assert adapters.vae(None, collection.folder) is None
    size = folder.size
    assert collection.remove("sd-vae.v1") == size and collection.remove("kl-f8.vae") == 0
    assert not list((collection.folder / "vaes").iterdir())


def test_an_autoencoder_that_no_checkpoint_has_is_refused(collection: Collection, tmp_path: Path) -> None:
    write(tmp_path / "flux.safetensors", VAE | {"decoder.conv_in.weight": np.zeros((8, 16, 3, 3), np.float32)}, {})
    with pytest.raises(WeightsError, match="its latents have 16 channels"):
        collection.add(tmp_path / "flux.safetensors")
    with pytest.raises(WeightsError, match="_class_name is AutoencoderTiny; supported"):
        collection.add(vae_folder(tmp_path / "tiny", _class_name="AutoencoderTiny"))
    with pytest.raises(WeightsError, match="is no folder of a model"):
        collection.add(vae_folder(tmp_path / "unet", _class_name="UNet2DConditionModel"))
    assert not collection.folder.exists()


def test_links_that_cannot_be_are_copies(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    kept = collection.add(checkpoint(tmp_path / "a.safetensors"))
    assert kept.place.read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    assert not list(collection.folder.rglob("*.part"))


def test_a_name_is_taken_once(collection: Collection, tmp_path: Path) -> None:
    collection.add(checkpoint(tmp_path / "a.safetensors"))
    other = checkpoint(tmp_path / "b" / "a.safetensors", 1.0)
    with pytest.raises(
        InputError, match="'a' is taken by another model; give another name, or first: chashka models remove a"
    ):
        collection.add(other)
    assert collection.add(other, "a2").name == "a2"
    for name in ("", "../a", ".a", "loras", "vaes", "a/b"):
        with (
            pytest.raises(InputError, match=r"is not possible; allowed: letters") if name else pytest.raises(InputError)
        ):
            collection.add(other, name or " ")


class Calls:
    """Pickled, it is a call of a function."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.file),)


def test_what_is_no_model_is_told(collection: Collection, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"weights": np.zeros((2, 3, 4), np.float32), "b": np.zeros(1, np.float32)}, {})
    (tmp_path / "b.ckpt").write_bytes(b"nothing of that kind")
    (tmp_path / "c.ckpt").write_bytes(b"")
    (tmp_path / "f.ckpt").write_bytes(bytes(range(200)))
    (tmp_path / "d.pt").write_bytes(pickle.dumps({"state_dict": Calls(tmp_path / "made")}, protocol=2))
    (tmp_path / "e.bin").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    (tmp_path / "empty").mkdir()
    messages = {
        "a.safetensors": "no Stable Diffusion checkpoint",
        "b.ckpt": "b.ckpt begins with the text 'nothing of that kind'",
        "f.ckpt": "neither a zip, nor safetensors, nor a file of torch",
        "c.ckpt": "c.ckpt is empty",
        "d.pt": "d.pt: refused|d.pt: not a usable",
        "e.bin": "e.bin: not a usable checkpoint",
        "empty": "is no folder of a model",
    }
    for name, message in messages.items():
        with pytest.raises(WeightsError, match=message):
            collection.add(tmp_path / name)
    assert not (tmp_path / "made").exists(), "nothing in a file runs"
    with pytest.raises(FileError, match="there is no such file or folder"):
        kind_of(tmp_path / "missing")
    assert not collection.folder.exists()


HALVES = {"m.lora_A.weight": np.zeros((2, 4), np.float32), "m.lora_B.weight": np.zeros((4, 2), np.float32)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (LORA | {"lora_unet_a.dora_scale": np.ones(4)}, r"lora_unet_a\.dora_scale belong to no LoRA .*not DoRA, LoHa, LoKr"),
        ({"lora_unet_a.alpha": np.ones(1), "lora_unet_a.hada_w1_a": np.ones((4, 2)), "lora_unet_a.hada_w1_b": np.ones((2, 4))},
         r"lora_unet_a\.hada_w1_a and 1 more belong to no LoRA .*not DoRA, LoHa, LoKr"),
        ({"lycoris_a.lokr_w1": np.ones((2, 2)), "lycoris_a.lokr_w2": np.ones((2, 2))}, "belong to no LoRA .*not DoRA, LoHa, LoKr"),
        ({"unet.a.oft_R.weight": np.ones((2, 2))}, r"oft_R\.weight belong to no LoRA"),
        ({"clip_l": np.zeros((2, 768)), "clip_g": np.zeros((2, 1280))}, "two text encoders .*, as Stable Diffusion XL has them"),
        ({name: value for name, value in LORA.items() if "up" in name}, "lora_up.weight has no second half"),
        ({f"base_model.model.{name}": value for name, value in HALVES.items()},
         r"base_model\.model\.m\.lora_A\.weight is a name of PEFT, which keeps alpha in an adapter_config\.json .*kohya"),
    ],
)  # fmt: skip
def test_an_adapter_that_cannot_be_used_says_why(
    collection: Collection, tensors: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    """Not that it is a LoRA and no checkpoint: it was never taken for one."""
    write(tmp_path / "a.safetensors", {name: value.astype(np.float32) for name, value in tensors.items()}, {})
    with pytest.raises(WeightsError, match=message):
        collection.add(tmp_path / "a.safetensors")
    assert not collection.folder.exists()


@pytest.mark.torch
def test_torch_files_are_what_is_in_them(collection: Collection, tmp_path: Path) -> None:
    """By their contents, whatever their names end in; and what is added can be used under its name."""
    import torch

    vectors = torch.ones(2, 8)
    files = {
        "kl-f8.vae.pt": {"state_dict": {n: torch.from_numpy(v) for n, v in VAE.items()}, "epoch": 3},
        "a1111.pt": {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "x", "step": 5},
        "diffusers.bin": {"<red-cat>": vectors},
        "ink.pt": {name: torch.from_numpy(value) for name, value in LORA.items()},
        "whole.pt": {"state_dict": {name: torch.from_numpy(value) for name, value in UNET.items()}, "step": 3},
        "whole.ckpt": {name: torch.from_numpy(value + 1) for name, value in UNET.items()},
        "old.safetensors": {name: torch.from_numpy(value + 2) for name, value in UNET.items()},
        "ink.safetensors": {name: torch.from_numpy(value + 1) for name, value in LORA.items()},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not name.startswith("old"))
    write(tmp_path / "safe.ckpt", {name: value + 3 for name, value in UNET.items()}, {})
    files["safe.ckpt"] = {}
    kinds = {name: collection.add(tmp_path / name, name.replace(".", "-")).kind for name in files}
    assert kinds == {
        "kl-f8.vae.pt": "vae",
        "a1111.pt": "embedding",
        "diffusers.bin": "embedding",
        "ink.pt": "lora",
        "whole.pt": "model",
        "whole.ckpt": "model",
        "old.safetensors": "model",
        "ink.safetensors": "lora",
        "safe.ckpt": "model",
    }
    models = ["old-safetensors", "safe-ckpt", "whole-ckpt", "whole-pt"]
    assert families.kept_names(collection.folder) == models
    ((file,), faults) = weight_facts(families.find(models[0], collection.folder)[1])
    assert int(file["bytes"]) > 0 and not faults
    assert adapters.embeddings([], ["a a1111-pt"], collection.folder) == [collection.get("a1111-pt").place]
    assert adapters.loras([("ink-pt", 1.0)], "", collection.folder, True) == [
        (collection.get("ink-pt").place, (1.0, 1.0))
    ]


def test_a_configuration_beside_a_file_is_kept_with_it(collection: Collection, tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "v2.safetensors", second=True)
    assert "keys cannot tell" in families.at(file)[1].look()[0]
    (tmp_path / "v2.yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    kept = collection.add(file)
    assert set(kept.files) == {"v2.safetensors", "v2.yaml"} and kept.place == kept.folder / "v2.safetensors"
    assert families.find("v2", collection.folder)[1].look() == ()


def test_what_was_added_needs_no_second_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from chashka.cli.models import models
    from chashka.cli.places import cache_dir
    from chashka.engines import sums

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = checkpoint(tmp_path / "a.safetensors")
    assert CliRunner().invoke(models, ["add", str(file), "--models", str(tmp_path / "models")]).exit_code == 0
    digest = sums.sha256(file)
    monkeypatch.setattr(sums, "sha256", lambda _: pytest.fail("it was computed when it was added"))
    assert sums.content_of(tmp_path / "models" / "a" / "a.safetensors", cache_dir()) == digest


def test_the_command_tells_what_keys_cannot(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from chashka.cli.models import models

    file = checkpoint(tmp_path / "v2.safetensors", second=True)
    where = ["--models", str(tmp_path / "models")]
    for words in (["add", str(file), *where], ["show", "v2", *where]):
        said = CliRunner().invoke(models, words)
        assert said.exit_code == 0 and "note: keys cannot tell whether" in said.output, said.output
    checkpoint(tmp_path / "v1.safetensors")
    assert "note:" not in CliRunner().invoke(models, ["add", str(tmp_path / "v1.safetensors"), *where]).output


def test_a_damaged_manifest_is_named(collection: Collection, tmp_path: Path) -> None:
    kept = collection.add(checkpoint(tmp_path / "a.safetensors"))
    (kept.folder / "chashka.json").write_text("{")
    with pytest.raises(FileError, match=r"chashka\.json is damaged"):
        collection.all()


def test_a_name_that_is_nowhere_lists_what_there_is(collection: Collection, tmp_path: Path) -> None:
    collection.add(checkpoint(tmp_path / "a.safetensors"))
    with pytest.raises(InputError, match=r"model 'b' does not exist; use one of kandinsky-teacup, .*, a$"):
        families.find("b", collection.folder)
    # what simply lies in the folder has a name too
    checkpoint(collection.folder / "loose.safetensors")
    assert families.find("loose", collection.folder)[1].name == "loose"
