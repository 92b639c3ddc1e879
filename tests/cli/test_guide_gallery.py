"""Every command of docs/guides/gallery.md works as it is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foreign_files import EVERY

Call = Callable[..., Any]


def test_every_command(call: Call, here: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASHKA_DATA", str(here / "data"))
    (here / "old-pictures").mkdir()
    (here / "old-pictures" / "cat.png").write_bytes(EVERY["AUTOMATIC1111 png"])
    (here / "old-pictures" / "graph.webp").write_bytes(EVERY["ComfyUI webp"])
    guide = (project / "docs" / "guides" / "gallery.md").read_text(encoding="utf-8")
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(lines) > 20
    picture = ""
    for line in lines:
        words = shlex.split(line.replace("$PICTURE", picture).replace("$FILE", "old-pictures/cat.png"))
        assert words[0] == "chashka"
        result = call(*words[1:])
        assert result.code == 0, (line, result.err)
        if not picture:
            picture = result.out.split()[0]
    assert (
        len(list((here / "files").iterdir())) == 1 and (here / "cats.zip").is_file() and (here / "quiet.zip").is_file()
    )


def test_every_flag_of_the_gallery_is_in_it(call: Call, project: Path) -> None:
    guide = (project / "docs" / "guides" / "gallery.md").read_text(encoding="utf-8")
    for command in ("list", "search", "favourite", "collect", "collections", "import", "export"):
        shown = call("gallery", command, "--help").out
        flags = set(re.findall(r"(?<![\w-])--[a-z]+", shown.split("Options:")[1])) - {"--help", "--database"}
        assert {flag for flag in flags if f"{flag}" not in guide} == set(), command
