"""A judge's finished run as a component of its own: ``judge.safetensors`` and its graph, with what it knows and how it did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from chashka.engines import open_engine
from chashka.engines.export import export_component
from chashka.errors import TrainingError
from chashka.evaluation.detector import FIGURES, NAME, TrainedDetector
from chashka.nets.judge import JudgeNet, Seen
from chashka.training.components import metadata_of, recipe_of
from chashka.training.judge_perfect import measure
from chashka.training.recipes import JudgeRecipe
from chashka.training.ship import provenance, ready


def ship_judge(
    average: Path,
    out: Path,
    precision: str = "int8",
    shards: Path | None = None,
    on_picture: Callable[[], object] | None = None,
) -> Path:
    """Write the component into ``out``; returns the file of its weights. The same run gives the same bytes.

    shards: what is written is shown perfect pictures made of these, which choose its thresholds, and says how many it gets right.
    Raises TrainingError for weights of another stage, or of a run that was never measured.
    """
    recipe = recipe_of(average, NAME)
    if not isinstance(recipe, JudgeRecipe):
        raise TrainingError(f"{average}: not of the stage judge")
    told = metadata_of(average, NAME)
    if missing := [key for key in ("emoji", *FIGURES) if key not in told]:
        raise TrainingError(f"{average}: does not say its {missing[0]}; train it on for a moment: chashka train judge")
    cfg = recipe.network
    figures = json.dumps({key: float(told[key]) for key in FIGURES})
    metadata = {"emoji": told["emoji"], "figures": figures} | provenance(average, NAME)

    def write() -> Path:
        return export_component(
            ready(JudgeNet, cfg, average, NAME),
            NAME,
            {"pixels": torch.zeros(2, cfg.in_channels, cfg.side, cfg.side)},
            ["pixels"],
            list(Seen._fields),
            out,
            metadata,
            precision=precision,
        ).weights

    written = write()
    if shards is not None:
        judge = TrainedDetector(out, open_engine(precision="f32"))
        found = measure(judge, shards, on_picture)
        metadata |= {"perfect": json.dumps(found.perfect), "other": json.dumps(found.other)}
        chosen = {"threshold": found.threshold, "strict": found.strict}
        metadata["figures"] = json.dumps(json.loads(figures) | chosen)
        written = write()
    return written
