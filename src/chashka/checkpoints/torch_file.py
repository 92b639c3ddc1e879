"""Checkpoints as torch writes them (``.pt``, ``.ckpt``, ``.bin``, ``.pth``), read without torch; nothing in them can run.

Two layouts: since torch 1.6 a zip archive (``NAME/data.pkl`` and one uncompressed ``NAME/data/KEY`` for every block of numbers;
TorchScript archives are alike), before that a row of pickles with the blocks behind them. Which one it is, or safetensors, is told
by the content, never by the file's name. Tensors are views of the mapped file.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from chashka.checkpoints import content
from chashka.checkpoints.bfloat16 import BFLOAT16, computable
from chashka.checkpoints.pickled import SCRIPT, Inert, TensorPlace, load
from chashka.checkpoints.safetensors_file import NumpyArray, read_tensors
from chashka.errors import OtherKindError, WeightsError

MOST_PICKLED = 64 << 20
"""Bytes of the pickle of an archive; Stable Diffusion's has half a megabyte."""
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
LOCAL_HEADER = 30
"""Bytes of a zip's local header before the name (APPNOTE 4.3.7)."""
DEEPEST = 64
"""How far containers and modules may be nested."""

TYPES: dict[str, str] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16.str,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Of files that may be checkpoints."""
Blocks = Callable[[str, int], NumpyArray]
"""(key, bytes) → the block as uint8. Raises WeightsError where it is not there or has another size."""


def read_checkpoint(path: Path) -> dict[str, NumpyArray]:
    """The tensors of a checkpoint by name, whatever kind of file it is: the whole of it, or what stands under ``state_dict``.

    Of a training checkpoint only the weights come. bfloat16 comes as the file's bytes (``checkpoints.bfloat16``). Raises
    WeightsError for a file that is missing, damaged, compressed, or names anything that has no place among weights;
    OtherKindError for one that has no weights by name.
    """
    found = read_whole(path)
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict):
        _damaged(path, f"a {type(state).__name__} where weights should be")
    weights = {str(name): value for name, value in state.items() if isinstance(value, np.ndarray)}
    if not weights:
        some = ", ".join(map(str, list(state)[:5])) or "nothing"
        raise OtherKindError(f"{path}: no weights by name in it; it holds {some}")
    return weights


def not_finite(path: Path) -> list[str]:
    """Names of a checkpoint's tensors that hold infinities or what is no number. Reads all of it. Raises WeightsError."""
    floats = ((name, computable(value)) for name, value in read_checkpoint(path).items() if value.dtype.kind in "fV")
    return [name for name, value in floats if not np.isfinite(value).all()]


def read_whole(path: Path) -> Any:
    """The whole object in a checkpoint, whatever kind of file it is. Raises WeightsError."""
    content.check(path)
    return read_tensors(path) if content.is_safetensors(path) else read_torch(path)


def read_torch(path: Path) -> Any:
    """The whole object in a checkpoint: containers, numbers and texts, and its tensors as arrays. Raises WeightsError.

    A TorchScript archive comes as one flat dict of its parameters and buffers by their dotted names.
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="c")  # copy on write: torch takes no arrays that it may not write
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot map the checkpoint {path}: {error}") from error
    try:
        read = _archive if bytes(data[:4]) == content.ZIP else _row
        found, blocks = read(path, data)
        if isinstance(found, Inert):
            found = dict(_flat(found, ""))
        return _Resolver(path, blocks)(found)
    except RecursionError as error:
        raise WeightsError(f"{path}: refused: nested deeper than any checkpoint") from error


def _archive(path: Path, data: NumpyArray) -> tuple[Any, Blocks]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if len(members) != len(archive.infolist()):
                _damaged(path, "a name occurs twice in the archive")
            roots = [
                name.removesuffix("data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")
            ]
            if len(roots) != 1:
                _damaged(path, "a zip without one data.pkl, so no checkpoint of torch")
            root = roots[0]
            if _size(members[f"{root}data.pkl"]) > MOST_PICKLED:
                _damaged(path, f"its pickle has more than {MOST_PICKLED >> 20} MB")
            order = members.get(f"{root}byteorder")
            if order is not None and _size(order) < 64 and archive.read(order) != b"little":
                _damaged(path, "written on a big-endian machine; save it again on another")
            pickled = archive.read(f"{root}data.pkl")
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: damaged, not a readable zip ({str(error)[:100]})") from error

    def block(key: str, size: int) -> NumpyArray:
        info = members.get(f"{root}data/{key}")
        if info is None:
            _damaged(path, f"the block {key[:20]!r} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != size:
            _damaged(path, f"the block {key[:20]!r} is compressed, or has another size than its tensors say")
        begin = info.header_offset
        head = bytes(data[begin : begin + LOCAL_HEADER])
        if len(head) < LOCAL_HEADER or head[:4] != content.ZIP:
            _damaged(path, "an entry of its table points at nothing")
        begin += LOCAL_HEADER + sum(struct.unpack("<HH", head[26:30]))
        return _cut(path, data, begin, size)

    return load(io.BytesIO(pickled), str(path)), block


def _size(entry: zipfile.ZipInfo) -> int:
    """Bytes of an entry, unpacked or packed: as many as either says are asked of memory when it is read."""
    return max(entry.file_size, entry.compress_size)


def _row(path: Path, data: NumpyArray) -> tuple[Any, Blocks]:
    """Files of torch before 1.6: magic number, protocol, system, object, keys of the blocks; then the blocks."""
    if bytes(data[:2]) != b"\x80\x02":  # every one of them begins with a pickle of protocol 2
        _damaged(path, "neither a zip, nor safetensors, nor a file of torch")
    stream, where = _Mapped(data), str(path)
    if load(stream, where) != MAGIC or load(stream, where) != PROTOCOL:
        _damaged(path, "neither a zip nor a file of torch")
    system, found, keys = (load(stream, where) for _ in range(3))
    if not isinstance(system, dict) or system.get("little_endian") is not True or not isinstance(keys, list):
        _damaged(path, "not written on a little-endian machine, or cut off")
    sizes = dict(_storages(found))
    places: dict[str, int] = {}
    place = stream.tell()
    for key in keys:
        if not isinstance(key, str) or key not in sizes:
            _damaged(path, "a block that no tensor uses")
        kind, numel = sizes[key]
        if int.from_bytes(bytes(data[place : place + 8]), "little") != numel:
            _damaged(path, f"the block {key[:20]!r} has another size than its tensors say")
        places[key] = place + 8
        place += 8 + numel * np.dtype(TYPES[kind]).itemsize

    def block(key: str, size: int) -> NumpyArray:
        if key not in places:
            _damaged(path, f"the block {key[:20]!r} is missing")
        return _cut(path, data, places[key], size)

    return found, block


def _storages(value: Any, seen: set[int] | None = None) -> dict[str, tuple[str, int]]:
    """Key → type and number of values of every block that tensors in ``value`` use."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return {}
    seen.add(id(value))
    if isinstance(value, TensorPlace):
        return {value.storage.key: (value.storage.kind, value.storage.numel)} if value.storage.kind in TYPES else {}
    parts: list[Any] = list(value.values()) if isinstance(value, dict) else []
    parts = [*parts, *(value if isinstance(value, list | tuple) else ())]
    found: dict[str, tuple[str, int]] = {}
    for part in parts:
        found |= _storages(part, seen)
    return found


