"""safetensors files, read by memory map and written atomically, the same bytes for the same content.

The format (github.com/huggingface/safetensors, README): 8 bytes little-endian header length, a JSON header
``{name: {dtype, shape, data_offsets}, "__metadata__": {str: str}}``, then the data without holes. We read it ourselves
because graphs point at absolute offsets in these files, and because the library copies every tensor.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.checkpoints import content
from chashka.checkpoints.bfloat16 import BFLOAT16
from chashka.checkpoints.int8 import widened
from chashka.errors import FileError, WeightsError

NumpyArray: TypeAlias = npt.NDArray[Any]

GRAPH_TENSOR = "__graph__"
"""The tensor (uint8) that holds what a graph needs besides the weights; loaders of modules leave it out."""

ALIGNMENT = 64  # bytes: a cache line, and what vector loads of mapped weights like best
MAX_HEADER = 100_000_000  # bytes, the format's own limit

DTYPES: dict[str, str] = {
    "BOOL": "?",
    "U8": "<u1",
    "I8": "<i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "BF16": BFLOAT16.str,
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies: ``offset`` and ``size`` in bytes from the start of the file, ``dtype`` by the format."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


def layout(path: Path) -> tuple[dict[str, Place], dict[str, str]]:
    """Where every tensor lies, in the order of their offsets, and the metadata. Reads the header only.

    Raises WeightsError if the file is missing, cut off or is not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            head = file.read(8)
            size = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if not 2 <= size <= min(MAX_HEADER, length - 8):
                _damaged(path, f"{length} bytes long, no header fits")
            text = file.read(size)
    except FileNotFoundError as error:
        raise WeightsError(f"the weight file {path} does not exist") from error
    except OSError as error:
        raise WeightsError(f"cannot read the weight file {path}: {error.strerror}") from error
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _damaged(path, f"its header is not JSON: {error}")
    if not isinstance(header, dict):
        _damaged(path, "its header is not a table")
    return _places(path, header, 8 + size, length), _metadata(path, header)


def read_metadata(path: Path) -> dict[str, str]:
    """The strings stored with the weights (config, class, version, …). Raises WeightsError as :func:`layout` does."""
    return layout(path)[1]


def read_tensors(path: Path) -> dict[str, NumpyArray]:
    """All tensors by name, memory-mapped copy-on-write: nothing is read before it is touched, the file never changes.

    bfloat16 comes as the file's bytes (``checkpoints.bfloat16``), int8 weights with scales as float32 (``checkpoints.int8``). The
    graph's own constants are left out. Raises WeightsError.
    """
    places, _ = layout(path)
    if not places:
        return {}
    try:
        data = np.memmap(path, dtype=np.uint8, mode="c")
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot map the weight file {path}: {error}") from error
    tensors = {}
    for name, place in places.items():
        if name == GRAPH_TENSOR:
            continue
        raw: NumpyArray = np.asarray(data[place.offset : place.offset + place.size])
        dtype = np.dtype(DTYPES[place.dtype])
        if place.offset % dtype.itemsize:  # other writers may leave data unaligned, which torch refuses
            raw = raw.copy()
        tensors[name] = raw.view(dtype).reshape(place.shape)
    return widened(tensors)


def forget(array: NumpyArray) -> None:
    """Give back the whole pages under an array of a mapped file: they are read again if it is touched again.

    Nothing happens to an array that is of no mapping, and where the system has no such advice. Not for arrays that were written
    to: what a private mapping was told would be lost.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is None or not hasattr(mmap, "MADV_DONTNEED") or not array.flags.c_contiguous:
        return
    begin = array.__array_interface__["data"][0] - np.frombuffer(base, np.uint8).__array_interface__["data"][0]
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (begin + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        base.madvise(mmap.MADV_DONTNEED, first, length)


def write(path: Path, tensors: Mapping[str, NumpyArray], metadata: Mapping[str, str]) -> None:
    """Write atomically (a temporary file beside ``path``, fsync, rename): there is the old file or the whole new one.

    The same tensors and metadata give the same bytes, in whatever order they come. Data starts at a multiple of 64
    bytes; tensors that keep that alignment for the next one come first, then the others from wide to narrow types.
    Raises FileError if it cannot be written, WeightsError for a dtype that the format does not have.
    """
    arrays = {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in tensors.items()}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("<") not in _NAMES:
            raise WeightsError(f"cannot store {name}: dtype {array.dtype}; allowed are {', '.join(DTYPES)}")
    order = sorted(arrays, key=lambda n: (arrays[n].nbytes % ALIGNMENT > 0, -arrays[n].dtype.itemsize, n))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        dtype = _NAMES[array.dtype.newbyteorder("<")]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    chunks: list[Any] = [struct.pack("<Q", len(text)), text]
    for name in order:
        flat = arrays[name].reshape(-1)
        chunks.append(flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8).data)
    replace(path, chunks)


def replace(path: Path, chunks: list[Any]) -> None:
    """Put ``chunks`` (bytes) at ``path`` so that a reader sees the old file or the whole new one. Raises FileError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.writelines(chunks)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


def sha256(path: Path) -> str:
    """The file's sha256 as 64 hex digits. Raises WeightsError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise WeightsError(f"the weight file {path} does not exist") from error
    except OSError as error:
        raise WeightsError(f"cannot read the weight file {path}: {error.strerror}") from error


def _places(path: Path, header: dict[str, Any], start: int, length: int) -> dict[str, Place]:
    places = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            count = 1
            for extent in shape:
                count *= extent
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        except (KeyError, TypeError, ValueError):
            _damaged(path, f"the entry of {name!r} is incomplete")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise WeightsError(f"{path}: {name!r} has dtype {dtype!r}; supported are {', '.join(DTYPES)}")
        if not whole or end - begin != count * np.dtype(DTYPES[dtype]).itemsize:
            _damaged(path, f"shape, dtype and size of {name!r} do not agree")
        places[name] = Place(dtype, shape, start + begin, end - begin)
    ordered = dict(sorted(places.items(), key=lambda item: (item[1].offset, item[1].size)))
    end = start
    for name, place in ordered.items():
        if place.offset != end:
            _damaged(path, f"a hole or an overlap before {name!r}")
        end += place.size
    if end != length:
        _damaged(path, f"{length} bytes long, its header says {end}")
    return ordered


def _metadata(path: Path, header: dict[str, Any]) -> dict[str, str]:
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _damaged(path, "its metadata are not strings")
    return metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _damaged(path: Path, reason: str) -> NoReturn:
    content.check(path, torch=False)
    raise WeightsError(f"the weight file {path} is damaged or is not a safetensors file ({reason}); fetch it again")
