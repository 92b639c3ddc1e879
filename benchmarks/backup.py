"""How much slower submitting is while a backup is made: a server that draws, windows with and without `chashka backup`, in turns.

    python benchmarks/backup.py [WINDOWS] [SECONDS]

Two clients submit ten jobs a second each. The ratio is that of the 95th percentiles of all windows of a kind; how much the same
figure differs from window to window without any backup is printed beside it, and says what a ratio is worth.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = 300
CLIENTS = 2
PAUSE = 0.1
COMMAND = [sys.executable, "-c", "from chashka.cli import main; main()"]


def fill(url: str) -> None:
    """Pictures that a backup has to copy: noise, about 200 kB each."""
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (256, 256, 3), np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "png")
        body = (
            b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
            + data.getvalue()
            + b"\r\n--x--\r\n"
        )
        headers = {"content-type": "multipart/form-data; boundary=x", "x-chashka": "1"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/v1/images", body, headers)).close()


def submit(url: str, until: float, took: list[float]) -> None:
    """Jobs, one after the other, each at its time."""
    turn = time.monotonic()
    while turn < until:
        time.sleep(max(0.0, turn - time.monotonic()))
        body = json.dumps({"prompt": "чашка", "steps": 2}).encode()
        request = urllib.request.Request(f"{url}/v1/jobs", body, {"content-type": "application/json"})
        started = time.perf_counter()
        urllib.request.urlopen(request).read()
        took.append(1000 * (time.perf_counter() - started))
        turn += PAUSE


def window(url: str, seconds: float, backup: Path | None, data: Path) -> tuple[list[float], int]:
    """Milliseconds of every submission in a window, and how many copies were made in it."""
    took, until, copies = list[float](), time.monotonic() + seconds, 0
    clients = [threading.Thread(target=submit, args=(url, until, took)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    while backup is not None and time.monotonic() < until:
        subprocess.run(
            [*COMMAND, "backup", str(backup / f"{time.monotonic_ns()}"), "--data", str(data)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        copies += 1
    for client in clients:
        client.join()
    return took, copies


def p95(took: list[float]) -> float:
    return sorted(took)[int(0.95 * len(took))]


def main() -> None:
    windows, seconds = (int(sys.argv[1]) if len(sys.argv) > 1 else 8), (float(sys.argv[2]) if len(sys.argv) > 2 else 12)
    with tempfile.TemporaryDirectory() as folder:
        data, backups = Path(folder) / "data", Path(folder) / "backups"
        backups.mkdir()
        words = ["serve", "--data", str(data), "--port", "0", "--max-queue", "100000", "--submits-per-minute", "0"]
        server = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            fill(url)
            window(url, seconds, None, data)  # the model is loaded
            without, beside, copies = list[list[float]](), list[list[float]](), 0
            for _ in range(windows):
                without.append(window(url, seconds, None, data)[0])
                took, made = window(url, seconds, backups, data)
                beside.append(took)
                copies += made
        finally:
            server.terminate()
            server.wait(60)
    each = [p95(took) for took in without]
    alone, while_ = p95([ms for took in without for ms in took]), p95([ms for took in beside for ms in took])
    print(f"{copies} backups of {PICTURES} and more pictures in {windows} windows of {seconds:g} s; submitting, p95:")
    print(f"without {alone:.1f} ms (windows {min(each):.1f} to {max(each):.1f}, median {statistics.median(each):.1f})")
    print(f"beside {while_:.1f} ms: {while_ / alone:.2f} times")


if __name__ == "__main__":
    main()