class _Resolver:
    """Puts arrays where tensors are said to be; an object that occurs twice is looked at once."""

    def __init__(self, path: Path, blocks: Blocks) -> None:
        self.path, self.blocks = path, blocks
        self.done: dict[int, tuple[Any, Any]] = {}  # id → the object itself (so that the id stays its own) and its twin
        self.storages: dict[tuple[str, str], NumpyArray] = {}

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str | bytes | int | float | None):
            return value
        if depth > DEEPEST:
            raise RecursionError
        if id(value) not in self.done:
            self.done[id(value)] = (value, self._twin(value, depth + 1))
        return self.done[id(value)][1]

    def _twin(self, value: Any, depth: int) -> Any:
        if isinstance(value, TensorPlace):
            return self._tensor(value)
        if isinstance(value, dict):
            return {self._key(key): self(part, depth) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self(part, depth) for part in value)
        return value

    @staticmethod
    def _key(key: Any) -> Any:
        return key if isinstance(key, str | int | float | tuple | bytes | None) else str(key)

    def _tensor(self, place: TensorPlace) -> NumpyArray:
        storage = place.storage
        code = TYPES.get(storage.kind)
        if code is None:
            _damaged(self.path, f"tensors of the type {storage.kind[:40]}; supported are {', '.join(TYPES)}")
        dtype, count = np.dtype(code), math.prod(place.size)
        last = place.offset + sum((n - 1) * step for n, step in zip(place.size, place.stride, strict=True))
        if count > storage.numel or (count and last >= storage.numel):
            _damaged(
                self.path, f"a tensor of {list(place.size)[:8]} that its block of {storage.numel} numbers does not hold"
            )
        known = (storage.key, storage.kind)
        if known not in self.storages:
            block = self.blocks(storage.key, storage.numel * dtype.itemsize)
            aligned = block.ctypes.data % dtype.itemsize == 0
            self.storages[known] = (block if aligned else block.copy()).view(dtype)
        numbers = self.storages[known][place.offset :]
        steps = tuple(step * dtype.itemsize for step in place.stride)
        array: NumpyArray = np.lib.stride_tricks.as_strided(numbers, place.size, steps)
        return array


class _Mapped:
    """A mapped file as a stream."""

    def __init__(self, data: NumpyArray) -> None:
        self.data, self.place = data, 0

    def read(self, size: int = -1, /) -> bytes:
        end = len(self.data) if size < 0 else min(self.place + size, len(self.data))
        part = bytes(self.data[self.place : end])
        self.place = end
        return part

    def readline(self) -> bytes:
        window = bytes(self.data[self.place : self.place + 65_536])
        line = window[: window.find(b"\n") + 1] or window
        self.place += len(line)
        return line

    def tell(self) -> int:
        return self.place


def _flat(module: Inert, prefix: str, depth: int = 0) -> Mapping[str, Any]:
    """Tensors of a TorchScript module and of those in it, by dotted names."""
    if depth > DEEPEST:
        raise RecursionError
    found: dict[str, Any] = {}
    state = module.state if isinstance(module.state, dict) and module.name.module.startswith(SCRIPT) else {}
    for name, value in state.items():
        if isinstance(value, TensorPlace):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, Inert):
            found |= _flat(value, f"{prefix}{name}.", depth + 1)
    return found


def _cut(path: Path, data: NumpyArray, begin: int, size: int) -> NumpyArray:
    if begin + size > len(data):
        _damaged(path, "it is cut off")
    part: NumpyArray = np.asarray(data[begin : begin + size])
    return part


def _damaged(path: Path, reason: str) -> NoReturn:
    raise WeightsError(f"{path}: not a usable checkpoint ({reason})")
