"""A server for tests: the real application over a real store, with a runner that paints in no time."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import shlex
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from PIL import Image

from chashka.app import server
from chashka.app.compute.runner import Event, Made, Progress, Stop, Task
from chashka.app.compute.worker import Worker
from chashka.app.guard.shield import App
from chashka.app.kinds.results import made_of
from chashka.app.service import Service
from chashka.app.settings import Settings

T = TypeVar("T")
HOST = "http://127.0.0.1:8188"


class Quick:
    """Paints one colour per picture. pause: seconds of a step. gate: it waits for this before every step."""

    slots = 1

    def __init__(self, pause: float = 0.0, gate: threading.Event | None = None) -> None:
        self.pause, self.gate = pause, gate
        self.begun: list[str] = []

    def run(self, task: Task, stop: Stop) -> Iterator[Event]:
        self.begun.append(task.job)
        number, steps = task.fields.get("n", 1), task.fields.get("steps") or 2
        for index in range(number):
            if index in task.skip:
                continue
            for step in range(steps):
                while self.gate is not None and not self.gate.wait(0.02):
                    if stop() == "now":
                        return
                    yield Progress(index * steps + step, number * steps)
                if stop() == "now":
                    return
                time.sleep(self.pause)
                yield Progress(index * steps + step + 1, number * steps, {index: b"webp"})
            yield painted(task, index)
            if stop() == "after":
                return

    def close(self) -> None:
        pass


def painted(task: Task, index: int) -> Made:
    seed = task.fields.get("seed") or 0
    pixels = np.zeros((16, 24, 4), np.uint8)
    pixels[:] = (seed % 256, index * 40 % 256, seed // 256 % 256, 255)
    pixels[:8, :8, 3] = 0
    request = {"prompt": task.fields.get("prompt", ""), "seed": seed}
    about = {"family": "kandinsky", "model": "kandinsky-teacup", "request": request, "picture": index, "seed": seed}
    return made_of(pixels, png(pixels), "image/png", index, about)


def png(pixels: Any = None, **saved: Any) -> bytes:
    """A small PNG, by default with a transparent corner."""
    if pixels is None:
        pixels = np.full((20, 30, 4), 200, np.uint8)
        pixels[:5, :5, 3] = 0
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", **saved)
    return out.getvalue()


class Client:
    """httpx without a network, for tests that are not asynchronous: its loop runs in a thread of its own."""

    def __init__(self, app: App) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST, timeout=60)

    def request(self, method: str, url: str, **said: Any) -> httpx.Response:
        return self._wait(self._client.request(method, url, **said))

    def get(self, url: str, **said: Any) -> httpx.Response:
        return self.request("GET", url, **said)

    def post(self, url: str, **said: Any) -> httpx.Response:
        return self.request("POST", url, **said)

    def patch(self, url: str, **said: Any) -> httpx.Response:
        return self.request("PATCH", url, **said)

    def delete(self, url: str, **said: Any) -> httpx.Response:
        return self.request("DELETE", url, **said)

    def always(self, headers: dict[str, str]) -> None:
        """Send these with every request from now on."""
        self._client.headers.update(headers)

    def forget(self, header: str) -> None:
        """Send that no more; and no cookie."""
        self._client.headers.pop(header, None)
        self._client.cookies.clear()

    def close(self) -> None:
        self._wait(self._client.aclose())
        self._wait(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)


@dataclass
class Served:
    """A client and what is behind it."""

    client: Client
    service: Service
    worker: Worker
    settings: Settings
    app: App
    headers: dict[str, str] = field(default_factory=lambda: {"X-Chashka": "test"})

    def submit(self, expect: int = 202, **said: Any) -> dict[str, Any]:
        answer = self.client.post("/v1/jobs", json={"prompt": "чашка", **said})
        assert answer.status_code == expect, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, id: str, seconds: float = 20.0) -> dict[str, Any]:
        """The job once it has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job: dict[str, Any] = self.client.get(f"/v1/jobs/{id}").json()
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.02)
        raise AssertionError(f"{job} has not ended")

    def drawn(self, **said: Any) -> dict[str, Any]:
        """A finished job."""
        job = self.ended(self.submit(**said)["id"])
        assert job["state"] == "done", job
        return job

    def upload(self, data: bytes, expect: int = 201, **form: str) -> dict[str, Any]:
        files = {"file": ("cup.png", data, "image/png")}
        answer = self.client.post("/v1/images", files=files, data=form, headers=self.headers)
        assert answer.status_code == expect, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextlib.contextmanager
def serving(data: Path, runner: Any = None, *, work: bool = True, token: str = "", **said: Any) -> Iterator[Served]:
    """The application without a network. work: draw, too. said: settings."""
    settings = Settings(data=data, **{"submits_per_minute": 0, "uploads_per_minute": 0, **said})
    with server.opened(settings, token, runner or Quick()) as (service, worker):
        app = server.create(settings, service)
        if work:
            worker.start()
        client = Client(app)
        try:
            yield Served(client, service, worker, settings, app)
        finally:
            service.closing = True
            client.close()
            worker.drain(5.0)


def curl(served: Served, command: str, values: dict[str, str]) -> httpx.Response:
    """Do what curl would with this command."""
    text = re.sub(r"\$([A-Z_]+)", lambda found: values[found[1]], command.replace("\\\n", " "))
    words = shlex.split(text)[1:]
    method, url, headers, body, files = "", "", {}, None, None
    while words:
        word = words.pop(0)
        if word == "-X":
            method = words.pop(0)
        elif word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = words.pop(0).encode()
        elif word == "-F":
            name, _, file = words.pop(0).partition("=@")
            files = {name: (file, png(), "image/png")}
        elif word in ("-o", "-c", "-b"):
            words.pop(0)
        elif word != "-N":
            assert not url, word
            url = word.removeprefix(HOST)
    chosen = method or ("POST" if body is not None or files else "GET")
    return served.client.request(chosen, url, headers=headers, content=body, files=files)
