"""The server's log: JSON lines whoever speaks, and never what somebody wrote."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chashka.app import logs
from chashka.app.compute.child import Child
from chashka.app.compute.runner import DiedError, Task, TaskError
from chashka.app.settings import Settings

CANARY = "канарейка в чашке"


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What the application logs meanwhile, as the server would write it."""
    found: list[dict[str, Any]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(self.format(record)))

    handler, logger = Kept(), logging.getLogger("chashka")
    handler.setFormatter(logs.Lines())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    import os

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    made = Child(Settings(memory=2_000_000_000, hang=60.0), "stub_kinds")
    yield made
    made.close()


def test_an_error_that_quotes_a_prompt_is_logged_without_it(child: Child, lines: list[dict[str, Any]]) -> None:
    """Its type and its places are there, so that it can be found."""
    with pytest.raises(TaskError) as caught:
        list(child.run(Task("job", "draw", {"do": "quote", "prompt": CANARY}), lambda: ""))
    assert caught.value.problem.code == "internal" and CANARY not in caught.value.problem.message
    (line,) = (one for one in lines if one["level"] == "error")
    assert line["error"] == "ValueError" and any("stub_kinds.py" in place for place in line["where"])
    assert CANARY not in json.dumps(lines, ensure_ascii=False)


def test_what_a_dying_process_printed_is_not_in_the_log(child: Child, lines: list[dict[str, Any]]) -> None:
    with pytest.raises(DiedError):
        list(child.run(Task("job", "draw", {"do": "say", "prompt": CANARY}), lambda: ""))
    assert any("exit code 3" in one["event"] for one in lines)
    assert CANARY not in json.dumps(lines, ensure_ascii=False)


def test_a_process_that_cannot_start_says_where(lines: list[dict[str, Any]]) -> None:
    child = Child(Settings(memory=2_000_000_000), "there_is_no_such_module")
    with pytest.raises(DiedError):
        list(child.run(Task("job", "draw", {}), lambda: ""))
    child.close()
    assert any(one.get("error") == "ModuleNotFoundError" for one in lines)


def test_other_libraries_and_warnings_are_json_lines_without_words() -> None:
    program = f"""
import asyncio, gc, logging, threading, warnings
from chashka.app import logs
logs.start()
logs.start()
async def failing():
    raise ValueError({CANARY!r})
async def main():
    asyncio.ensure_future(failing())
    await asyncio.sleep(0.01)
    gc.collect()
asyncio.run(main())
warnings.warn({CANARY!r}, RuntimeWarning)
logging.getLogger("somebody.else").error("it was %s", {CANARY!r})
thread = threading.Thread(target=lambda: int({CANARY!r}), name="working")
thread.start()
thread.join()
logs.log("ours", number=3)
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["event"] for line in lines] == [
        "a library's message",
        "a warning",
        "a library's message",
        "a thread failed",
        "ours",
        "Invalid HTTP request received.",
    ]
    assert (lines[0]["logger"], lines[0]["error"]) == ("asyncio", "ValueError")
    assert lines[1]["error"] == "RuntimeWarning" and lines[1]["where"][0].startswith("<string>:")
    assert lines[2]["logger"] == "somebody.else" and lines[3]["error"] == "ValueError"
    assert CANARY not in result.stderr
