"""Files of the published Kandinsky 2.0: how they are found, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_folder import SIZES, write_published
from published_model import opened, tiny

from chashka import families, generate
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import WeightsError
from chashka.families import Bundle, EngineChoice
from chashka.families.kandinsky import INPAINTING_20, PUBLISHED
from chashka.families.kandinsky.published import open_text
from parts_files import write_parts, write_torch_parts

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    """A folder of links, in which a test may spoil something."""
    place = tmp_path / "kandinsky-2.0"
    for file in published.rglob("*"):
        if file.is_file():
            target = place / file.relative_to(published)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
    return place


def spoil(copy: Path, name: str, content: str | bytes | None) -> None:
    (copy / name).unlink()
    if isinstance(content, str):
        (copy / name).write_text(content, encoding="utf-8")
    elif content is not None:
        (copy / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text_encoder2/config.json", None, r"kandinsky-2\.0.*text_encoder2/config\.json; put it there"),
        ("text_encoder1/pytorch_model.bin", None, r"text_encoder1/pytorch_model\.bin; put it there"),
        ("vae.ckpt", None, r"vae\.ckpt; put it there"),
    ],
)
def test_what_is_missing_is_named(copy: Path, name: str, content: None, message: str) -> None:
    spoil(copy, name, content)
    with pytest.raises(WeightsError, match=message):
        families.load("kandinsky-2.0", models=copy.parent)
    with pytest.raises(WeightsError, match=r"kandinsky-2\.0"):
        families.load(f"{copy}/")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vae.ckpt", b"PK\x03\x04 nothing", r"vae\.ckpt.*zip"),
        ("Kandinsky-2-0.pt", b"", r"Kandinsky-2-0\.pt"),
        ("text_encoder1/config.json", '{"hidden_size": 48}', r"pytorch_model\.bin does not fit"),
        ("text_encoder1/config.json", "[]", "is not a table"),
        ("text_encoder2/config.json", '{"d_model": "many"}', r"d_model is 'many'; expected a int"),
        ("text_encoder2/spiece.model", b"nothing", "its tokenizer cannot be read"),
    ],
)
def test_damaged_files_are_named(copy: Path, name: str, content: Any, message: str) -> None:
    spoil(copy, name, content)
    with pytest.raises(WeightsError, match=message):
        opened(PUBLISHED, copy).text.encode(["кот"])


def test_files_of_other_models_are_told(copy: Path, published: Path, recorded_words: None) -> None:
    (copy / "Kandinsky-2-0.pt").unlink()
    (copy / "Kandinsky-2-0.pt").symlink_to(published / "Kandinsky-2-0-inpainting.pt")
    with pytest.raises(WeightsError, match=r"is the network for inpainting \(9 channels\); for text to picture"):
        opened(PUBLISHED, copy)
    preset = tiny(PUBLISHED, published)
    sizes = replace(SIZES, head=replace(SIZES.head, tokens1=48))
    with pytest.raises(WeightsError, match=r"to_model_dim"):
        open_text(preset, EngineChoice("torch"), sizes)


def test_an_encoder_of_another_model_is_told(copy: Path, recorded_words: None) -> None:
    """Consistent in itself, but of another width than the U-Net's file wants: M-CLIP of another picture tower, say."""
    import torch

    weights = torch.load(copy / "text_encoder1" / "pytorch_model.bin", weights_only=True)
    weights["LinearTransformation.weight"] = torch.zeros(32, 40)
    weights["LinearTransformation.bias"] = torch.zeros(32)
    (copy / "text_encoder1" / "pytorch_model.bin").unlink()
    torch.save(weights, copy / "text_encoder1" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"text_encoder1: its outputs have 32 numbers.*wants 24"):
        opened(PUBLISHED, copy).text.encode(["кот"])


def test_without_a_folder_the_message_says_what_to_do() -> None:
    with pytest.raises(
        WeightsError, match=r"not in the package: put Kandinsky-2-0\.pt.*--models \(or CHASHKA_MODELS\)"
    ):
        families.load("kandinsky-2.0")


def test_safetensors_under_the_same_names(tmp_path: Path, recorded_words: None, published_bundle: Bundle) -> None:
    folder = write_published(tmp_path / "st", safetensors=True)
    fields = {"prompt": "кот", "seed": 2, "steps": 2, "width": 64, "height": 64}
    other = opened(PUBLISHED, folder)
    first, second = (generate.draw(b, b.request(**fields))[0].pixels for b in (published_bundle, other))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("of_torch", [True, False])
def test_text_encoders_may_lie_in_several_files(
    of_torch: bool, copy: Path, published: Path, recorded_words: None, published_bundle: Bundle
) -> None:
    for name in ("text_encoder1", "text_encoder2"):
        tensors = dict(read_checkpoint(published / name / "pytorch_model.bin"))
        (copy / name / "pytorch_model.bin").unlink()
        if of_torch:
            first = dict(list(tensors.items())[:5])
            rest = {key: value for key, value in tensors.items() if key not in first}
            write_torch_parts(copy / name, "pytorch_model", first, rest)
        else:
            write_parts(copy / name, "model", tensors)
    assert families.find(f"{copy}/")[1].name == "2.0"
    found, usual = opened(PUBLISHED, copy).text.encode(["кот"]), published_bundle.text.encode(["кот"])
    assert all(np.array_equal(found[name], usual[name]) for name in ("tokens", "added"))
    part = next((copy / "text_encoder2").glob("*-00001-of-00002*"))
    part.unlink()
    with pytest.raises(WeightsError, match=rf"text_encoder2: .*in 2 files; missing is {part.name}"):
        opened(PUBLISHED, copy)


def test_it_is_found_by_its_files(published: Path) -> None:
    _, preset = families.find(f"{published}/")
    assert (preset.name, preset.folder) == ("2.0", published)
    assert families.located("kandinsky-2.0", PUBLISHED, published.parent).folder == published
    assert families.located("kandinsky-2.0-inpainting", INPAINTING_20, published.parent).folder == published
