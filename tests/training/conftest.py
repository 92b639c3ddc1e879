"""Made pictures with captions, and little runs of all stages on them, one after the other; shared by the modules here.

Torch is imported in the fixtures: this file is read where there is none, too.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from little import AUTOENCODER, CLIP, CONCEPTS, PICTURE, T5, UNET, frozen

from chashka.data.shards import Labels, Record, pack, write_shard


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures (discs of three colours in two styles) and their captions."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("shards")
    y, x = np.mgrid[:256, :256]
    records = []
    for i in range(60):
        disc = (y - 128) ** 2 + (x - 100 - i) ** 2 < 80**2
        pixels = np.zeros((256, 256, 4), np.uint8)
        pixels[disc] = (255 * (i % 3 == 0), 255 * (i % 3 == 1), 255 * (i % 3 == 2), 255)
        source = "other" if i % 5 == 4 else "made"
        records.append(Record(f"{source}:{i}", source, i % 3, i % 2, 0, 1.0, pack(pixels)))
    write_shard(folder / "pictures-000.safetensors", records, Labels(tuple(CONCEPTS), ("flat", "3d"), ("things",)), 256)
    rows = [(c, kind, style) for c in range(3) for kind, style in ((0, -1), (1, -1), (2, -1), (3, 0), (3, 1))]
    ids = [[1, 270 + c, 280 + kind, 290 + style, 2] for c, kind, style in rows]
    tensors = {
        "ids": torch.tensor([piece for row in ids for piece in row], dtype=torch.int32),
        "offsets": torch.arange(len(rows) + 1) * 5,
        "concept": torch.tensor([r[0] for r in rows], dtype=torch.int32),
        "locale": torch.zeros(len(rows), dtype=torch.int16),
        "kind": torch.tensor([r[1] for r in rows], dtype=torch.int8),
        "style": torch.tensor([r[2] for r in rows], dtype=torch.int16),
        "language_weight": torch.ones(len(rows)),
    }
    lists = {"concepts": CONCEPTS, "locales": ["en"], "styles": ["flat", "3d"], "main": ["en"]}
    save_file(tensors, folder / "captions.safetensors", {k: json.dumps(v) for k, v in lists.items()})
    return folder


@pytest.fixture(scope="session")
def runs(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, one after the other."""
    from chashka.training import stages

    folder = tmp_path_factory.mktemp("runs")
    for recipe in (AUTOENCODER, CLIP, T5, PICTURE):
        stages.train(recipe, shards, folder / recipe.stage, frozen=frozen(folder))
    stages.train(UNET, shards, folder / "unet", frozen=frozen(folder))
    return folder
