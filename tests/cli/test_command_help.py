"""A group alone prints its help, and a recipe can be looked at without any folder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.torch


def chashka(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from chashka.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_group_alone_prints_its_help() -> None:
    result = chashka("evaluate")
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: ") and "\n  sheet " in result.stderr


def test_a_recipe_is_shown_without_folders_and_training_asks_for_them() -> None:
    shown = chashka("train", "unet", "--show-recipe")
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["stage"] == "unet"
    asked = chashka("train", "unet")
    assert asked.returncode == 2
    assert asked.stderr.count("\n") == 1 and "--shards and --run" in asked.stderr


def test_help_and_small_commands_load_nothing_that_draws() -> None:
    code = "import sys; import chashka.cli; print(*(n for n in sys.argv[1:] if n in sys.modules))"
    heavy = (
        "numpy",
        "pydantic",
        "PIL",
        "openvino",
        "torch",
        "sqlalchemy",
        "fastapi",
        "chashka.request",
        "chashka.families",
    )
    found = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
