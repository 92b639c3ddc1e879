"""The trained judge: loaded from an average as training writes it, and refused where it does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from chashka.errors import FileError, TrainingError
from chashka.evaluation.judge import PrototypeJudge
from chashka.evaluation.metrics import recognition_report
from chashka.evaluation.prompts import PROMPTS
from chashka.nets.configs import ImageTowerConfig
from chashka.nets.image_tower import ImageTower
from toy_model import toy_bundle

pytestmark = pytest.mark.torch
CONCEPTS = ("emoji:1f34e", "emoji:1f98a", "emoji:1f994", "other:a", "other:b", "other:c")
TINY = {"in_channels": 4, "width": 16, "blocks": 1, "pooled": 8, "norm_groups": 4}


@pytest.fixture(scope="module")
def average(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tower = ImageTower(ImageTowerConfig(**TINY))
    tensors = {f"picture/{key}": value for key, value in tower.state_dict().items()}
    tensors |= {"prototypes/concept": F.normalize(torch.randn(6, 8), dim=-1)}
    tensors |= {"prototypes/styled": torch.zeros(6, 2, 8), "prototypes/anchor": torch.zeros(8)}
    path = tmp_path_factory.mktemp("picture") / "average.safetensors"
    save_file(tensors, path, {"recipe": json.dumps({"stage": "picture", "network": TINY}), "step": "1"})
    return path


def test_scores_are_the_cosines_that_training_computes(average: Path) -> None:
    torch.set_num_threads(1)
    from chashka.training.components import load_component
    from chashka.training.picture import Said

    judge = PrototypeJudge(average, CONCEPTS)
    tower = load_component(ImageTower(ImageTowerConfig(**TINY)), average, "picture").eval()
    said = load_component(Said(6, 2, 8), average, "prototypes")
    small = np.random.default_rng(0).uniform(-1, 1, (70, 4, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        wanted = (F.normalize(tower(torch.from_numpy(small)), dim=-1) @ said.concept.T).numpy()
    found = judge.scores(small)
    assert found.shape == (70, 6)
    assert np.abs(found - wanted).max() < 1e-5


def test_it_judges_drawings(average: Path) -> None:
    prompts = [prompt for prompt in PROMPTS if prompt.concept in CONCEPTS]
    report = recognition_report(toy_bundle(), PrototypeJudge(average, CONCEPTS), prompts=prompts, steps=1)
    assert report.concepts == 6
    assert [verdict.seed for verdict in report.verdicts] == [prompt.seed for prompt in prompts]
    assert all(1 <= verdict.rank <= 6 and len(verdict.seen) == 5 for verdict in report.verdicts)


def test_other_files_are_refused(average: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        PrototypeJudge(tmp_path / "absent.safetensors", CONCEPTS)
    other = tmp_path / "other.safetensors"
    save_file({"unet/x": torch.zeros(1)}, other, {"recipe": "{}"})
    with pytest.raises(TrainingError, match="not the averaged weights of the stage 'picture'"):
        PrototypeJudge(other, CONCEPTS)
    with pytest.raises(TrainingError, match="knows 6 concepts, the shards 2"):
        PrototypeJudge(average, CONCEPTS[:2])
