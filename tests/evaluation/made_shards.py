"""A folder of made shards: discs and squares of 64 pixels, three concepts of the fixed prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chashka.data.manifest import Entry, Manifest
from chashka.data.shards import Labels, Record, held_out, pack, write_shard

SIDE = 256
CONCEPTS = ("emoji:1f34e", "emoji:1f98a", "emoji:1f994")
LABELS = Labels(CONCEPTS, ("flat",), ("things",))


def made(seed: int) -> NDArray[np.uint8]:
    """A one-coloured opaque rectangle on transparent ground, premultiplied; place, size and colour are the seed's."""
    chance = np.random.default_rng(seed)
    pixels = np.zeros((SIDE, SIDE, 4), np.uint8)
    top, left = chance.integers(0, 24, 2) * 4
    height, width = chance.integers(12, 32, 2) * 4
    pixels[top : top + height, left : left + width] = (*chance.integers(0, 256, 3), 255)
    return pixels


def ids() -> Iterator[str]:
    number = 0
    while True:
        yield f"made:{number}"
        number += 1


def some_ids(count: int, kept: bool) -> list[str]:
    """Ids that lie on the wanted side of the split, which their names decide."""
    names = (name for name in ids() if held_out(name) == kept)
    return [next(names) for _ in range(count)]


def write(folder: Path) -> None:
    """24 training pictures (two of no weight), 6 held-out ones, in two files, with a manifest."""
    names = [*some_ids(24, False), *some_ids(6, True)]
    records = [
        Record(name, "made", i % 3, 0, 0, 0.05 if i in (3, 4) else 1.0, pack(made(i))) for i, name in enumerate(names)
    ]
    write_shard(folder / "pictures-000.safetensors", records[:16], LABELS, SIDE)
    write_shard(folder / "pictures-001.safetensors", records[16:], LABELS, SIDE)
    entries = [
        Entry(r.id, "", CONCEPTS[r.concept], "", "flat", "made", "Made", "us", "CC0-1.0", "", "") for r in records
    ]
    Manifest(tuple(entries)).write(folder / "manifest.jsonl.gz")
