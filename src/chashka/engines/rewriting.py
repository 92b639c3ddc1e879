"""A conversion made of another one of the same network: its graph, with other matrices.

A LoRA changes matrices alone, and each of its weights makes other ones. Tracing and converting a U-Net takes much longer than
writing them anew into a copy of the file that lies there already. What that wants stands beside a conversion in
``matrices.json``: where in the .bin each matrix lies, as it was given, and the sum of all other numbers, which conversion folds
into constants of its own making and which therefore have to be the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.safetensors_file import forget
from chashka.engines.openvino_lowered import to_bfloat16
from chashka.engines.precise import COMPRESSED

FILE = "matrices.json"
TRACED = "self.module."
"""Before a weight's own name in a graph (``conversion``)."""
WIDENED = re.compile(r"\.parametrizations(?=\.weight)|(?<=\.weight)\.original$")
"""In the name of one that was float16 while its network was traced."""
FLOAT16_LARGEST = 65504.0
Places = dict[str, tuple[int, int]]


def note(graph: Path, tensors: Mapping[str, Any], alike: str) -> None:
    """Write down how ``graph``, just converted to float16, can be made anew, if every matrix stands in it as it was given.

    alike: what has to be the same of another network, but for its weights.
    """
    data = np.memmap(graph.with_suffix(".bin"), np.uint8, "r")
    places: Places = {}
    for layer in ET.parse(graph).getroot().iterfind("layers/layer[@type='Const']"):
        name = layer.get("name", "").removesuffix(COMPRESSED).removeprefix(TRACED)
        name = WIDENED.sub("", name)
        place = layer.find("data")
        if name not in tensors or not _is_matrix(tensors[name]) or place is None or place.get("element_type") != "f16":
            continue
        begin, size = int(place.get("offset", "0")), int(place.get("size", "0"))
        written = data[begin : begin + size]
        if np.array_equal(written, _half(tensors[name]).view(np.uint8).ravel()):
            places[name] = begin, size
        forget(written)
        forget(np.asarray(tensors[name]))
    matrices = {name for name, value in tensors.items() if _is_matrix(value)}
    if places.keys() == matrices and len(set(places.values())) == len(places):  # equal ones may lie in one place
        said = {"alike": alike, "others": _others(tensors), "places": places}
        graph.with_name(FILE).write_text(json.dumps(said), encoding="utf-8")


def rewrite(home: Path, tensors: Mapping[str, Any], alike: str, graph: Path, bfloat16: bool) -> bool:
    """Make ``graph`` and the .bin beside it of the conversion in ``home`` with these tensors; False if it does not fit.

    bfloat16: their float16 is stored as that (``openvino_lowered.store_bfloat16``).
    """
    said = _noted(home)
    if said is None or said["alike"] != alike or said["others"] != _others(tensors):
        return False
    matrices = {name for name, value in tensors.items() if _is_matrix(value)}
    if said["places"].keys() != matrices or not _in_range(tensors, matrices):
        return False
    for name in (graph.name, graph.with_suffix(".bin").name, FILE):
        shutil.copyfile(home / name, graph.with_name(name))
    data = np.memmap(graph.with_suffix(".bin"), np.uint8, "r+")
    for name, (begin, size) in said["places"].items():
        half = _half(tensors[name])
        new = (to_bfloat16(half) if bfloat16 else half).view(np.uint8).ravel()
        if not np.array_equal(data[begin : begin + size], new):
            data[begin : begin + size] = new
    data.flush()
    return True


def _noted(home: Path) -> dict[str, Any] | None:
    try:
        said = json.loads((home / FILE).read_text(encoding="utf-8"))
        return said if isinstance(said, dict) and {"alike", "others", "places"} <= said.keys() else None
    except (OSError, ValueError):
        return None


def _is_matrix(value: Any) -> bool:
    return len(value.shape) > 1


def _half(value: Any) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(np.asarray(computable(value), np.float32).astype(np.float16))


def _in_range(tensors: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether float16 holds them: for what it does not hold conversion has rules of its own."""
    return all(bool((np.abs(np.asarray(computable(tensors[n]), np.float32)) <= FLOAT16_LARGEST).all()) for n in names)


def _others(tensors: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        if not _is_matrix(value):
            found.update(name.encode() + b"\0" + np.asarray(computable(value), np.float32).tobytes())
    return found.hexdigest()
