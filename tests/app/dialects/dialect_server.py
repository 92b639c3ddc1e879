"""A server for the dialects' tests: the real application over a real store, with a painter that shows what it was asked for.

It paints in no time: noise in a frame of the seed's colour; where a mask is white, red over the given
picture. So a test sees in the pixels which seed drew a picture, and which part of it was drawn anew.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import shlex
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from chashka import families, images
from chashka.app import server
from chashka.app.compute.runner import Event, Progress, Remark, Stop, Task, TaskError
from chashka.app.jobs import Problem
from chashka.app.kinds.results import made, webp
from chashka.app.service import Service
from chashka.app.settings import Settings
from chashka.checkpoints import write
from chashka.request import Picture, Source

HOST = "http://127.0.0.1:8188"
RED = (255, 0, 0, 255)
ROOT = "/sdapi/v1"


class Painter:
    """A runner. gate: it waits for this before every step. tasks: what it was given. fails: the problem of every task.

    models: the server's folder of models.
    """

    slots = 1

    def __init__(self, gate: threading.Event | None = None, fails: Problem | None = None) -> None:
        self.gate, self.fails = gate, fails
        self.tasks: list[Task] = []
        self.models: Path | None = None

    def run(self, task: Task, stop: Stop) -> Iterator[Event]:
        self.tasks.append(task)
        if self.fails is not None:
            raise TaskError(self.fails)
        if task.kind == "upscale":
            raise TaskError(Problem("weights", "model 'kandinsky-teacup' has no upscaler"))
        pictures, steps = task.fields.get("n", 1), task.fields.get("steps") or 4
        for index in range(pictures):
            picture = self.painted(task, index)
            small = webp(images.resize(picture.pixels, 16, 16))
            for step in range(steps):
                while self.gate is not None and not self.gate.wait(0.02):
                    if stop():
                        return
                    yield Progress(index * steps + step, pictures * steps, {index: small})
                if stop() == "now":
                    return
                yield Progress(index * steps + step + 1, pictures * steps, {index: small})
            yield made(picture, index)
        yield Remark("painted by a test")

    def painted(self, task: Task, index: int) -> Picture:
        """A picture in the seed's colour, or the given one with the mask in red."""
        options = families.options(task.fields["model"], self.models)
        known = {name: value for name, value in task.fields.items() if name in options.model_fields}
        request = options(**known).filled({"steps": 4, "guidance_scale": 3.0, "sampler": "dpmpp_2m"})
        sources: tuple[Source, ...] = ()
        if "init" in task.inputs:
            pixels = images.read(task.inputs["init"]).copy()
            sources = (Source("init", pixels.shape[1], pixels.shape[0], hashlib.sha256(pixels.tobytes()).hexdigest()),)
            if "mask" in task.inputs:
                mask, _ = images.fit_mask(images.read_mask(task.inputs["mask"]), pixels.shape[1], pixels.shape[0])
                pixels[mask > 0.5] = RED
        else:
            width, height = request.width or request.height or 64, request.height or request.width or 64
            pixels = np.zeros((height, width, 4), np.uint8)
            pixels[:] = colour(request.seed or 0, index + request.first)
            pixels[8:-8, 8:-8, :3] = np.random.default_rng(request.seed or 0).integers(
                0, 256, (height - 16, width - 16, 3)
            )
            pixels[:8, :8, 3] = 0
        model = str(task.fields["model"])
        return Picture(pixels, request.seed or 0, index, request, (), model, "kandinsky", bool(sources), sources)

    def close(self) -> None:
        pass


def colour(seed: int, picture: int) -> tuple[int, int, int, int]:
    """What the painter paints for a seed and a picture's number."""
    return seed % 256, seed // 256 % 256, picture * 40 % 256, 255


def models_folder(folder: Path) -> Path:
    """Models of a server: ``sd``, which looks like a Stable Diffusion as far as a look goes."""
    folder.mkdir()
    name = "model.diffusion_model.input_blocks.0.0.weight"
    write(folder / "sd.safetensors", {name: np.zeros((4, 4), np.float32)}, {})
    return folder


