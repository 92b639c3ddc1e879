"""P15: whatever is sent, valid or not, no answer is a 5xx, and every answer is as the OpenAPI document says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serving_process import Running, running, tell

pytestmark = [pytest.mark.promise, pytest.mark.extra]

HERE = Path(__file__).parent
WANTED = int(os.environ.get("CHASHKA_SOAK_REQUESTS", "5000"))
DIALECTS = r"^/(sdapi|internal|controlnet|sd_extra_networks)/|^/v1/images/(generations|edits|variations)$"
"""Their clients' rules are not ours (mistakes answered with 200, fields passed over), so of them only a 5xx counts."""
OWN = {"exclude-path-regex": DIALECTS, "checks": "all", "exclude-checks": "use_after_free"}
"""A deleted picture can be restored: until it is gone for good it can be looked at, and made a favourite."""


def test_p15_no_answer_is_a_5xx(tmp_path: Path) -> None:
    flags = ("--submits-per-minute", 0, "--max-queue", 1_000_000)
    with running(tmp_path / "data", *flags) as server:
        token = json.loads((server.data / "server.json").read_text())["token"]
        seed = requests = 0
        while requests < WANTED:
            seed += 1
            for which in (OWN, {"include-path-regex": DIALECTS, "checks": "not_a_server_error"}):
                report = attack(server, token, seed, tmp_path, which)
                assert report.returncode == 0, report.stdout[-6000:]
            requests, broken = counted(server, token)
        alive = httpx.get(f"{server.url}/readyz", timeout=60).status_code
    tell("P15 requests", requests, f">= {WANTED}", requests >= WANTED)
    tell("P15 answers_5xx", broken, 0, broken == 0)
    tell("P15 alive_afterwards", alive, 200, alive == 200)


def attack(
    server: Running, token: str, seed: int, folder: Path, which: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """One run of schemathesis: the first with all its phases, others without those that never differ."""
    examples, phases = ("25", "examples,coverage,fuzzing,stateful") if seed == 1 else ("60", "fuzzing,stateful")
    options = {
        **which,
        "phases": phases,
        "max-examples": examples,
        "seed": str(seed),
        "workers": "1",  # two at a time parse lambdas, at which Python 3.11 fails now and then ("AST constructor recursion depth")
        "warnings": "off",
        "request-timeout": "60",
        "generation-database": "none",
    }
    line = [str(Path(sys.executable).with_name("st")), "--config-file", str(HERE / "schemathesis.toml"), "run"]
    line += [f"{server.url}/openapi.json", "--continue-on-failure", "--no-shrink", "--no-color"]
    line += [f"--{name}={value}" for name, value in options.items()]
    line += [f"--header=Authorization: Bearer {token}", "--header=X-Chashka: st"]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, timeout=1800)


def counted(server: Running, token: str) -> tuple[int, int]:
    """How many requests the server answered, and how many of them with a 5xx."""
    text = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {token}"}, timeout=60).text
    rows = re.findall(r'^chashka_http_requests_total\{.*status="(\d)\d\d"\} (\d+)$', text, re.MULTILINE)
    return sum(int(number) for _, number in rows), sum(int(number) for first, number in rows if first == "5")
