"""The process that trains is really the trainer: it reads the names that a job says, and answers in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chashka.app import kinds
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.runner import Task, TaskError
from chashka.app.settings import Settings

pytestmark = pytest.mark.torch


def test_the_trainer_answers(tmp_path: Path) -> None:
    assert torch.__version__
    (tmp_path / "training" / "shards" / "empty").mkdir(parents=True)
    settings = Settings(data=tmp_path)
    fields = kinds.check("train", {"stage": "autoencoder", "data": "empty"}, {}, settings).fields
    with pytest.raises(TaskError) as caught:
        list(InProcess(Models(settings)).run(Task("job", "train", fields), lambda: ""))
    assert caught.value.problem.code == "training" and "empty" in caught.value.problem.message
