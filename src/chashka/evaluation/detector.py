"""The trained judges: components like those of a model, two of them in the package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import chashka
from chashka.checkpoints.safetensors_file import sha256
from chashka.data.composed_words import EMOJI
from chashka.engines import Engine
from chashka.errors import TrainingError
from chashka.evaluation.detections import Maps, maps_of
from chashka.evaluation.drawing import Float, shrunk

NAME = "judge"
"""The component's."""
FIGURES = ("threshold", "strict", "tested", "precision", "recall", "counts", "scenes")
"""What a judge's file says of itself; see :class:`About`."""
JUDGES = {name: Path(chashka.__file__).parent / "teacup" / name for name in ("judge_a", "judge_b")}
"""The folders of those in the package: A reports, B chooses and tunes (docs/decisions/004-judges-of-other-vendors.md)."""


@dataclass(frozen=True, slots=True)
class About:
    """What a report says of a judge: its name, sha256, the sources that it learnt from, and how it did on those it did not.

    ``perfect``: by task, the share of perfect pictures of the report prompts that it gets right, and ``other``: of pictures of
    another prompt; empty where nobody looked.
    ``precision`` and ``recall`` of things; ``counts`` and ``scenes``: shares of ``tested`` perfect scenes that it gets right
    (``training.judge.JudgeTask.look``).
    """

    name: str
    sha256: str
    sources: tuple[str, ...]
    threshold: float
    strict: float
    tested: int
    precision: float
    recall: float
    counts: float
    scenes: float
    perfect: Mapping[str, float] = field(default_factory=dict)
    other: Mapping[str, float] = field(default_factory=dict)


class Detector(Protocol):
    """Whatever finds the grammar's things in pictures; labels are rows of ``data/nouns.tsv``."""

    @property
    def about(self) -> About:
        """For reports; its thresholds are what detections are taken with."""

    def look(self, pixels: Float) -> Sequence[Maps]:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → its maps of each."""


class TrainedDetector:
    """The network of the stage 'judge', as ``chashka export --judge`` writes it."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        """folder: of the component. Raises WeightsError, and TrainingError for a judge of another grammar."""
        self._graph = engine.open(folder, NAME)
        told = self._graph.metadata
        if json.loads(told.get("emoji", "null")) != list(EMOJI):
            raise TrainingError(f"{folder}: knows other things than this grammar; train the judge again")
        self._side = int(json.loads(told["config"])["side"])
        figures = json.loads(told["figures"])
        self.name = folder.name
        self.about = About(
            self.name,
            sha256(folder / f"{NAME}.safetensors"),
            tuple(json.loads(told["recipe"])["sources"]),
            **{key: figures[key] for key in FIGURES if key != "tested"},
            tested=int(figures["tested"]),
            perfect=json.loads(told.get("perfect", "{}")),
            other=json.loads(told.get("other", "{}")),
        )

    def look(self, pixels: Float) -> list[Maps]:
        """float32 (B, 4, H, W), premultiplied in [-1, 1], H = W a multiple of the network's side → maps of each."""
        return maps_of(self._graph(pixels=shrunk(pixels, self._side)))

    def features(self, pixels: Float) -> Float:
        """(B, D): what its backbone says of whole pictures (see ``distribution.Features``)."""
        found: Float = self._graph(pixels=shrunk(pixels, self._side))["features"]
        return found
