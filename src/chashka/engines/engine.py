"""What an engine is: something that opens components; a graph is a function from named arrays to named arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from chashka.errors import EngineError

Array: TypeAlias = Any
"""numpy arrays; the torch engine takes and returns torch tensors as well."""


class Graph(Protocol):
    """One opened component. Inputs and outputs have the names of docs/networks.md, float32 or int64, rows first."""

    @property
    def name(self) -> str:
        """The component's name, for example "unet"."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What is stored with the weights (config, latent_scale, …)."""

    def prepare(self, **shapes: Sequence[int]) -> None:
        """Get ready for inputs of these shapes, so that the first call is quick. May run in another thread."""

    def tiled(self, axes: str) -> Graph:
        """The same with convolutions that see the opposite edge instead of zeros. axes: of 'x' (left and right) and 'y'."""

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        """Run once; the arrays that come back are the caller's. Raises EngineError."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A component that is not exported: a network whose weights come in another layout.

    name: of the component. network: a name of ``components.CLASSES``. config: its configuration. inputs: by name, a usual
    shape (docs/networks.md), for the conversion to a graph. outputs: their names. variant: says what was done to the weights
    since they were read, so that a kept graph is never taken for another.
    """

    name: str
    network: str
    config: Any
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    variant: str = ""


class Engine(Protocol):
    """Opens components from a folder, or makes them of blueprints and weights."""

    @property
    def name(self) -> str:
        """ "openvino" or "torch", with device and precision: for people, and stored with pictures."""

    @property
    def precision(self) -> str:
        """The numbers it computes with: "f32", "bf16" or "f16"."""

    @property
    def beside(self) -> tuple[str, str]:
        """Device and dtype, torch's names, for modules that torch runs beside this engine's graphs."""

    def open(self, folder: Path, name: str) -> Graph:
        """Open ``<name>.safetensors`` (and ``<name>.xml``) strictly. Raises WeightsError if they do not fit."""

    def build(self, blueprint: Blueprint, tensors: Mapping[str, Array], source: Path) -> Graph:
        """Make the component of its weights, numpy arrays by the network's own names, strictly. Needs torch.

        source: the file that they come from, for messages. Raises WeightsError if they do not fit, MissingExtraError.
        """


@dataclass(frozen=True, slots=True)
class GraphNetwork:
    """A U-Net's graph as what ``diffusion.Denoiser`` is given: (x f32 (B, C, h, w), t f32 (B,), cond) → f32 (B, C', h, w).

    The conditioning's entries go to the inputs of the same names. What the graph does not take (``mask``, ``pooled``, …) is left
    out; what it takes and the conditioning lacks raises EngineError.
    """

    graph: Graph
    draft: Callable[[], Graph] | None = None
    """Opens the same for a few steps of one call each, if the model has it; always the same graph."""

    def __call__(self, x: Array, t: Array, cond: dict[str, Array], /) -> Array:
        given = {"x": x, "t": t} | {name: cond[name] for name in self.graph.inputs if name in cond}
        return self.graph(**given)["out"]

    def ready(self, rows: int, height: int, width: int) -> None:
        """Get ready for calls with x of (rows, C, height, width). Of exported networks alone: whose inputs are known, and small."""
        if "class" not in self.graph.metadata:
            return
        config = json.loads(self.graph.metadata["config"])
        shapes = {
            "x": (rows, config["in_channels"], height, width),
            "t": (rows,),
            "tokens": (rows, 1, config["context"]),
            "added": (rows, config.get("pooled") or 4 * config["width"]),
            "keep": (rows,),
        }
        self.graph.prepare(**{name: shapes[name] for name in self.graph.inputs})

    def tiled(self, axes: str) -> GraphNetwork:
        """See ``Graph.tiled``."""
        return GraphNetwork(self.graph.tiled(axes))

    @property
    def quick(self) -> GraphNetwork | None:
        """What drafts are drawn with, or None."""
        return None if self.draft is None else GraphNetwork(self.draft())


def check_names(graph: Graph, given: Mapping[str, Any]) -> None:
    """Raises EngineError unless ``given`` has exactly the graph's inputs."""
    if given.keys() != set(graph.inputs):
        raise EngineError(
            f"{graph.name} takes the inputs {', '.join(graph.inputs)}; given were {', '.join(given) or 'none'}"
        )
