"""From a torch module to OpenVINO's graph: its own files, .xml and .bin. Exports rewrite them (``engines.export``)."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import warnings
import weakref
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils import parametrize

from chashka.checkpoints.bfloat16 import BFLOAT16
from chashka.checkpoints.strict import load_strict
from chashka.engines import rewriting
from chashka.engines.components import DYNAMIC_AXES, PRECISE_INPUTS, imported
from chashka.engines.engine import Blueprint
from chashka.engines.machine import trim
from chashka.engines.openvino_lowered import store_bfloat16
from chashka.engines.precise import keep_constants, keep_precise, precise_constants
from chashka.engines.runtime import convert_model, openvino
from chashka.errors import FileError, WeightsError
from chashka.nets.configs import to_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LAYOUT = "6"
"""Part of the name under which a conversion is kept: raise it when what is written changes."""
FOLDER = "converted"
KEPT = 8
"""Conversions that are kept beside those that a process holds; those used least recently go."""
HELD = "held"
"""The file in a conversion's folder that whoever may read it again has locked."""
PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)
"""Layers whose weights are most of a network, and are float16 in its graph."""
LARGEST: dict[np.dtype[Any], int] = {np.dtype(np.float16): 0x7BFF, BFLOAT16: 0x477F}
"""Types of two bytes, and the bits of their largest number that is one of float16."""
DAY = 86400.0
"""Seconds during which one stays however many there are, on systems that have no such locks."""


class Held:
    """A lock on a conversion's files, until it is closed or nothing refers to it any more."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.close = weakref.finalize(self, handle.close)


class _Traced(nn.Module):
    """The module as a function of positional inputs that returns a tuple in the order of the outputs."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.names = module, tuple(names)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.module(**dict(zip(self.names, inputs, strict=True)))
        return result if isinstance(result, tuple) else (result,)


