"""Textual inversion: every kind of file, on transformers' own text tower, words in prompts, both engines, and what is refused."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from stable_folder import tiny_folder

from chashka import adapters, families, generate
from chashka.checkpoints import write
from chashka.errors import InputError, WeightsError
from chashka.families.stable_diffusion.text import CLIP
from chashka.prompts import clip_words

pytestmark = pytest.mark.torch
WIDTH = 24
VECTORS = np.random.default_rng(2).normal(0, 0.5, (2, WIDTH)).astype(np.float32)
FIRST = 49408


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("embeddings") / "tiny-sd"
    return folder, tiny_folder(folder)[2]


def parameters(tensor: torch.Tensor) -> torch.nn.ParameterDict:
    """As torch had it when the first embeddings were made: its parameters in an ordered dict, and no list of keys."""
    made = torch.nn.ParameterDict({"*": torch.nn.Parameter(tensor)})
    made.__dict__["_parameters"] = OrderedDict(made._parameters)
    del made.__dict__["_keys"]
    return made


def saved(folder: Path, kind: str, vectors: np.ndarray = VECTORS) -> Path:
    """The vectors as one program or another stores them, for the word ``red-cat``."""
    tensor = torch.from_numpy(vectors)
    if kind == "a1111.safetensors":
        write(folder / "red-cat.safetensors", {"emb_params": vectors}, {})
        return folder / "red-cat.safetensors"
    objects = {
        "a1111.pt": {"string_to_token": {"*": 265}, "string_to_param": {"*": tensor}, "name": "other", "step": 500},
        "diffusers.bin": {"<red-cat>": tensor},
        "first.pt": {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": parameters(tensor)},
    }
    path = folder / f"red-cat.{kind.rsplit('.', 1)[1]}"
    torch.save(objects[kind], path)
    return path


@pytest.mark.parametrize("kind", ["a1111.pt", "a1111.safetensors", "diffusers.bin", "first.pt"])
def test_a_word_is_its_vectors(tiny: tuple[Path, Any], kind: str, tmp_path: Path) -> None:
    file = saved(tmp_path, kind)
    folder, theirs = tiny
    around = [clip_words.encode(part) for part in ("a big", "with a (cup")]
    ids = np.full((1, 77), clip_words.END)
    typed = [clip_words.START, *around[0], FIRST, FIRST + 1, *around[1]]
    ids[0, : len(typed)] = typed
    table = torch.nn.Embedding(FIRST + 2, WIDTH)
    with torch.no_grad():
        own = theirs.get_input_embeddings().weight
        table.weight.copy_(torch.cat([own, torch.from_numpy(VECTORS)]))
        said = hidden(theirs, table, torch.from_numpy(ids))
    for engine, closeness in (("torch", 1e-5), ("openvino", 5e-3)):  # kept graphs have float16 weights
        bundle = families.load(
            str(folder), engine=engine, precision="f32", embeddings=[file], cache_dir=tmp_path / "kept"
        )
        spelled = ["a big red-cat with a (cup", "A big RED-CAT with a (cup"]
        spelled += ["a big <red-cat> with a (cup"] if kind == "diffusers.bin" else []
        for text in spelled:
            ours = bundle.text.encode([text])["tokens"]
            assert float(np.abs(ours - said).max() / np.abs(said).max()) < closeness
        # the end mark is still where the pooled vector is taken: a new word has a larger id
        assert not np.allclose(*bundle.text.pooled(["a red-cat", "a red-cat on a table"]))
    plain = families.load(str(folder), engine="torch", cache_dir=tmp_path / "kept")
    assert not np.allclose(plain.text.encode([spelled[0]])["tokens"], said, atol=0.1)


def hidden(tower: Any, table: torch.nn.Embedding, ids: torch.Tensor) -> np.ndarray:
    """transformers' last hidden state with another table of words."""
    own = tower.get_input_embeddings()
    tower.set_input_embeddings(table)
    try:
        out: np.ndarray = tower(ids).last_hidden_state.numpy()
    finally:
        tower.set_input_embeddings(own)
    return out


