"""The teacup's upscaler, opened when it is first asked for: drawing pays nothing for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from chashka.engines import Graph
from chashka.families.latents import Float
from chashka.nets.configs import UpscalerConfig, from_json


class Upscaler:
    """Pictures → pictures of twice the width and height. open: opens the component; it raises WeightsError."""

    def __init__(self, open: Callable[[], Graph]) -> None:
        self._open = open

    @cached_property
    def _graph(self) -> Graph:
        return self._open()

    @cached_property
    def reach(self) -> int:
        """Pixels around a place that decide it; from the stored configuration. Raises WeightsError without one."""
        return from_json(UpscalerConfig, self._graph.metadata.get("config", "")).reach

    def enlarge(self, pixels: Float) -> Float:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → (B, 4, 2H, 2W), not clamped."""
        enlarged: Float = self._graph(pixels=np.ascontiguousarray(pixels, dtype=np.float32))["enlarged"]
        return enlarged
