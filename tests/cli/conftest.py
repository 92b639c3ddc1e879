"""Runs the command line inside this process, on the toy model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chashka import families
from chashka.cli import main
from toy_model import toy_bundle


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of a failed command."""
        (line,) = self.err.removeprefix("\n").splitlines()  # click puts a line break after the terminal's ^C
        assert line.startswith("error: ")
        assert self.code != 0 and not self.out
        return line


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*words: Any) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        return Result(int(stopped.value.code or 0), shown.out, shown.err)

    return run


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """``families.load`` gives the toy model; what it was called with is kept."""
    calls: list[dict[str, Any]] = []

    def load(model: str, **choice: Any) -> families.Bundle:
        calls.append({"model": model, **choice})
        return toy_bundle()

    monkeypatch.setattr(families, "load", load)
    return calls


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder whose name has Cyrillic letters and spaces."""
    folder = tmp_path / "моя рабочая папка"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