def test_chunks_keep_a_word_together() -> None:
    words = {tuple(clip_words.encode("blob")): tuple(range(FIRST, FIRST + 8))}
    reader = replace(CLIP, words=words)
    first, second = reader.chunks("cat " * 70 + "blob")
    assert (len(first.ids), second.ids) == (70, list(range(FIRST, FIRST + 8)))
    (weighted,) = reader.chunks("(blob:1.5) cat")
    assert weighted.weights == [1.5] * 8 + [1.0]
    words |= {tuple(clip_words.encode("blob cat")): (FIRST + 8,)}
    assert reader.chunks("a blob cat, blob")[0].ids[1:2] == [FIRST + 8]
    assert reader.chunks("a blobby cat")[0].ids == clip_words.encode("a blobby cat")


def test_a_picture_with_a_new_word(tiny: tuple[Path, Any], tmp_path: Path) -> None:
    pictures = []
    for files in ([], [saved(tmp_path, "a1111.pt")]):
        bundle = families.load(str(tiny[0]), engine="torch", embeddings=files)
        request = bundle.request(prompt="a (red-cat:1.2)", seed=1, steps=2, width=64, height=64)
        pictures.append(generate.draw(bundle, request)[0].pixels)
    assert (pictures[0] != pictures[1]).any()
    assert bundle.text.meter("red-cat").used == 2


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"emb_params": np.zeros((2, 1024), np.float32)},
            "1024 numbers, the text encoder 24: it is an embedding for another model",
        ),
        ({"a": VECTORS, "b": VECTORS}, "is no embedding: it holds a, b"),
        ({"emb_params": np.zeros((2, 3, WIDTH), np.float32)}, r"has the shape \[2, 3, 24\]"),
        ({"emb_params": VECTORS * np.nan}, "not finite"),
        (
            {"clip_l": VECTORS, "clip_g": np.zeros((2, 1280), np.float32)},
            r"it has vectors for two text encoders \(clip_g, clip_l\), as Stable Diffusion XL has them; supported are",
        ),
    ],
)
def test_what_is_no_embedding_is_told(tiny: tuple[Path, Any], tensors: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", tensors, {})
    with pytest.raises(WeightsError, match=message):
        families.load(str(tiny[0]), engine="torch", embeddings=[tmp_path / "a.safetensors"])


@pytest.mark.parametrize("count", [75, 76])
def test_a_word_has_room_in_one_chunk(tiny: tuple[Path, Any], count: int, tmp_path: Path) -> None:
    file = saved(tmp_path, "a1111.safetensors", np.repeat(VECTORS, 38, axis=0)[:count])
    if count == 76:
        with pytest.raises(InputError, match=r"embedding: red-cat\.safetensors has 76 vectors; allowed: from 1 to 75"):
            families.load(str(tiny[0]), engine="torch", embeddings=[file])
        return
    bundle = families.load(str(tiny[0]), engine="torch", embeddings=[file])
    request = bundle.request(prompt="a big red-cat", seed=1, steps=1, width=64, height=64)
    assert bundle.meters(request)[0].limit == 150
    generate.draw(bundle, request)


def test_names_are_looked_up(tmp_path: Path) -> None:
    for name in ("red-cat", "styles/ink", "unsaid"):
        file = tmp_path / "embeddings" / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, {"emb_params": VECTORS}, {})
    folder = tmp_path / "embeddings"
    prompts = ["a (Red-Cat:1.2), painted", "ink"]
    assert set(adapters.embeddings([], prompts, tmp_path)) == {
        folder / "red-cat.safetensors",
        folder / "styles/ink.safetensors",
    }
    assert adapters.embeddings(["unsaid"], ["a red-cats"], tmp_path) == [folder / "unsaid.safetensors"]
    with pytest.raises(
        InputError, match=r"embedding: 'wash' is neither a file nor a name in .*; allowed: ink, red-cat"
    ):
        adapters.embeddings(["wash"], [], tmp_path)
    assert adapters.embeddings([], prompts, None) == []
