"""The Russian guide's commands and code, as they stand there: with the embedded model, and with a tiny published one."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from published_folder import SIZES, write_published

import kandinsky2.opening
from chashka import images
from chashka.cli import main
from chashka.families import kandinsky
from chashka.families.kandinsky.published import open_text

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guides" / "kandinsky.ru.md").read_text(encoding="utf-8")


def blocks(mark: str) -> list[tuple[str, str]]:
    """(language, code) of the blocks behind a mark."""
    return re.findall(rf"<!-- {re.escape(mark)} -->\n```(\w+)\n(.*?)```", GUIDE, flags=re.DOTALL)


def run(language: str, code: str) -> None:
    if language == "python":
        exec(compile(code, "kandinsky.ru.md", "exec"), {})
        return
    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "chashka"
        main.main(words[1:], standalone_mode=False)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHASHKA_MODELS", raising=False)
    monkeypatch.setattr(kandinsky2.opening, "_warned", set())


def test_with_the_embedded_model(tmp_path: Path) -> None:
    found = blocks("executed")
    assert found
    for block in found:
        run(*block)
    assert len(list((tmp_path / "cosmos").glob("*.png"))) == 2 and (tmp_path / "fox.png").is_file()


@pytest.mark.torch
def test_with_a_published_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_published(tmp_path / "models" / "kandinsky-2.0")
    tiny = replace(kandinsky.PUBLISHED, open=partial(open_text, sizes=SIZES))
    monkeypatch.setitem(kandinsky.FAMILY.presets, "2.0", tiny)  # type: ignore[arg-type]
    found = blocks("executed with the published model")
    assert len(found) >= 4
    for block in found:
        run(*block)
    assert "kandinsky-2.0  ready" in capsys.readouterr().out
    wanted = {"cosmos.png": (64, 128), "oil.png": (64, 128), "cosmos-0.png": (64, 64), "paper.png": (64, 64)}
    assert {name: images.read(tmp_path / name).shape[:2] for name in wanted} == wanted
