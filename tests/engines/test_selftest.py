"""The bf16 self-test: what it answers for good, wrong, crashing and silent children, and that it asks once."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from chashka.engines import selftest
from chashka.engines.openvino_engine import OpenVINOEngine
from chashka.errors import EngineError


@pytest.fixture(autouse=True)
def forgetful() -> None:
    selftest._ask_child.cache_clear()


def child(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> Path:
    """Put a program in the place of Python; returns the file to which it adds a line per call."""
    calls, program = folder / "calls", folder / "child"
    program.write_text(f"#!{sys.executable} -I\nopen({str(calls)!r}, 'a').write('called\\n')\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(selftest.sys, "executable", str(program))
    return calls


COSINES = {"matmul": 0.99999, "attention": 0.9999}
TAKEN = {"f32": 0.02, "bf16": 0.01}


def answer(cosines: dict[str, float] | None = None, **taken: float) -> str:
    said = {"cosines": COSINES if cosines is None else cosines, "seconds": TAKEN | taken}
    return f"print({json.dumps(said)!r})"


GOOD = answer()


def test_a_good_answer_is_asked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = child(monkeypatch, tmp_path, GOOD)
    for _ in range(3):
        selftest._ask_child.cache_clear()
        assert selftest.best_precision(tmp_path / "cache") == "bf16"
    assert calls.read_text().splitlines() == ["called"]
    (stored,) = json.loads((tmp_path / "cache" / selftest.FILE).read_text()).values()
    assert stored == {"bf16": True, "cosines": COSINES, "seconds": TAKEN}


def test_without_a_folder_a_process_asks_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = child(monkeypatch, tmp_path, GOOD)
    assert [selftest.best_precision() for _ in range(3)] == ["bf16"] * 3
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            f"import os; os.kill(os.getpid(), {int(signal.SIGFPE)})",
            f"the test crashed with exit code -{int(signal.SIGFPE)}",
        ),
        ("print('nonsense')", "no answer"),
        ("print('[1]')", "no answer"),
        ("""print('{"cosines": {"matmul": 1.0}, "seconds": {}}')""", "no answer"),
        ("import time; time.sleep(30)", "no answer in 2 s"),
    ],
)
def test_whatever_goes_wrong_is_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, reason: str
) -> None:
    if "sleep" in body:
        monkeypatch.setattr(selftest, "SECONDS", 2.0)
    child(monkeypatch, tmp_path, body)
    assert selftest.best_precision(tmp_path) == "f32"
    (stored,) = json.loads((tmp_path / selftest.FILE).read_text()).values()
    assert stored == {"bf16": False, "reason": reason}


def test_a_child_that_could_not_run_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = child(monkeypatch, tmp_path, "raise SystemExit('no openvino')")
    for expected in (1, 2):
        selftest._ask_child.cache_clear()
        assert selftest.best_precision(tmp_path / "cache") == "f32"
        assert len(calls.read_text().splitlines()) == expected
    monkeypatch.setattr(selftest.sys, "executable", str(tmp_path / "absent"))
    selftest._ask_child.cache_clear()
    assert selftest.best_precision(tmp_path / "cache") == "f32"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("cosines", [{"matmul": 0.65, "attention": 0.9999}, {}, {"matmul": float("nan")}])
def test_wrong_products_and_no_bfloat16_are_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cosines: dict[str, float]
) -> None:
    child(monkeypatch, tmp_path, answer(cosines))
    assert selftest.best_precision(tmp_path) == "f32" and not selftest.works(tmp_path)


@pytest.mark.parametrize("taken", [0.019, 0.03])
def test_what_is_no_quicker_is_taken_when_asked_for_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taken: float
) -> None:
    child(monkeypatch, tmp_path, answer(bf16=taken))
    assert selftest.best_precision(tmp_path) == "f32" and selftest.works(tmp_path)
    assert OpenVINOEngine(cache_dir=tmp_path).precision == "f32"
    assert OpenVINOEngine(precision="bf16", threads=1, cache_dir=tmp_path).precision == "bf16"


@pytest.mark.parametrize("content", ["", "[]", '{"other machine": {"bf16": false}}', '{"a": 1}', "of before"])
def test_a_stored_file_that_does_not_help_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    child(monkeypatch, tmp_path, GOOD)
    if content == "of before":  # when nothing was timed
        selftest.works(tmp_path)
        stored = json.loads((tmp_path / selftest.FILE).read_text())
        content = json.dumps({key: {"bf16": True, "cosines": COSINES, "seconds": {"f32": None}} for key in stored})
        selftest._ask_child.cache_clear()
    (tmp_path / selftest.FILE).write_text(content)
    assert selftest.best_precision(tmp_path) == "bf16"
    stored = json.loads((tmp_path / selftest.FILE).read_text())
    assert ("other machine" in stored) == ("other machine" in content)


def test_a_folder_that_cannot_be_written_does_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child(monkeypatch, tmp_path, GOOD)
    (tmp_path / "file").write_text("")
    assert selftest.best_precision(tmp_path / "file") == "bf16"


def test_this_machine_answers(tmp_path: Path) -> None:
    """The real child; on a processor without bfloat16 it finds no comparison to make."""
    precision = selftest.best_precision(tmp_path)
    (stored,) = json.loads((tmp_path / selftest.FILE).read_text()).values()
    assert "reason" not in stored
    assert selftest.works(tmp_path) == bool(stored["cosines"])
    assert (precision == "bf16") == (
        bool(stored["cosines"]) and stored["seconds"]["bf16"] < selftest.QUICKER * stored["seconds"]["f32"]
    )
    assert OpenVINOEngine(precision="auto", cache_dir=tmp_path).precision == precision


def test_one_thread_is_another_question(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With one thread bf16 may crash where with more it works: each is asked, and kept, for itself."""
    crash = f"import os, sys\nif sys.argv[-1] == '1': os.kill(os.getpid(), {int(signal.SIGFPE)})\n{GOOD}"
    child(monkeypatch, tmp_path, crash)
    assert selftest.best_precision(tmp_path, 2) == "bf16" and selftest.best_precision(tmp_path, 1) == "f32"
    stored = json.loads((tmp_path / selftest.FILE).read_text())
    assert {name.endswith(", one thread"): result["bf16"] for name, result in stored.items()} == {
        False: True,
        True: False,
    }
    assert OpenVINOEngine(threads=1, cache_dir=tmp_path).precision == "f32"
    with pytest.raises(EngineError, match="bf16 with one thread does not work on this machine"):
        OpenVINOEngine(precision="bf16", threads=1, cache_dir=tmp_path)


def test_one_core_is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert selftest.alone(None) and selftest.alone(1) and not selftest.alone(2)
    monkeypatch.setattr(selftest.os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    assert not selftest.alone(None)


def test_the_package_text_encoder_is_tried() -> None:
    from chashka.engines.runtime import openvino

    assert list(selftest._text(openvino().Core())) == ["text"]
