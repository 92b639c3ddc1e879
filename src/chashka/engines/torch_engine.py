"""Runs components with torch: on a GPU, for gradients, and where a graph is not at hand. Needs the extra [torch]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from chashka.checkpoints.low_rank import changed
from chashka.checkpoints.safetensors_file import read_metadata, read_tensors
from chashka.checkpoints.strict import load_strict
from chashka.engines.components import base_of, configuration, imported, network_class, ports
from chashka.engines.engine import Blueprint, check_names
from chashka.engines.torch_residents import Residents, residents_of
from chashka.engines.torch_wrapping import wrapped
from chashka.errors import EngineError
from chashka.nets.configs import to_json

DEVICES = ("cpu", "cuda", "mps", "xpu")
PRECISIONS: dict[str, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def usable(device: str) -> torch.device:
    """The device of that name. Raises EngineError for one that torch does not know or cannot use here."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise EngineError(f"torch knows no device {device!r}; use {', '.join(DEVICES)} or auto") from error
    if found.type not in DEVICES:
        raise EngineError(f"device {device!r} computes nothing here; use {', '.join(DEVICES)} or auto")
    try:
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:  # builds without a device say so in both ways
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise EngineError(f"torch cannot use device {device!r} here ({reason}); use cpu or auto") from error
    return found


class TorchEngine:
    """torch on one device.

    device: "cpu", "cuda", "cuda:1", "mps", …; "auto" takes an NVIDIA GPU if there is one. precision: "f32", "bf16", "f16";
    "auto" is bf16 on a GPU, f32 on a CPU and on Apple's, where nobody has tried others. f16 on a CPU becomes bf16: the same
    size, and computed hundreds of times faster. Products are computed in that precision, norms and everything else in
    float32. On a GPU networks come when they are first called, and those used least recently wait on the CPU where memory is short
    (``torch_residents``). Raises EngineError.
    """

    def __init__(self, device: str = "cpu", precision: str = "auto") -> None:
        wanted = device.lower()
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted.startswith("cuda") and not torch.cuda.is_available():
            raise EngineError(f"torch has no CUDA device here ({device!r} was asked for); use device cpu or auto")
        self.device = usable(wanted)
        on_cpu = self.device.type == "cpu"
        if precision == "auto":
            precision = "f32" if on_cpu or self.device.type == "mps" else "bf16"
        if precision not in PRECISIONS:
            raise EngineError(f"precision {precision!r} does not exist; use one of auto, {', '.join(PRECISIONS)}")
        self.precision = "bf16" if on_cpu and precision == "f16" else precision
        self.residents: Residents | None = residents_of(self.device)

    @property
    def name(self) -> str:
        return f"torch {self.device} {self.precision}"

    @property
    def beside(self) -> tuple[str, str]:
        return str(self.device), str(PRECISIONS[self.precision]).removeprefix("torch.")

    def open(self, folder: Path, name: str) -> TorchGraph:
        """Build the network that ``<name>.safetensors`` names and load it strictly. Raises WeightsError."""
        path = Path(folder) / f"{name}.safetensors"
        metadata = read_metadata(path)
        inputs, outputs = ports(metadata, path)
        with torch.device("meta"):
            module: nn.Module = network_class(metadata, path)(configuration(metadata, path))
        tensors, base = read_tensors(path), base_of(metadata, path)
        if base is not None:
            whole = read_tensors(base)
            tensors = whole | changed(whole, tensors, str(path))
        return self._graph(name, module, tensors, path, metadata, inputs, outputs)

    def build(self, blueprint: Blueprint, tensors: Mapping[str, Any], source: Path) -> TorchGraph:
        """See ``engine.Engine``. Weights are cast to this engine's precision where products use them."""
        with torch.device("meta"):
            module: nn.Module = imported(blueprint.network)(blueprint.config)
        metadata = {"config": to_json(blueprint.config)}
        return self._graph(
            blueprint.name, module, tensors, source, metadata, tuple(blueprint.inputs), blueprint.outputs
        )

    def _graph(
        self,
        name: str,
        module: nn.Module,
        tensors: Mapping[str, Any],
        path: Path,
        metadata: Mapping[str, str],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
    ) -> TorchGraph:
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
                layer.to(PRECISIONS[self.precision])
            elif isinstance(layer, nn.RMSNorm):  # the one norm that autocast does not know
                layer.register_forward_pre_hook(_widened)
        load_strict(module, tensors, path)
        module.eval().requires_grad_(False)
        if (self.device.type, self.precision) == ("cpu", "bf16"):
            # Pictures then have their channels last from the first convolution on: a fifth less time for Stable Diffusion's
            # U-Net, two thirds less for its decoder. In float32 that U-Net would take a seventh more (docs/benchmarks.md).
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return TorchGraph(self, name, module, metadata, inputs, outputs)


@dataclass(eq=False)
class TorchGraph:
    """One component; see ``engine.Graph``. numpy in, numpy out; with any tensor among the inputs, tensors out.

    Tensors come back on the device of the first one given, and carry gradients if an input asks for them.
    """

    engine: TorchEngine
    name: str
    module: nn.Module
    metadata: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def prepare(self, **shapes: Sequence[int]) -> None:
        """Nothing to do: torch runs any shape."""
        check_names(self, shapes)

    def tiled(self, axes: str) -> TorchGraph:
        return replace(self, module=wrapped(self.module, axes))

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        check_names(self, inputs)
        given = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
        arguments = {name: _boundary(value).to(self.engine.device) for name, value in inputs.items()}
        learns = any(value.requires_grad for value in given)
        try:
            result = self._computed(arguments, learns)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            raise EngineError(f"torch failed in {self.name}: {reason}") from error
        values = [v.float() for v in (result if isinstance(result, tuple) else (result,))]
        if given:
            return {name: v.to(given[0].device) for name, v in zip(self.outputs, values, strict=True)}
        return {name: v.cpu().numpy() for name, v in zip(self.outputs, values, strict=True)}

    def _computed(self, arguments: Mapping[str, torch.Tensor], learns: bool) -> Any:
        """What the module says, with its weights where they are needed; where memory ran out, again with all others sent away."""
        residents = self.engine.residents
        if residents is None:
            return self._run(arguments, learns)
        with residents.lock:
            try:
                residents.enter(self.module)
                return self._run(arguments, learns)
            except torch.OutOfMemoryError:
                if not residents.leave_alone(self.module):
                    raise
            residents.enter(self.module)
            return self._run(arguments, learns)

    def _run(self, arguments: Mapping[str, torch.Tensor], learns: bool) -> Any:
        dtype = PRECISIONS[self.engine.precision]
        lower = dtype != torch.float32
        with (
            torch.set_grad_enabled(learns),
            torch.autocast(self.engine.device.type, dtype=dtype if lower else None, enabled=lower, cache_enabled=False),
        ):
            return self.module(**arguments)


def _widened(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.float() for value in inputs)


def _boundary(value: Any) -> torch.Tensor:
    """float32 or int64, as the boundary demands."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value.long()
    array = np.asarray(value)
    array = np.ascontiguousarray(array, np.float32 if array.dtype.kind == "f" else np.int64)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
