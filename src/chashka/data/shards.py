"""Picture shards: one safetensors file that numpy and the standard library can read, small enough to travel.

Every picture is premultiplied RGBA, 8 bits, filtered by rows ("up", as in PNG) and deflated. Tensors: ``bytes`` u8, ``offsets``
i64 (N + 1,), ``concept``, ``style``, ``group`` i32 (N,), ``weight`` f32, ``held_out`` u8. Metadata: ``size`` and, as JSON lists,
``concepts``, ``styles``, ``groups`` (what the numbers mean) and ``ids`` (the manifest's name of each picture).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

HELD_OUT_SHARE = 0.03
_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Record:
    """One picture: its manifest id, labels as numbers into the shard's lists, and uint8 (H, W, 4) premultiplied pixels."""

    id: str
    concept: int
    style: int
    group: int
    weight: float
    pixels: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Labels:
    """What the numbers of a shard mean; the same lists in every shard of a folder."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    groups: tuple[str, ...]


def held_out(picture_id: str) -> bool:
    """Whether a picture is kept from training: decided by its name alone, so that it never changes sides."""
    return int.from_bytes(hashlib.sha256(picture_id.encode()).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


def pack(pixels: np.ndarray[Any, Any]) -> bytes:
    """uint8 (H, W, 4) → deflated bytes; each row stored as its difference from the row above (modulo 256)."""
    filtered = pixels.copy()
    filtered[1:] -= pixels[:-1]
    # Planes beside each other deflate better than interleaved pixels.
    return zlib.compress(np.ascontiguousarray(filtered.transpose(2, 0, 1)).tobytes(), _LEVEL)


def unpack(data: bytes, size: int) -> np.ndarray[Any, Any]:
    """The reverse of :func:`pack`."""
    planes = np.frombuffer(zlib.decompress(data), np.uint8).reshape(4, size, size)
    return np.cumsum(planes, axis=1, dtype=np.uint8).transpose(1, 2, 0)


def write_shard(path: Path, records: Sequence[Record], labels: Labels, size: int) -> None:
    """Write records in the order given; same records, same bytes."""
    packed = [pack(record.pixels) for record in records]
    tensors = {
        "bytes": np.frombuffer(b"".join(packed), np.uint8),
        "offsets": np.cumsum([0, *(len(data) for data in packed)], dtype=np.int64),
        "concept": np.array([r.concept for r in records], np.int32),
        "style": np.array([r.style for r in records], np.int32),
        "group": np.array([r.group for r in records], np.int32),
        "weight": np.array([r.weight for r in records], np.float32),
        "held_out": np.array([held_out(r.id) for r in records], np.uint8),
    }
    lists = {"concepts": labels.concepts, "styles": labels.styles, "groups": labels.groups}
    metadata = {key: json.dumps(list(value), ensure_ascii=False) for key, value in lists.items()}
    metadata |= {"ids": json.dumps([r.id for r in records], ensure_ascii=False), "size": str(size)}
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata)
    temporary.replace(path)


class Shard:
    """A shard in memory; pictures are unpacked when asked for."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        self.size = int(metadata["size"])
        self.ids: list[str] = json.loads(metadata["ids"])
        self.concepts: list[str] = json.loads(metadata["concepts"])
        self.styles: list[str] = json.loads(metadata["styles"])
        self.groups: list[str] = json.loads(metadata["groups"])
        self.concept, self.style, self.group = tensors["concept"], tensors["style"], tensors["group"]
        self.weight, self.held_out = tensors["weight"], tensors["held_out"]
        self._bytes, self._offsets = tensors["bytes"], tensors["offsets"]

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def picture(self, i: int) -> np.ndarray[Any, Any]:
        """uint8 (H, W, 4), premultiplied."""
        return unpack(self._bytes[self._offsets[i] : self._offsets[i + 1]].tobytes(), self.size)
