"""A run's weights as small as they get without being worth less to the next run, so that a repository can hold them meanwhile.

    python -m chashka.training.parcel pack RUN/average.safetensors PARCEL.xz
    python -m chashka.training.parcel unpack PARCEL.xz average.safetensors

Matrices are rounded to ``LEVELS`` whole numbers on either side of zero, a scale for each output channel (checkpoints/int8.py), the
rest to float16, and all is compressed, which takes out what rare levels cost. What is unpacked begins a run (``--start``), or
is frozen in one.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open

from chashka.checkpoints.int8 import SCALES, to_int8
from chashka.checkpoints.safetensors_file import read_metadata, read_tensors, write
from chashka.errors import TrainingError

LEVELS = 63
"""Seven bits: of a U-Net that learnt with int8 weights its own held-out error tells what they cost (docs/models/next)."""
SMALLEST = 4096
"""Numbers of a matrix from which on it is rounded."""


def pack(average: Path, parcel: Path, levels: int = LEVELS) -> None:
    """average: a run's weights, float32. Raises WeightsError for a file that is none."""
    with safe_open(average, framework="numpy") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    small: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if value.ndim > 1 and value.size >= SMALLEST:
            small[name], small[name + SCALES] = to_int8(value, levels)
        else:
            small[name] = value.astype(np.float16)
    whole = parcel.with_suffix(".part")
    write(whole, small, metadata)
    parcel.write_bytes(lzma.compress(whole.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    whole.unlink()


def unpack(parcel: Path, average: Path) -> None:
    """Write float32 weights as a run leaves them. Raises TrainingError for a file that is no parcel."""
    try:
        data = lzma.decompress(parcel.read_bytes())
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise TrainingError(f"{parcel} is no parcel: {error}") from error
    whole = average.with_suffix(".part")
    whole.parent.mkdir(parents=True, exist_ok=True)
    whole.write_bytes(data)
    write(
        average, {name: value.astype(np.float32) for name, value in read_tensors(whole).items()}, read_metadata(whole)
    )
    whole.unlink()


if __name__ == "__main__":
    (pack if sys.argv[1] == "pack" else unpack)(Path(sys.argv[2]), Path(sys.argv[3]))
