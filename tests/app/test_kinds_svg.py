"""Tracing as a job: an SVG file that says what its picture does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chashka import images
from chashka.app import kinds
from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.compute.runner import Made, Task
from chashka.app.settings import Settings
from chashka.request import Picture, Request

pytestmark = pytest.mark.extra


def test_a_picture_becomes_curves(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (200, 30, 30, 255)
    request = Request(prompt="красный квадрат", seed=5)
    images.save(Picture(pixels, 5, 0, request, (), "toy-plain", "toy"), tmp_path / "a.png")
    file = (tmp_path / "a.png").rename(tmp_path / "blob")
    fields = kinds.check("svg", {}, {"init": (64, 64)}, Settings()).fields
    runner = InProcess(Models(Settings()))
    found = [
        [one for one in runner.run(Task("job", "svg", fields, {"init": file}), lambda: "") if isinstance(one, Made)]
        for _ in range(2)
    ]
    (one,) = found[0]
    assert found[0] == found[1]  # the same bytes every time
    assert b"<path" in one.data and one.data.startswith(b"<?xml")
    picture = one.picture
    assert (picture.media_type, picture.width, picture.prompt, picture.seed) == (
        "image/svg+xml",
        64,
        "красный квадрат",
        5,
    )
    (tmp_path / "a.svg").write_bytes(one.data)
    assert images.read_metadata(tmp_path / "a.svg") == dict(picture.metadata)
