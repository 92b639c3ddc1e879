"""Servers and commands in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

STUB = Path(__file__).with_name("stub_server.py")


def command(*words: Any, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", "from chashka.cli import main; main()", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})})


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    data: Path

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(40)

    def submit(self, **said: Any) -> dict[str, Any]:
        found: dict[str, Any] = httpx.post(f"{self.url}/v1/jobs", json={"prompt": "x", **said}, timeout=60).json()
        return found

    def ended(self, id: str, seconds: float = 60) -> dict[str, Any]:
        """The job once it has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job: dict[str, Any] = httpx.get(f"{self.url}/v1/jobs/{id}", timeout=60).json()
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise AssertionError(job)


@contextlib.contextmanager
def running(data: Path, *words: Any, pause: float = 0.0, real: bool = False) -> Iterator[Running]:
    """A server in a process of its own, with a runner that paints in no time (``stub_server.py``), or the real one."""
    log = data.with_suffix(".log").open("a")
    start = ["-c", "from chashka.cli import main; main()", "serve"] if real else [str(STUB), str(pause)]
    line = [sys.executable, *start, "--data", str(data), "--port", "0", *map(str, words)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), data.with_suffix(".log").read_text()
        yield Running(process, url, data)
    finally:
        log.close()
        if process.poll() is None:
            process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def rss(server: Running) -> int:
    """Bytes that the serving process holds."""
    held: int = psutil.Process(server.process.pid).memory_info().rss
    return held


def tell(name: str, value: float | str, limit: float | str, good: bool) -> None:
    """The line of a promise, past pytest's own capture."""
    shown = f"{value:.1f}" if isinstance(value, float) else value
    print(f"{name} {shown} {limit} {'PASS' if good else 'FAIL'}", file=sys.__stdout__, flush=True)
    assert good, f"{name}: {shown}, allowed {limit}"
