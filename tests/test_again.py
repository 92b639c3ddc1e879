"""What a picture's file says of LoRAs, embeddings and autoencoders, and the files that are found again by it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chashka import again, images
from chashka.engines import sums
from chashka.errors import FileError, InputError
from chashka.families import Weight
from chashka.families.stable_diffusion.options import Options
from chashka.request import Added, Picture
from parts_files import write_parts

INK, SOFT = b"ink", b"soft"
DIGEST = {content: hashlib.sha256(content).hexdigest() for content in (INK, SOFT)}
ADDED = (
    Added("checkpoint", "m", DIGEST[INK]),
    Added("lora", "ink", DIGEST[INK], 0.8, 0.8),
    Added("lora", "line", DIGEST[SOFT], -0.25, 0.5),
    Added("embedding", "red-cat", DIGEST[SOFT]),
    Added("vae", "kl-f8.vae", DIGEST[INK]),
)
TOLD = {
    "checkpoint": {"name": "m", "sha256": DIGEST[INK]},
    "loras": [
        {"name": "ink", "sha256": DIGEST[INK], "weight": 0.8},
        {"name": "line", "sha256": DIGEST[SOFT], "weight": -0.25, "text_weight": 0.5},
    ],
    "embeddings": [{"name": "red-cat", "sha256": DIGEST[SOFT]}],
    "vae": {"name": "kl-f8.vae", "sha256": DIGEST[INK]},
}


def picture(prompt: str = "a boat", added: tuple[Added, ...] = ADDED) -> Picture:
    request = Options(prompt=prompt, steps=20, sampler="ddim", guidance_scale=4, seed=7)
    return Picture(np.zeros((8, 8, 4), np.uint8), 7, 0, request, (), "m", "stable_diffusion", added=added)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """What the picture was drawn with."""
    folder = tmp_path / "models"
    for place, content in {
        "loras/ink.safetensors": INK,
        "loras/old/line.pt": SOFT,
        "embeddings/red-cat.bin": SOFT,
        "vaes/kl-f8.vae.pt": INK,
    }.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_file_says_what_it_was_drawn_with(tmp_path: Path, suffix: str) -> None:
    stored = images.read_metadata(images.save(picture(), tmp_path / f"a{suffix}"))
    assert stored is not None and {name: stored[name] for name in TOLD} == TOLD
    bare = images.describe(picture(added=()))
    assert not TOLD.keys() & bare.keys() and images.describe(picture()) == bare | TOLD
    unknown = images.describe(picture(added=(Added("vae", "large"),)))
    assert unknown["vae"] == {"name": "large"}


def test_the_a1111_text_says_it_in_a1111s_way() -> None:
    prompt, line = images.a1111_parameters(picture()).split("\n")
    assert prompt == "a boat <lora:ink:0.8> <lora:line:0.5:-0.25>"
    ink, soft = DIGEST[INK][:10], DIGEST[SOFT][:12]
    assert f'Model hash: {ink}, Model: m, VAE hash: {ink}, VAE: kl-f8.vae, TI hashes: "red-cat: {soft}"' in line
    for said in (
        "a <lora:ink:0.8> boat <lyco: old/line :0.5:-0.25>",
        "<lora:ink:te=0.8:unet=0.8><lora:line:0.5:-0.25>",
    ):
        assert images.a1111_parameters(picture(said)).split("\n")[0] == said
    assert images.a1111_parameters(picture("")).startswith("<lora:ink:0.8> <lora:line:0.5:-0.25>\n")
    odd = picture(added=(Added("lora", "a<b"), Added("vae", "x")))
    assert images.a1111_parameters(odd).startswith("a boat\n") and ", VAE: x, " in images.a1111_parameters(odd)


def test_what_a_file_says_is_found_again(models: Path, tmp_path: Path) -> None:
    stored = images.describe(picture())
    found = again.kept(stored, models, cache_dir=tmp_path / "cache")
    assert found.loras == (
        (models / "loras" / "ink.safetensors", Weight(0.8, 0.8)),
        (models / "loras" / "old" / "line.pt", Weight(-0.25, 0.5)),
    )
    assert found.embeddings == (models / "embeddings" / "red-cat.bin",)
    assert found.vae == models / "vaes" / "kl-f8.vae.pt" and not found.notes
    assert again.kept(images.describe(picture(added=())), None) == again.Kept()
    assert not again.kept(json.loads(json.dumps(stored)), models).notes


def test_of_files_that_are_called_alike_the_right_one_is_taken(models: Path, tmp_path: Path) -> None:
    (models / "loras" / "a").mkdir()
    (models / "loras" / "ink.safetensors").rename(models / "loras" / "a" / "ink.ckpt")
    (models / "loras" / "ink.safetensors").write_bytes(b"another")
    assert again.kept(TOLD, models).loras[0][0] == models / "loras" / "a" / "ink.ckpt"
    (models / "loras" / "a" / "ink.ckpt").rename(tmp_path / "ink.pt")
    assert again.kept(TOLD, models, [tmp_path / "ink.pt"]).loras[0][0] == tmp_path / "ink.pt"


def test_an_autoencoder_may_be_a_folder_of_any_name(models: Path, tmp_path: Path) -> None:
    (models / "vaes" / "kl-f8.vae.pt").unlink()
    for place in (tmp_path / "soft", tmp_path / "whole" / "vae"):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
        (place / "diffusion_pytorch_model.safetensors").write_bytes(INK)
    for place in (tmp_path / "soft", tmp_path / "whole"):
        assert again.kept(TOLD, models, [place]).vae == place
    parts = tmp_path / "parts"
    index = write_parts(parts, "diffusion_pytorch_model", {"a": np.ones(3), "b": np.zeros(2)})
    told = TOLD | {"vae": {"name": "kl-f8.vae", "sha256": sums.sum_of(index, None)}}
    assert again.kept(told, models, [parts]).vae == parts


def test_what_is_not_there_is_an_error(models: Path, tmp_path: Path) -> None:
    (models / "loras" / "ink.safetensors").rename(tmp_path / "renamed.safetensors")
    with pytest.raises(InputError) as error:
        again.kept(TOLD, models)
    assert str(error.value) == (
        f"lora: the picture was drawn with 'ink' (sha256 {DIGEST[INK][:12]}…), which is not found in {models / 'loras'}; give "
        "its file with --with, or put it there"
    )
    with pytest.raises(InputError, match=r"which is not found \(--models is not given\)"):
        again.kept(TOLD, None, anyway=True)
    with pytest.raises(InputError, match=r"renamed\.safetensors has its content under another name; call it so again$"):
        again.kept(TOLD, models, [tmp_path / "renamed.safetensors"])


def test_another_file_under_the_same_name_is_an_error_or_a_note(models: Path) -> None:
    file = models / "embeddings" / "red-cat.bin"
    file.write_bytes(b"another cat")
    with pytest.raises(InputError) as error:
        again.kept(TOLD, models)
    said = f"embedding: the picture was drawn with 'red-cat' of another content (sha256 {DIGEST[SOFT][:12]}…) than {file} has now"
    assert str(error.value) == f"{said}; give the right file with --with, or take this one with --anyway"
    found = again.kept(TOLD, models, anyway=True)
    assert found.embeddings == (file,) and found.notes == (f"{said}; this one was taken",)


def test_a_sum_that_is_not_told_is_a_note(models: Path) -> None:
    found = again.kept({"vae": {"name": "kl-f8.vae"}}, models)
    assert found.vae == models / "vaes" / "kl-f8.vae.pt" and len(found.notes) == 1
    assert "tells no sum" in found.notes[0]
    with pytest.raises(InputError, match="'gone', which is not found in"):
        again.kept({"vae": {"name": "gone"}}, models)


@pytest.mark.parametrize(
    "stored",
    [
        {"loras": 3},
        {"loras": ["ink"]},
        {"loras": [{"name": "ink"}] * 101},
        {"loras": [{"name": "", "sha256": DIGEST[INK]}]},
        {"loras": [{"name": "x" * 300}]},
        {"loras": [{"name": "ink", "weight": "much"}]},
        {"loras": [{"name": "ink", "weight": float("nan")}]},
        {"loras": [{"name": "ink", "weight": True}]},
        {"loras": [{"name": "ink", "text_weight": []}]},
        {"embeddings": [{"name": "red-cat", "sha256": "no sum"}]},
        {"embeddings": {"name": "red-cat"}},
        {"vae": "soft"},
        {"vae": {"name": ["kl-f8.vae"]}},
    ],
)
def test_metadata_that_nobody_wrote_are_refused(models: Path, stored: dict[str, Any]) -> None:
    with pytest.raises(FileError, match=r"^the picture's metadata are damaged: "):
        again.kept(stored, models)


@pytest.mark.parametrize("name", ["../loras/ink", "/etc/passwd", "old/line", ".."])
def test_names_are_never_paths(models: Path, name: str) -> None:
    with pytest.raises(InputError, match="which is not found in"):
        again.kept({"embeddings": [{"name": name}]}, models)


def test_sums_are_told_where_they_are_cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cache = tmp_path / "ink.safetensors", tmp_path / "cache"
    file.write_bytes(INK)
    assert (
        sums.sum_of(file, None) == DIGEST[INK] and sums.sum_of(file, None, most=2) == sums.sum_of(file, cache, 2) == ""
    )
    assert sums.content_of(file, cache) == sums.sum_of(file, cache, most=2) == DIGEST[INK], "it is remembered by now"
    monkeypatch.setattr(sums, "sha256", None)
    assert sums.sum_of(file, cache) == DIGEST[INK]


def test_weights_in_several_files_have_the_sum_that_engines_know_them_by(tmp_path: Path) -> None:
    index, cache = (
        write_parts(tmp_path, "vae", {"a": np.ones(3), "b": np.zeros(2), "c": np.ones(1)}),
        tmp_path / "cache",
    )
    whole = sums.sum_of(index, None)
    assert len(whole) == 64 and sums.sum_of(index, cache, most=2) == ""
    assert sums.content_of(index, cache) == whole == sums.sum_of(index, cache, most=2)


@dataclass
class Opened:
    """What is asked of a bundle."""

    weights: Path | None
    model: str = "m"


def test_a_checkpoint_of_another_content_is_an_error_or_a_note(tmp_path: Path) -> None:
    stored = images.describe(picture())
    (tmp_path / "right").write_bytes(INK)
    (tmp_path / "other").write_bytes(SOFT)
    assert again.same_checkpoint(stored, Opened(tmp_path / "right"), cache_dir=tmp_path / "cache") == ""
    with pytest.raises(InputError, match=f"{DIGEST[INK][:12]}.*m has now .{DIGEST[SOFT][:12]}.*--model.*--anyway"):
        again.same_checkpoint(stored, Opened(tmp_path / "other"))
    assert "these were taken" in again.same_checkpoint(stored, Opened(tmp_path / "other"), anyway=True)
    assert again.same_checkpoint(stored, Opened(None)) == ""
    assert again.same_checkpoint({}, Opened(tmp_path / "right")) == ""
    assert "not known" in again.same_checkpoint({"checkpoint": {"name": "m"}}, Opened(tmp_path / "right"))
    for nonsense in ("m", 3, {"name": "m", "sha256": "../x"}, {}):
        with pytest.raises(FileError, match="damaged: checkpoint"):
            again.same_checkpoint({"checkpoint": nonsense}, Opened(tmp_path / "right"))


def test_pictures_that_are_the_same_but_for_a_weight_are_other_files() -> None:
    one, other = (replace(ADDED[1], unet=value) for value in (0.8, 0.7))
    assert images.describe(picture(added=(one,))) != images.describe(picture(added=(other,)))
