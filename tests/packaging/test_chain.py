"""The chain of trainings in docs/models/recipes/chain.sh: every command is one that exists, and gives its run what it needs.

The script runs here with a ``chashka`` and a ``python`` that only write down what they were asked for.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from chashka.cli import main
from chashka.training import catalogue
from chashka.training.recipes import ContrastiveRecipe, DistilRecipe, PictureRecipe, Recipe, UNetRecipe

RECORD = '#!/bin/sh\nfor word in "$(basename "$0")" "$@"; do printf "%s\\t" "$word"; done >>"$ASKED"\necho >>"$ASKED"\n'
CROSSING = "crossing"


@pytest.fixture(scope="module")
def asked(project: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The commands of the script, as words."""
    folder = tmp_path_factory.mktemp("chain")
    for name in ("chashka", "python"):
        (folder / name).write_text(RECORD, encoding="utf-8")
        (folder / name).chmod(0o755)
    script = project / "docs" / "models" / "recipes" / "chain.sh"
    variables = {"PATH": f"{folder}:/usr/bin:/bin", "ASKED": str(folder / "asked"), "RUNS": "runs"}
    subprocess.run(["sh", str(script)], check=True, cwd=folder, env=variables, timeout=60)
    lines = (folder / "asked").read_text(encoding="utf-8").splitlines()
    return [line.rstrip("\t").split("\t") for line in lines]


def options(words: list[str]) -> dict[str, Any]:
    """What the command line makes of a command. Raises click's errors for what it does not know."""
    command: click.Command = main
    context = click.Context(command)
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    with command.make_context(command.name, list(words), parent=context) as made:
        return dict(made.params)


def trained(asked: list[list[str]]) -> dict[str, tuple[Recipe, dict[str, Any]]]:
    """Recipe and options of every run, in order."""
    found = {}
    for words in asked:
        if words[:2] == ["chashka", "train"]:
            given = options(words[1:])
            assert given["run"].name == Path(given["recipe"]).stem
            found[given["run"].name] = catalogue.load(given["recipe"], given["stage"]), given
    return found


def needs(recipe: Recipe) -> set[str]:
    """The stages whose weights a run of this recipe asks for."""
    if isinstance(recipe, UNetRecipe):
        said = {"autoencoder", "clip"} | ({"t5"} if recipe.head is not None else set())
        said |= {"picture"} if recipe.picture_share else set()
        return said | ({"unet"} if isinstance(recipe, DistilRecipe) else set())
    if isinstance(recipe, ContrastiveRecipe):
        return {"autoencoder"} if recipe.appearance else set()
    return {"clip"} if isinstance(recipe, PictureRecipe) else set()


def test_every_run_has_its_recipe_and_what_it_needs(asked: list[list[str]]) -> None:
    done: dict[str, Recipe] = {}
    for name, (recipe, given) in trained(asked).items():
        assert name not in done
        frozen = dict(pair.split("=", 1) for pair in given["frozen"])
        assert needs(recipe) <= frozen.keys(), f"{name} lacks {needs(recipe) - frozen.keys()}"
        for stage, weights in frozen.items():
            assert done[Path(weights).parent.name].stage == stage, f"{name}: --frozen {stage}={weights}"
        if given["start"] is not None:
            begun = given["start"].parent.name
            assert begun == CROSSING or done[begun].stage == recipe.stage, f"{name}: --start {given['start']}"
        done[name] = recipe


def test_other_commands_exist_and_read_what_was_made(asked: list[list[str]], project: Path) -> None:
    runs, exported = trained(asked), set()
    others = [words[1:] for words in asked if words[0] == "chashka" and words[1] != "train"]
    assert {words[0] for words in others} == {"data", "export"}
    for words in others:
        for value in options(words).values():
            if isinstance(value, Path) and value.parts[0] == "runs":
                assert value.parts[1] in runs, value
                exported.add(value.parts[1])
    crossings = [words for words in asked if words[0] == "python"]
    assert [words[1:3] for words in crossings] == [["-m", "chashka.training.crossing"]]
    assert Path(crossings[0][3]).name in runs and Path(crossings[0][4]).is_file()
    registry = json.loads((project / "docs" / "models" / "registry.json").read_text(encoding="utf-8"))
    wanted = {}
    for words in (words for words in others if words[0] == "export"):
        given = options(words)
        folder = given["out"].name
        for said in given["precisions"]:
            component, _, precision = said.rpartition("=")
            wanted[folder, component or "judge"] = precision
    for entry in registry["weights"]:
        known = Path(entry["file"]).parent.name, entry["component"]
        assert entry["precision"] == wanted.get(known, "fp16"), (
            f"{entry['file']}: the export in chain.sh says otherwise"
        )
    shipped = {Path(entry["recipe"]).stem for entry in registry["weights"] if entry["recipe"]}
    assert shipped == exported, (
        "weights of other runs are shipped: they want their lines in docs/models/recipes/chain.sh"
    )
