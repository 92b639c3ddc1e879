"""An engine without networks: the teacup's six components as small numpy functions under their real names and shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS = 16
PORTS = {
    "encoder": (("pixels",), ("moments",)),
    "decoder": (("latents",), ("pixels",)),
    "text_contrastive": (("ids", "mask"), ("tokens", "pooled")),
    "text_t5": (("ids", "mask"), ("tokens",)),
    "text_head": (("tokens1", "pooled1", "tokens2"), ("tokens", "added")),
    "unet": (("x", "t", "tokens", "added"), ("out",)),
    "upscaler": (("pixels",), ("enlarged",)),
}
METADATA: dict[str, dict[str, str]] = {
    "encoder": {"latent_scale": "0.5"},
    "decoder": {"latent_scale": "0.5", "config": json.dumps({"z_channels": CHANNELS})},
    "unet": {
        "config": json.dumps({"in_channels": CHANNELS}),
        "prediction": "flow",
        "schedule": json.dumps({"kind": "flow", "shift": 0.5}),
        "defaults": json.dumps({"steps": 6, "guidance_scale": 2.0, "sampler": "dpmpp_2m"}),
    },
    "upscaler": {"config": json.dumps({"width": 8, "blocks": 3})},
}


@dataclass
class FakeGraph:
    """One component; ``calls`` keeps what it was given."""

    name: str
    metadata: Mapping[str, str]
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[str, ...]:
        return PORTS[self.name][0]

    @property
    def outputs(self) -> tuple[str, ...]:
        return PORTS[self.name][1]

    def prepare(self, **_: Any) -> None:
        """Nothing to prepare."""

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        assert inputs.keys() == set(self.inputs)
        assert all(value.dtype in (np.float32, np.int64) for value in inputs.values())
        self.calls.append(inputs)
        return dict(zip(self.outputs, getattr(self, f"_{self.name}")(**inputs), strict=True))

    def _encoder(self, pixels: Any) -> tuple[Any]:
        b, _, h, w = pixels.shape
        cells = pixels.reshape(b, 4, h // 16, 16, w // 16, 16).mean(axis=(3, 5))
        mean = np.concatenate([cells, np.zeros((b, CHANNELS - 4, h // 16, w // 16), np.float32)], axis=1)
        return (np.concatenate([mean, np.full_like(mean, -30)], axis=1),)

    def _decoder(self, latents: Any) -> tuple[Any]:
        return (np.clip(latents[:, :4], -1, 1).repeat(16, axis=2).repeat(16, axis=3),)

    def _text_contrastive(self, ids: Any, mask: Any) -> tuple[Any, Any]:
        tokens = (ids[..., None] % np.arange(2, 258)).astype(np.float32) * mask[..., None]
        return tokens, tokens.sum(axis=1)

    def _text_t5(self, ids: Any, mask: Any) -> tuple[Any]:
        return ((ids[..., None] % np.arange(3, 195)).astype(np.float32) * mask[..., None],)

    def _text_head(self, tokens1: Any, pooled1: Any, tokens2: Any) -> tuple[Any, Any]:
        wide = np.pad(tokens2, ((0, 0), (0, 0), (0, 64)))
        return np.concatenate([tokens1, wide], axis=1), pooled1

    def _upscaler(self, pixels: Any) -> tuple[Any]:
        return (pixels.repeat(2, axis=2).repeat(2, axis=3),)

    def _unet(self, x: Any, t: Any, tokens: Any, added: Any, keep: Any = None) -> tuple[Any]:
        """ε - x0 of data that are one constant, decided by the text: v = (x - x0) / t."""
        constant = (added.mean(axis=1) % 1 - 0.5).reshape(-1, 1, 1, 1).astype(np.float32)
        return ((x[:, :CHANNELS] - constant) / (t.reshape(-1, 1, 1, 1) / 1000),)


class FakeEngine:
    """Opens components from nowhere. ``metadata`` replaces what the files would say."""

    name = "fake"
    precision = "f32"

    def __init__(self, metadata: Mapping[str, dict[str, str]] | None = None) -> None:
        self.metadata = METADATA if metadata is None else metadata
        self.graphs: dict[str, FakeGraph] = {}
        self.opened: set[Path] = set()

    def open(self, folder: Path, name: str) -> FakeGraph:
        self.opened.add(folder)
        self.graphs[name] = FakeGraph(name, self.metadata.get(name, {}))
        return self.graphs[name]
