"""Writing safetensors files whose bytes depend on their contents alone.

The safetensors package writes the metadata of a file in a random order, so the (simple) format is written here: eight
bytes with the length of the header, the header as JSON, the tensors one after another. Reading is left to the package.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.errors import FileError

Array: TypeAlias = npt.NDArray[Any]

_NAMES = {"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "float32": "F32"}


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str], what: str) -> None:
    """Write arrays of any shape (int8 to int64, uint8, float32) in the order of their size, the widest first.

    The order keeps every tensor aligned. The file appears whole or not at all; its folder is made. ``what`` names the
    file's contents in the message of the FileError that is raised when it cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    chunks: list[bytes] = []
    place = 0
    for name, values in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        chunk = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        end = place + len(chunk)
        header[name] = {"dtype": _NAMES[values.dtype.name], "shape": list(values.shape), "data_offsets": [place, end]}
        chunks.append(chunk)
        place = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.writelines(chunks)
        part.replace(path)
    except OSError as error:
        raise FileError(f"{path}: cannot write {what} ({error.strerror or error})") from error
