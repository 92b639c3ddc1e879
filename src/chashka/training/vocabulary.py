"""Carries a text encoder's weights over to another vocabulary, so that training goes on instead of starting anew.

    python -m chashka.training.vocabulary OLD.tsv NEW.tsv WEIGHTS OUT

A piece of the new vocabulary begins as the mean of the old pieces that spelt it; pieces in both keep what they have learnt.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from chashka.errors import TrainingError
from chashka.prompts.vocabulary import FIRST_PIECE, Vocabulary

EMBEDDING = "embed.weight"


def carried(embedding: torch.Tensor, old: Vocabulary, new: Vocabulary) -> torch.Tensor:
    """(V, E) of the old vocabulary → (V', E) of the new one. Raises TrainingError for an embedding of other words."""
    if len(embedding) != FIRST_PIECE + len(old.pieces):
        raise TrainingError(
            f"the embedding has {len(embedding)} rows, the vocabulary {FIRST_PIECE + len(old.pieces)} ids: "
            "give the vocabulary that these weights were trained with"
        )
    spelt = [embedding[torch.tensor(old.word(piece))].mean(0) for piece in new.pieces]
    return torch.cat([embedding[:FIRST_PIECE], torch.stack(spelt)])


def carry_over(old: Path, new: Path, weights: Path, out: Path) -> list[str]:
    """Write ``weights`` (an ``average.safetensors``) with carried embeddings to ``out``; returns their names."""
    before, after = Vocabulary.load(old), Vocabulary.load(new)
    with safe_open(weights, framework="pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    names = [key for key in tensors if key.split("/", 1)[-1] == EMBEDDING]
    if not names:
        raise TrainingError(f"{weights}: no component with '{EMBEDDING}'; give the weights of a text encoder's run")
    save_file(tensors | {key: carried(tensors[key], before, after) for key in names}, out, metadata)
    return names


if __name__ == "__main__":
    print("carried over:", ", ".join(carry_over(*map(Path, sys.argv[1:5]))))
