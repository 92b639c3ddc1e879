"""The judges inside the package, with the weights that are shipped: independent of the model, and able to see what it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chashka import families
from chashka.engines import open_engine
from chashka.evaluation.cached import DrawnPictures
from chashka.evaluation.composition import composition_report
from chashka.evaluation.detector import JUDGES, TrainedDetector
from chashka.evaluation.drawing import left_out


@pytest.fixture(scope="module")
def judges() -> dict[str, TrainedDetector]:
    engine = open_engine("openvino", precision="f32", threads=1)
    return {name: TrainedDetector(folder, engine) for name, folder in JUDGES.items()}


@pytest.mark.parametrize("model", ["kandinsky-teacup", "stable_diffusion-teacup"])
def test_the_reporting_judge_learnt_from_what_no_model_saw(judges: dict[str, TrainedDetector], model: str) -> None:
    kept = set(left_out(families.load(model, precision="f32", threads=1)))
    assert set(judges["judge_a"].about.sources) <= kept
    assert not set(judges["judge_b"].about.sources) & kept


def test_a_graph_from_the_cache_says_the_same(judges: dict[str, TrainedDetector], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 4, 128, 128)).astype(np.float32)
    for name, judge in judges.items():
        first = judge.look(pixels)[0]
        for _ in range(2):  # the first of them writes the cache
            engine = open_engine("openvino", precision="f32", threads=1, cache_dir=tmp_path)
            again = TrainedDetector(JUDGES[name], engine).look(pixels)[0]
            for part in ("heat", "box", "mask"):
                np.testing.assert_allclose(getattr(again, part), getattr(first, part), atol=1e-5)


def test_they_say_how_good_they_are(judges: dict[str, TrainedDetector]) -> None:
    for judge in judges.values():
        about = judge.about
        assert about.tested >= 300 and 0.5 < about.recall < 1 and 0.5 < about.precision < 1
        assert 0 < about.threshold <= about.strict < 1


def test_they_recognise_what_is_drawn(judges: dict[str, TrainedDetector], tmp_path: Path) -> None:
    """Two prompts of each task, as drafts; the table proper is on the model's page."""
    drawn = DrawnPictures(families.load(precision="f32", threads=1), tmp_path, fast=True)
    report = composition_report(drawn, judges["judge_a"], second=judges["judge_b"], which="dev", limit=28)
    table = report.tables[0]
    assert report.judge_unseen and table.tasks["single"].trials == 4
    assert table.tasks["single"].share >= 0.5 and table.overall.share > 0.1
    assert table.second is not None and table.second.share > 0.1