class _Widened(nn.Module):
    """A float16 weight as the float32 that is computed with, for as long as tracing does; OpenVINO keeps the weight as it is."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        trim()  # tracing makes small objects between large ones, so that the allocator would hold each weight to the end
        return weight.float()


def converted(
    blueprint: Blueprint, tensors: Mapping[str, Any], source: Path, folder: Path, content: str, bfloat16: bool = False
) -> tuple[Path, Held | None]:
    """The graph of a blueprint with these weights, made once: ``folder/converted/KEY/NAME.xml``, float16 weights beside it.

    With it comes what keeps it from being deleted, until that is closed or forgotten: each new shape is compiled from the file.
    content: which content the source has (``sums.content_of``); the key says it, and what the network is. bfloat16: store
    weights so instead. Raises WeightsError, FileError.
    """
    home = Path(folder) / FOLDER / _key(blueprint, content, bfloat16)
    graph = home / f"{blueprint.name}.xml"
    held = _locked(home, shared=True)
    if graph.is_file():
        with suppress(OSError):
            home.touch()
        return graph, held
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as temporary:
            made = Path(temporary) / blueprint.name
            made.mkdir()
            _make(blueprint, tensors, source, made / graph.name, bfloat16, home.parent)
            with suppress(OSError):  # another process was faster
                made.replace(home)
        held = _locked(home, shared=True)
        _prune(home.parent)
    except OSError as error:
        raise FileError(f"cannot keep the graph of {source} in {home.parent}: {error.strerror or error}") from error
    return graph, held


def _make(
    blueprint: Blueprint, tensors: Mapping[str, Any], source: Path, graph: Path, bfloat16: bool, others: Path
) -> None:
    """Write the graph: of a conversion that lies in ``others`` if only matrices differ, else by converting the network."""
    alike = _alike(blueprint, bfloat16)
    for home in sorted(others.iterdir()):
        held = _locked(home, shared=True) if (home / rewriting.FILE).is_file() else None
        if held is not None and rewriting.rewrite(home, tensors, alike, graph, bfloat16):
            return
    _convert(blueprint, tensors, source, graph)
    rewriting.note(graph, tensors, alike)
    if bfloat16:
        store_bfloat16(graph)


def _convert(blueprint: Blueprint, tensors: Mapping[str, Any], source: Path, path: Path) -> None:
    with torch.device("meta"):
        module: nn.Module = imported(blueprint.network)(blueprint.config)
    halved = _halved(module, tensors)
    load_strict(module, tensors, source)
    for layer in halved:
        parametrize.register_parametrization(layer, "weight", _Widened(), unsafe=True)
    types = {"ids": torch.int64}
    examples = {n: torch.zeros(shape, dtype=types.get(n, torch.float32)) for n, shape in blueprint.inputs.items()}
    module.eval().requires_grad_(False)
    precise = save_graph(module, examples, list(examples), blueprint.outputs, path, half=True)
    tree = ET.parse(path)
    keep_precise(tree.getroot())
    keep_constants(tree.getroot(), path.with_suffix(".bin"), precise)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _halved(module: nn.Module, tensors: Mapping[str, Any]) -> list[nn.Module]:
    """The layers that now have float16 weights, as their graph will have: those whose numbers come in two bytes and are float16's.

    So no network is in memory as float32 while its graph is made. bfloat16 beyond float16 is left to OpenVINO to cut.
    """
    found: list[nn.Module] = []
    for name, layer in module.named_modules():
        given = tensors.get(f"{name}.weight")
        if not isinstance(layer, PRODUCTS) or given is None or given.dtype not in LARGEST:
            continue
        if int(np.max(given.view("<u2") & 0x7FFF, initial=0)) <= LARGEST[given.dtype]:
            layer.weight = nn.Parameter(layer.weight.half(), requires_grad=False)
            found.append(layer)
    return found


def _key(blueprint: Blueprint, content: str, bfloat16: bool) -> str:
    return _digest(content, blueprint.variant, _alike(blueprint, bfloat16))


def _alike(blueprint: Blueprint, bfloat16: bool) -> str:
    """What conversions of other weights of this network have in common."""
    shape = sorted((name, len(example)) for name, example in blueprint.inputs.items())
    kind = blueprint.name, blueprint.network, to_json(blueprint.config), blueprint.outputs, bfloat16
    return _digest(LAYOUT, *kind, shape, openvino().get_version())


def _digest(*said: object) -> str:
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def _prune(folder: Path) -> None:
    homes = sorted((p.stat().st_mtime, p) for p in folder.iterdir() if p.is_dir())
    for used, old in homes[:-KEPT]:
        if fcntl is None and used > time.time() - DAY:
            continue
        alone = _locked(old, shared=False)
        if alone is not None:
            shutil.rmtree(old, ignore_errors=True)
            alone.close()


def _locked(home: Path, *, shared: bool) -> Held | None:
    """The lock on a conversion; None where there is no such folder, or where others hold it and it is wanted alone."""
    try:
        handle = (home / HELD).open("ab")
    except OSError:
        return None
    try:
        if fcntl is None:
            return Held(handle)
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return Held(handle)


def save_graph(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    path: Path,
    half: bool = False,
) -> dict[str, npt.NDArray[np.float32]]:
    """Write ``path`` (.xml) and the .bin beside it. half: constants as float16; those that should have stayed float32 come back.

    Raises WeightsError for other ports than named.
    """
    given = tuple(examples[n] for n in inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks about Python numbers; tests compare the results instead
        # Traced here, for OpenVINO has torch check each trace by two further runs.
        traced = torch.jit.trace(_Traced(module, inputs).eval(), given, strict=False, check_trace=False)
        model = convert_model(traced, example_input=given)
    if len(model.inputs) != len(inputs) or len(model.outputs) != len(outputs):
        raise WeightsError(
            f"the graph has {len(model.inputs)} inputs and {len(model.outputs)} outputs; "
            f"expected {', '.join(inputs)} and {', '.join(outputs)}"
        )
    for port, name in (*zip(model.inputs, inputs, strict=True), *zip(model.outputs, outputs, strict=True)):
        port.get_tensor().set_names({name})
    shapes = {}
    for port, name in zip(model.inputs, inputs, strict=True):
        shape: list[int] = list(examples[name].shape)
        for axis in DYNAMIC_AXES.get(name, (0,)):
            if axis < len(shape):  # a prior's x has no places
                shape[axis] = -1
        shapes[port] = shape
    model.reshape(shapes)
    _reshape_precise(model)
    _check_ends(model)
    precise = precise_constants(model)
    openvino().save_model(model, str(path), compress_to_fp16=half)
    return precise


def _check_ends(model: Any) -> None:
    """Raises WeightsError for ``x[:, 4:]``: what is read from the cache of compiled graphs ends one element early (seen with
    OpenVINO 2026.4, as if the end, 2⁶³ - 1, had become -1), so that the second process would compute something else."""
    for node in model.get_ops():
        if node.get_type_name() in ("Slice", "StridedSlice"):
            end = node.input_value(2).get_node()
            if end.get_type_name() == "Constant" and int(np.max(end.get_data())) >= 2**31 - 1:
                raise WeightsError(
                    f"{node.get_friendly_name()} is a slice without an end, which graphs from the cache cut short: split instead"
                )


def _reshape_precise(model: Any) -> None:
    """Write ``t[:, None]`` as Reshape: an Unsqueeze is replaced later, and that loses its mark (``keep_precise``)."""
    ops = openvino().opset13
    for node in model.get_ops():
        source = node.input_value(0) if node.get_type_name() == "Unsqueeze" else None
        if source is None or source.get_node().get_type_name() != "Parameter":
            continue
        if source.get_names() & set(PRECISE_INPUTS) and len(source.get_partial_shape()) == 1:
            axis = int(node.input_value(1).get_node().get_data().ravel()[0])
            shape = ops.constant(np.array([1, -1] if axis == 0 else [-1, 1], np.int64))
            node.output(0).replace(ops.reshape(source, shape, False).output(0))