def png(pixels: Any = None) -> bytes:
    """A PNG; by default plain green, 40 x 24 pixels."""
    if pixels is None:
        pixels = np.zeros((24, 40, 4), np.uint8)
        pixels[:] = (0, 160, 0, 255)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pixels_of(data: bytes) -> Any:
    """uint8 (H, W, 4) of a file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def from_base64(text: str) -> Any:
    """The same of base64."""
    return pixels_of(base64.b64decode(text, validate=True))


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Served:
    """A server. url: where it listens, if it does."""

    service: Service
    painter: Painter
    settings: Settings
    client: TestClient
    url: str = ""
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": "Bearer none"})

    def post(self, path: str, status: int = 200, headers: dict[str, str] | None = None, **said: Any) -> Any:
        """The answer to JSON."""
        answer = self.client.post(path, json=said, headers=headers or {})
        assert answer.status_code == status, answer.text
        return answer.json()

    def form(self, path: str, files: Any, status: int = 200, **said: str) -> Any:
        """The answer to a form."""
        answer = self.client.post(path, data=said, files=files, headers=self.headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, status: int = 200) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == status, answer.text
        return answer.json()

    def jobs(self) -> list[Any]:
        """All jobs, the oldest first."""
        return sorted(self.service.store.jobs.list(limit=200), key=lambda job: job.id)

    def waits_for(self, what: Any, seconds: float = 20.0) -> None:
        """Until ``what()`` is true."""
        until = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < until, "it did not become true"
            time.sleep(0.01)


def drawn(served: Served, path: str = "txt2img", **said: Any) -> tuple[list[Any], dict[str, Any]]:
    """(pixels of each picture, info) of a request."""
    answer = served.post(f"{ROOT}/{path}", **said)
    assert isinstance(answer["info"], str)
    return [from_base64(text) for text in answer["images"]], json.loads(answer["info"])


def warnings(info: dict[str, Any]) -> str:
    return "\n".join(info["extra_generation_params"].get("Warnings", []))


class Run:
    """A request in a thread of its own, to a server that listens."""

    def __init__(self, served: Served, **said: Any) -> None:
        import httpx

        self.answer: Any = None

        def ask() -> None:
            self.answer = httpx.post(f"{served.url}{ROOT}/txt2img", json=said, timeout=60)

        self.thread = threading.Thread(target=ask, daemon=True)
        self.thread.start()

    def ended(self) -> Any:
        self.thread.join(30)
        assert self.answer is not None and self.answer.status_code == 200, self.answer and self.answer.text
        return self.answer.json()


@contextlib.contextmanager
def serving(
    data: Path, painter: Any = None, *, listen: bool = False, work: bool = True, **said: Any
) -> Iterator[Served]:
    """The application; with ``listen`` on a port of its own. said: settings."""
    settings = Settings(data=data, **{"submits_per_minute": 0, "uploads_per_minute": 0, **said})
    paints = painter or Painter()
    paints.models = settings.models
    with server.opened(settings, "", paints) as (service, worker):
        app = server.create(settings, service)
        if work:
            worker.start()
        client = TestClient(app, base_url=HOST)
        try:
            if listen:
                with listening(app) as url:
                    yield Served(service, paints, settings, client, url)
            else:
                yield Served(service, paints, settings, client)
        finally:
            service.closing = True
            worker.drain(5.0)


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of a real server in a thread."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not running.started:
            assert time.monotonic() < until and thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(10)
        bound.close()


def curl(client: TestClient, command: str, files: dict[str, bytes]) -> Any:
    """What a curl command of a document says, asked of ``client``. files: by the names that the command uses (``@cup.png``)."""
    parts = shlex.split(command.replace("\\\n", " ").replace("$CHASHKA", ""))
    assert parts[0] == "curl", command
    method, path, headers, body, form, sent = None, "", {}, None, {}, []
    rest = iter(parts[1:])
    for part in rest:
        if part == "-X":
            method = next(rest)
        elif part == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif part == "-d":
            body = next(rest).encode()
        elif part == "-F":
            name, _, value = next(rest).partition("=")
            if value.startswith("@"):
                sent.append((name, (value[1:], files[value[1:]], "application/octet-stream")))
            else:
                form[name] = value
        elif part == "-u":
            user, _, password = next(rest).partition(":")
            headers["Authorization"] = "Basic " + to_base64(f"{user}:{password}".encode())
        elif not part.startswith("-"):
            path = part
    method = method or ("POST" if body is not None or form or sent else "GET")
    return client.request(method, path, headers=headers, content=body, data=form or None, files=sent or None)
