"""A run's weights as small as they get without being worth less, so that a repository can hold them until they are shipped.

    python -m chashka.training.parcel pack RUN/average.safetensors PARCEL.xz BASE
    python -m chashka.training.parcel unpack PARCEL.xz average.safetensors BASE

Matrices become int8 with a scale for each output channel, as the package stores them (checkpoints/int8.py), the rest float16. BASE
is a folder of components that the run began with, the package's for example: of a matrix that it has too, only the difference
is kept, in the same whole numbers; it is small, and compressing takes out what small numbers do not need. What is unpacked begins
a run (``--start``), is frozen in one, or exported, to the very int8 numbers that were packed.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.int8 import SCALES, to_int8
from chashka.checkpoints.safetensors_file import read_tensors, sha256, write
from chashka.engines.components import wide_in
from chashka.errors import TrainingError

NETWORKS = {"unet": "nets.unet:UNet", "text_head": "nets.kandinsky_text:KandinskyTextHead"}
"""Classes of the components, by which the package's own rule says what is float16; of others every matrix is int8."""
STEPS, BASES = ".__step__", "bases"
"""Behind the name of a difference's scales, and the metadata's {component: sha256 of its file in BASE}."""

Arrays = dict[str, npt.NDArray[np.generic]]


def pack(average: Path, parcel: Path, base: Path) -> None:
    """average: a run's weights, named ``component/…``. Raises WeightsError for weights that are not finite."""
    with safe_open(average, framework="numpy") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    before, bases = _known(base, {name.split("/", 1)[0] for name in tensors})
    small: Arrays = {}
    for name, value in tensors.items():
        part, key = name.split("/", 1)
        if wide_in(NETWORKS.get(part, ""), key, value.shape):
            small[name] = value.astype(np.float16)
            continue
        whole, scales = to_int8(value)
        known = before.get(name)
        if known is None or known.shape != value.shape:
            small[name], small[name + SCALES] = whole, scales
        else:  # -254 to 254
            steps = whole.astype(np.int16) - _steps(known, scales)
            small[name] = steps.astype(np.int8) if np.abs(steps).max() < 128 else steps
            small[name + STEPS] = scales
    made = parcel.with_suffix(".part")
    write(made, small, {**metadata, BASES: json.dumps(bases, sort_keys=True)})
    parcel.write_bytes(lzma.compress(made.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    made.unlink()


def unpack(parcel: Path, average: Path, base: Path) -> None:
    """Write float32 weights as a run leaves them. Raises TrainingError for a file that is no parcel, or of another base."""
    try:
        data = lzma.decompress(parcel.read_bytes())
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise TrainingError(f"{parcel} is no parcel: {error}") from error
    made = average.with_suffix(".part")
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_bytes(data)
    with safe_open(made, framework="numpy") as file:
        metadata = dict(file.metadata() or {})
    wanted = json.loads(metadata.pop(BASES, "{}"))
    before, bases = _known(base, wanted.keys())
    if bases != wanted:
        made.unlink()
        raise TrainingError(
            f"{parcel} was packed beside other weights than {base} has; give the folder that it was packed beside"
        )
    tensors = read_tensors(made)
    steps = {name: tensors.pop(name) for name in [name for name in tensors if name.endswith(STEPS)]}
    for name, scales in ((name.removesuffix(STEPS), scales) for name, scales in steps.items()):
        whole = tensors[name].astype(np.int16) + _steps(before[name], scales)
        tensors[name] = whole.astype(np.float32) * _column(scales, whole.ndim)
    write(average, {name: value.astype(np.float32) for name, value in tensors.items()}, metadata)
    made.unlink()


def _known(base: Path, components: set[str]) -> tuple[Arrays, dict[str, str]]:
    """The weights of those components that the folder has, and their files' sums."""
    files = {name: base / f"{name}.safetensors" for name in sorted(components)}
    there = {name: file for name, file in files.items() if file.is_file()}
    weights = {f"{name}/{key}": computable(v) for name, file in there.items() for key, v in read_tensors(file).items()}
    return weights, {name: sha256(file) for name, file in there.items()}


def _steps(weights: npt.NDArray[np.generic], scales: npt.NDArray[np.generic]) -> npt.NDArray[np.int16]:
    """Weights (C, …) as whole numbers of scales (C,), as far as int8 goes."""
    rounded = np.rint(weights.astype(np.float32) / _column(scales, weights.ndim))
    whole: npt.NDArray[np.int16] = np.clip(rounded, -127, 127).astype(np.int16)
    return whole


def _column(scales: npt.NDArray[np.generic], ndim: int) -> npt.NDArray[np.float32]:
    return scales.astype(np.float32).reshape(-1, *(1,) * (ndim - 1))


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] not in ("pack", "unpack"):
        raise SystemExit(__doc__)
    (pack if sys.argv[1] == "pack" else unpack)(*map(Path, sys.argv[2:]))
