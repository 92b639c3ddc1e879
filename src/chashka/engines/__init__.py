"""Engines run networks: OpenVINO everywhere (the base install), torch on GPUs and for gradients (extra [torch])."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from chashka.engines.engine import Array, Blueprint, Engine, Graph, GraphNetwork
from chashka.errors import EngineError, MissingExtraError

__all__ = ["ENGINES", "Array", "Blueprint", "Engine", "Graph", "GraphNetwork", "open_engine"]

ENGINES = ("auto", "openvino", "torch")


def open_engine(
    name: str = "auto",
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Engine:
    """The engine of that name on ``device`` (None: its usual one).

    "auto" is torch for a device that only torch has (cuda, mps), openvino otherwise. precision and threads: None for
    the engine's choice; cache_dir: where openvino keeps what it compiled. Raises EngineError if it cannot run here,
    MissingExtraError if torch is asked for and not installed.
    """
    if name not in ENGINES:
        raise EngineError(f"engine {name!r} does not exist; use one of {', '.join(ENGINES)}")
    if name == "auto":
        name = "torch" if device and device.lower().partition(":")[0] in ("cuda", "mps") else "openvino"
    if name == "openvino":
        from chashka.engines.openvino_engine import OpenVINOEngine

        chosen = "CPU" if device in (None, "auto") else str(device).upper()
        return OpenVINOEngine(chosen, precision or "auto", threads, cache_dir)
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "the torch engine")
    from chashka.engines.torch_engine import TorchEngine

    return TorchEngine(device or "auto", precision or "auto")
