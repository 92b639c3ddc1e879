"""Repeated training pictures stand out, new ones do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chashka.errors import FileError, TrainingError
from chashka.evaluation.cached import DrawnPictures, Order
from chashka.evaluation.drawing import Float
from chashka.evaluation.gallery import Gallery, galleries, titles
from chashka.evaluation.memory import memory_report
from toy_model import toy_bundle


class Copier(DrawnPictures):
    """Draws training pictures, number ``seed`` of a gallery, a little lighter."""

    gallery: Gallery

    def __call__(self, order: Order, on_picture: object = None) -> Float:
        return np.clip(self.gallery.pixels(order.seed) + 0.004, -1, 1)


class Cells:
    name = "cells"

    def features(self, pixels: Float) -> Float:
        b, c, h, w = pixels.shape
        return pixels.reshape(b, c, 8, h // 8, 8, w // 8).mean((3, 5)).reshape(b, -1)


def test_copies_stand_out_in_every_space(shards: Path, tmp_path: Path) -> None:
    training, held_out = galleries(shards)
    copier = Copier(toy_bundle(), tmp_path / "pictures")
    copier.gallery = training
    report = memory_report(copier, training, held_out, ["thing"] * 12, [Cells()], tmp_path)
    assert [m.space for m in report.spaces] == ["pixels", "cells"]
    for memory in report.spaces:
        assert memory.drawn.copied > 0.9 and memory.held_out.copied < 0.2
        assert memory.excess == memory.drawn.copied - memory.held_out.copied
        assert len(memory.closest) == 10
        assert all(pair.id == training.ids[pair.prompt] for pair in memory.closest)
        distances = [pair.distance for pair in memory.closest]
        assert distances == sorted(distances)
    stored = json.loads((tmp_path / "memory.json").read_text())
    assert stored["spaces"][0]["closest"][0]["licence"] == "CC0-1.0"
    with Image.open(tmp_path / "memory.png") as sheet:
        assert sheet.width > 10 * 160 and sheet.height > 4 * 160
    assert "| pixels | **excess** |" in (tmp_path / "memory.md").read_text()


def test_plain_colours_are_no_copies(shards: Path, tmp_path: Path) -> None:
    training, held_out = galleries(shards)
    drawn = DrawnPictures(toy_bundle(), tmp_path / "pictures", steps=1)
    seen: list[int] = []
    report = memory_report(drawn, training, held_out, ["a", "b"], [], tmp_path, on_picture=lambda: seen.append(1))
    assert len(seen) == 2 and report.spaces[0].drawn.copied == 0 and len(report.spaces[0].closest) == 2


def test_titles_come_from_the_manifest(shards: Path, tmp_path: Path) -> None:
    training, _ = galleries(shards)
    with pytest.raises(TrainingError, match=r"no title of made:"):
        titles(shards, training)  # the made manifest has empty titles
    with pytest.raises(FileError):
        titles(tmp_path, training)
