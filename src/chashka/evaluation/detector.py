"""The trained judge, opened from the weights that ``chashka train judge`` leaves. Needs the extra [torch]."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from chashka.data.composed_words import EMOJI
from chashka.errors import FileError, MissingExtraError, TrainingError
from chashka.evaluation.detections import Maps
from chashka.evaluation.drawing import Float, shrunk


@dataclass(frozen=True, slots=True)
class About:
    """What a report says of a judge: file, sha256, the sources that it learnt from, and how it did on those it did not.

    ``precision`` and ``recall`` of things; ``counts`` and ``scenes``: shares of ``tested`` perfect scenes that it gets right
    (docs/guides/evaluate.md).
    """

    file: str
    sha256: str
    sources: tuple[str, ...]
    threshold: float
    strict: float
    tested: int
    precision: float
    recall: float
    counts: float
    scenes: float


class Detector(Protocol):
    """Whatever finds the grammar's things in pictures; labels are rows of ``data/nouns.tsv``."""

    @property
    def about(self) -> About:
        """For reports; its thresholds are what detections are taken with."""

    def look(self, pixels: Float) -> Sequence[Maps]:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → its maps of each."""


class TrainedDetector:
    """The network of the stage 'judge'."""

    name = "judge"

    def __init__(self, average: Path) -> None:
        """Raises MissingExtraError, FileError, and TrainingError for other weights or those of another grammar."""
        try:
            import torch
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise MissingExtraError("torch", "the judge") from None
        from chashka.nets.configs import JudgeConfig
        from chashka.nets.judge import JudgeNet

        try:
            with safe_open(average, framework="pt") as file:
                metadata = file.metadata() or {}
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            digest = hashlib.sha256(average.read_bytes()).hexdigest()
        except (OSError, SafetensorError) as error:
            raise FileError(f"{average}: cannot be read as a judge's weights ({error})") from error
        recipe = json.loads(metadata.get("recipe", "{}"))
        if recipe.get("stage") != "judge" or "emoji" not in metadata or "threshold" not in metadata:
            raise TrainingError(
                f"{average}: not the averaged weights of the stage 'judge'; train it: chashka train judge"
            )
        if json.loads(metadata["emoji"]) != list(EMOJI):
            raise TrainingError(f"{average}: knows other things than this grammar; train the judge again")
        self._torch = torch
        self._network = JudgeNet(JudgeConfig(**recipe["network"])).eval()
        try:
            self._network.load_state_dict({name.removeprefix("judge/"): value for name, value in weights.items()})
        except RuntimeError as error:
            raise TrainingError(f"{average}: the network is not the one of its recipe ({error})") from error
        figures = {k: float(metadata[k]) for k in ("threshold", "strict", "precision", "recall", "counts", "scenes")}
        tested, sources = int(metadata.get("tested", "0")), tuple(recipe["sources"])
        self.about = About(average.name, digest, sources, tested=tested, **figures)

    def look(self, pixels: Float) -> list[Maps]:
        """float32 (B, 4, H, W), premultiplied in [-1, 1], H = W a multiple of the network's side → maps of each."""
        torch = self._torch
        with torch.inference_mode():
            seen = self._network(torch.from_numpy(shrunk(pixels, self._network.cfg.side)))
            heat, mask = seen.heat().numpy(), seen.mask.clone()
            mask[:, 0] = torch.sigmoid(mask[:, 0])
        return [Maps(*maps) for maps in zip(heat, seen.box.numpy(), mask.numpy(), strict=True)]

    def features(self, pixels: Float) -> Float:
        """(B, D): what its backbone says of whole pictures (see ``distribution.Features``)."""
        with self._torch.inference_mode():
            found = self._network.features(self._torch.from_numpy(shrunk(pixels, self._network.cfg.side)))
        return np.ascontiguousarray(found.numpy(), np.float32)
