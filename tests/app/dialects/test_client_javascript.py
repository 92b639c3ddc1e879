"""Clients in JavaScript against a real server: ``openai``, ``ai`` with ``@ai-sdk/openai`` (tests/clients)."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialect_server import RED, Served, colour, from_base64, png, serving

from chashka.app.compute.inprocess import InProcess
from chashka.app.compute.models import Models
from chashka.app.settings import Settings

pytestmark = pytest.mark.extra

CLIENTS = Path(__file__).parents[2] / "clients"
STAMP = CLIENTS / "node_modules" / ".chashka-lock"


@pytest.fixture(scope="module")
def installed() -> None:
    """The packages of the lock file, in a folder that git ignores; installed again when the lock file changed."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found; as root: apt-get install nodejs npm")
    lock = hashlib.sha256((CLIENTS / "package-lock.json").read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == lock:
        return
    done = subprocess.run(["npm", "ci"], cwd=CLIENTS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    STAMP.write_text(lock, encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("javascript"), listen=True) as running:
        yield running


def run(script: str, *arguments: str) -> dict[str, Any]:
    """What a script of tests/clients prints."""
    done = subprocess.run(["node", script, *arguments], cwd=CLIENTS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_lock_file_names_no_hosts() -> None:
    lock = (CLIENTS / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock and '"integrity"' in lock


def test_openai(installed: None, served: Served, tmp_path: Path) -> None:
    mask = np.full((24, 40, 4), 255, np.uint8)
    mask[:, :20, 3] = 0
    (tmp_path / "cup.png").write_bytes(png())
    (tmp_path / "mask.png").write_bytes(png(mask))
    said = run("openai.mjs", served.url, str(tmp_path / "cup.png"), str(tmp_path / "mask.png"))
    generated = said["generate"]
    assert generated["size"] == "256x256" and generated["seeds"] == [7, 7] and generated["numbers"] == [0, 1]
    assert generated["type"] == "image/png" and generated["bytes"] > 1000
    pixels = from_base64(said["edit"])
    assert (pixels[:, :20] == RED).all() and (pixels[:, 20:] == (0, 160, 0, 255)).all()
    assert said["several"] == 1 and said["variation"] == 2
    assert said["events"][-1] == "image_generation.completed" and len(said["events"]) <= 3
    assert tuple(from_base64(said["streamed"])[-1, -1]) == colour(9, 0)
    assert "kandinsky-teacup" in said["models"]
    assert said["wrong"] == {
        "name": "BadRequestError",
        "status": 400,
        "code": "invalid_value",
        "param": "width",
        "type": "invalid_request_error",
    }
    assert said["lost"]["name"] == "NotFoundError" and said["lost"]["code"] == "model_not_found"


def test_ai_sdk(installed: None, served: Served) -> None:
    before = len(served.jobs())
    said = run("ai.mjs", served.url)
    jobs = served.jobs()[before:]
    assert [job.fields["n"] for job in jobs[:2]] == [1, 1] and jobs[0].fields["seed"] != jobs[1].fields["seed"]
    pictures = [from_base64(text) for text in said["images"]]
    assert pictures[0].shape == (256, 256, 4) and not (pictures[0] == pictures[1]).all()
    assert said["types"] == ["image/png"] * 2
    assert from_base64(said["one"]).shape[2] == 4 and jobs[2].fields["background"] == "white"
    assert said["error"]["status"] == 404 and "kandinsky-teapot" in said["error"]["message"]


def test_ai_and_the_model_in_the_package(installed: None, tmp_path: Path) -> None:
    """What a page's author gets: pictures that were drawn, two of two seeds, and an opaque one."""
    with serving(tmp_path, InProcess(Models(Settings(data=tmp_path, runner="thread"))), listen=True) as running:
        said = run("ai.mjs", running.url)
    first, second = (from_base64(data) for data in said["images"])
    assert first.shape == second.shape == (256, 256, 4) and said["types"] == ["image/png"] * 2
    assert (first != second).any() and all(len(np.unique(picture[..., 0])) > 20 for picture in (first, second))
    assert (first[0, 0, 3], from_base64(said["one"])[..., 3].min()) == (0, 255)
