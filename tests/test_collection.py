"""The user's own models: kept once, linked, found by name, taken away again; and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from chashka import families
from chashka.checkpoints import write
from chashka.collection import CONTENTS, Collection, kind_of
from chashka.errors import FileError, InputError, WeightsError

DIFFUSERS = "diffusion_pytorch_model.safetensors"
UNET = {"model.diffusion_model.input_blocks.0.0.weight": np.zeros((4, 4), np.float32)}
LORA = {
    "lora_unet_a.lora_down.weight": np.zeros((2, 4), np.float32),
    "lora_unet_a.lora_up.weight": np.zeros((4, 2), np.float32),
}


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection(tmp_path / "models")


def checkpoint(path: Path, fill: float = 0.0) -> Path:
    """A file that looks like a checkpoint of Stable Diffusion as far as a look goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, {name: value + np.float32(fill) for name, value in UNET.items()}, {})
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
    for name in ("", "../a", ".a", "loras", "a/b"):
        with (
            pytest.raises(InputError, match=r"is not possible; allowed: letters") if name else pytest.raises(InputError)
        ):
            collection.add(other, name or " ")


def test_what_is_no_model_is_told(collection: Collection, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"weights": np.zeros((2, 3, 4), np.float32), "b": np.zeros(1, np.float32)}, {})
    (tmp_path / "b.ckpt").write_bytes(b"nothing of that kind")
    (tmp_path / "empty").mkdir()
    for name in ("a.safetensors", "empty"):
        with pytest.raises(WeightsError):
            collection.add(tmp_path / name)
    with pytest.raises(FileError, match="there is no such file or folder"):
        kind_of(tmp_path / "missing")
    assert not collection.folder.exists()


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
