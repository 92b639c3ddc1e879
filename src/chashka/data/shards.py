"""Picture shards: one safetensors file that numpy and the standard library can read, small enough to travel.

Every picture is premultiplied RGBA, 8 bits, rows from the top, deflated (zlib). On flat drawings this is a quarter smaller than
planes or PNG's row filters with the same compressor (measured: 14.5 KB a picture of 256×256). Tensors: ``bytes`` u8 (all
pictures, one after another), ``offsets`` i64 (N + 1,), ``concept``, ``style``, ``group`` i32 (N,), ``weight`` f32 (N,),
``held_out`` u8 (N,). Metadata: ``size`` and, as JSON lists, ``concepts``, ``styles``, ``groups`` (what the numbers mean),
``ids`` and ``sources`` (the manifest's name and the source of each picture). The same records give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from chashka.errors import FileError, TrainingError

Array: TypeAlias = npt.NDArray[Any]

HELD_OUT_SHARE = 0.03
_LEVEL = 9
_LAYOUT = "rgba"


@dataclass(frozen=True, slots=True)
class Record:
    """One picture: its manifest id and source, labels as numbers into the shard's lists, and pixels packed by ``pack``."""

    id: str
    source: str
    concept: int
    style: int
    group: int
    weight: float
    packed: bytes


@dataclass(frozen=True, slots=True)
class Labels:
    """What the numbers of a shard mean; the same lists in every shard of a folder."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    groups: tuple[str, ...]


def held_out(picture_id: str) -> bool:
    """Whether a picture is kept from training: decided by its name alone, so that it never changes sides."""
    return int.from_bytes(hashlib.sha256(picture_id.encode()).digest()[:4], "big") < HELD_OUT_SHARE * 2**32


def pack(pixels: Array) -> bytes:
    """uint8 (H, W, 4) → deflated bytes."""
    return zlib.compress(np.ascontiguousarray(pixels, np.uint8).tobytes(), _LEVEL)


def unpack(data: bytes, size: int) -> Array:
    """The reverse of :func:`pack`: uint8 (size, size, 4)."""
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(size, size, 4)


def write_shard(path: Path, records: Sequence[Record], labels: Labels, size: int) -> None:
    """Write records in the order given, whole or not at all. Raises FileError when the file cannot be written."""
    tensors: dict[str, Array] = {
        "offsets": np.cumsum([0, *(len(r.packed) for r in records)], dtype=np.int64),
        "concept": np.array([r.concept for r in records], np.int32),
        "style": np.array([r.style for r in records], np.int32),
        "group": np.array([r.group for r in records], np.int32),
        "weight": np.array([r.weight for r in records], np.float32),
        "held_out": np.array([held_out(r.id) for r in records], np.uint8),
        "bytes": np.frombuffer(b"".join(r.packed for r in records), np.uint8),
    }
    lists = {
        "concepts": labels.concepts,
        "styles": labels.styles,
        "groups": labels.groups,
        "ids": [r.id for r in records],
        "sources": [r.source for r in records],
    }
    metadata = {key: json.dumps(list(value), ensure_ascii=False) for key, value in lists.items()}
    # Here, because only building writes: training's bundle for bare machines has this module, to read, and not that one.
    from chashka.data.tensors import write_tensors

    write_tensors(path, tensors, metadata | {"size": str(size), "layout": _LAYOUT}, "the shard")


class Shard:
    """A shard in memory; pictures are unpacked when asked for.

    ``concept``, ``style``, ``group`` int32, ``weight`` float32 and ``held_out`` uint8 have shape (N,). Raises FileError for a
    file that is missing or damaged, TrainingError for one that is no shard of pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, SafetensorError) as error:
            raise FileError(f"{path}: cannot be read as a shard of pictures ({error})") from error
        try:
            self.size = int(metadata["size"])
            self.concepts: list[str] = json.loads(metadata["concepts"])
            self.styles: list[str] = json.loads(metadata["styles"])
            self.groups: list[str] = json.loads(metadata["groups"])
            self.ids: list[str] = json.loads(metadata["ids"])
            self.sources: list[str] = json.loads(metadata.get("sources", "[]"))
            self._planes = metadata.get("layout") != _LAYOUT
            self.concept, self.style, self.group = tensors["concept"], tensors["style"], tensors["group"]
            self.weight, self.held_out = tensors["weight"], tensors["held_out"]
            self._bytes, self._offsets = tensors["bytes"], tensors["offsets"]
        except (KeyError, ValueError) as error:
            raise TrainingError(
                f"{path}: not a shard of pictures ({error} is missing or wrong); build shards with: chashka data build"
            ) from error

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def picture(self, i: int) -> Array:
        """uint8 (size, size, 4), premultiplied."""
        data = self._bytes[self._offsets[i] : self._offsets[i + 1]].tobytes()
        try:
            if self._planes:
                # Shards of the first format: channel planes, each row as the difference from the row above.
                rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(4, self.size, self.size)
                return np.cumsum(rows, axis=1, dtype=np.uint8).transpose(1, 2, 0)
            return unpack(data, self.size)
        except (zlib.error, ValueError) as error:
            raise FileError(f"{self.path}: picture {i} is damaged ({error})") from error
