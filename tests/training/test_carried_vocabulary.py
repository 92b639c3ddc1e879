"""Weights of a text encoder carried over to another vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from chashka.errors import TrainingError
from chashka.prompts.vocabulary import FIRST_PIECE, Vocabulary
from chashka.training.vocabulary import carried, carry_over

pytestmark = pytest.mark.torch
OLD = ["c", "a", "t", "ca", "dog"]
NEW = ["dog", "cat", "a", "ж"]


@pytest.fixture
def vocabularies() -> tuple[Vocabulary, Vocabulary]:
    return Vocabulary(OLD, [-1.0] * len(OLD)), Vocabulary(NEW, [-1.0] * len(NEW))


def test_new_pieces_begin_as_what_spelt_them(vocabularies: tuple[Vocabulary, Vocabulary]) -> None:
    old, new = vocabularies
    embedding = torch.randn(FIRST_PIECE + len(OLD), 8, generator=torch.Generator().manual_seed(0))
    after = carried(embedding, old, new)
    c = {piece: FIRST_PIECE + i for i, piece in enumerate(OLD)}
    assert after.shape == (FIRST_PIECE + len(NEW), 8)
    assert torch.equal(after[:FIRST_PIECE], embedding[:FIRST_PIECE])
    assert torch.equal(after[FIRST_PIECE], embedding[c["dog"]])
    assert torch.allclose(after[FIRST_PIECE + 1], (embedding[c["ca"]] + embedding[c["t"]]) / 2)
    assert torch.equal(after[FIRST_PIECE + 2], embedding[c["a"]])
    assert torch.allclose(after[FIRST_PIECE + 3], embedding[old.word("ж")].mean(0)), "letters nobody knew: their bytes"


def test_an_embedding_of_other_words_is_refused(vocabularies: tuple[Vocabulary, Vocabulary]) -> None:
    with pytest.raises(TrainingError, match=r"300 rows, the vocabulary 265 ids"):
        carried(torch.zeros(300, 8), *vocabularies)


def test_only_embeddings_change(tmp_path: Path, vocabularies: tuple[Vocabulary, Vocabulary]) -> None:
    paths = []
    for name, vocabulary in zip(("old.tsv", "new.tsv"), vocabularies, strict=True):
        paths.append(tmp_path / name)
        lines = zip(vocabulary.pieces, vocabulary.scores, strict=True)
        paths[-1].write_text("".join(f"{piece}\t{score:.4f}\n" for piece, score in lines), "utf-8")
    weights, out = tmp_path / "average.safetensors", tmp_path / "carried.safetensors"
    tensors = {"text_t5/embed.weight": torch.randn(FIRST_PIECE + len(OLD), 4), "text_t5/norm.weight": torch.ones(4)}
    save_file(tensors, weights, {"recipe": "{}"})
    assert carry_over(*paths, weights, out) == ["text_t5/embed.weight"]
    written = load_file(out)
    assert torch.equal(written["text_t5/norm.weight"], tensors["text_t5/norm.weight"])
    assert len(written["text_t5/embed.weight"]) == FIRST_PIECE + len(NEW)
    with safe_open(out, framework="pt") as file:
        assert file.metadata() == {"recipe": "{}"}
    save_file({"unet/x": torch.ones(1)}, weights, {"recipe": "{}"})
    with pytest.raises(TrainingError, match=r"no component with 'embed\.weight'"):
        carry_over(*paths, weights, out)
