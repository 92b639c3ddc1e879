"""The studio's files: types checked by TypeScript from their comments, small, and nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chashka.app.settings import Settings

pytestmark = pytest.mark.extra
HERE = Path(__file__).parent
WEB = HERE.parents[1] / "src" / "chashka" / "app" / "web"


def test_types_fit() -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm (on Debian: apt-get install --no-install-recommends npm)")
    checker = HERE / "node_modules" / "typescript" / "bin" / "tsc"
    if not checker.exists():
        subprocess.run([npm, "ci", "--silent"], cwd=HERE, check=True, timeout=300)
    done = subprocess.run(
        ["node", str(checker), "-p", str(HERE / "tsconfig.json")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout


def test_the_field_takes_as_long_prompts_as_the_server() -> None:
    assert f"maxLength: {Settings().max_prompt}," in (WEB / "composer.js").read_text(encoding="utf-8")


def test_files_are_small_and_their_own() -> None:
    for path in WEB.iterdir():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 300, path.name
        elsewhere = set(re.findall(r"https?://[^\s'\"`<>]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not elsewhere, path.name
        assert not re.search(
            r"\binnerHTML\b|\bouterHTML\b|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        if path.suffix == ".html":
            assert not re.search(r"\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text), path.name
