"""The import contracts cover every part of the package, and a few doors stay shut."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

# A name that runs code from a file or a string, and the one module (if any) that may use it.
SHUT = {
    "eval": None,
    "exec": None,
    "pickle": None,
    "marshal": None,
    "os.system": None,
    "torch.load": None,
    "torch.jit": "chashka/engines/conversion.py",
    "yaml.load": None,
    "extractall": None,
}


def sources(project: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((project / "src").rglob("*.py")):
        yield str(path.relative_to(project / "src")), ast.parse(path.read_text(encoding="utf-8"))


def names_used(tree: ast.Module) -> Iterator[str]:
    """Names called, attributes (dotted and alone) and imported modules; docstrings and comments do not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
        elif isinstance(node, ast.Attribute):
            yield node.attr if node.attr not in ("eval", "exec") else ""  # Module.eval() is torch's mode switch
            if isinstance(node.value, ast.Name):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_code_runs_from_files(project: Path) -> None:
    found = {
        (file, name)
        for file, tree in sources(project)
        for name in names_used(tree)
        if name in SHUT and SHUT[name] != file
    }
    assert not found


def test_torch_jit_only_traces(project: Path) -> None:
    """Its ``load`` runs what a file says."""
    (tree,) = (tree for file, tree in sources(project) if file == SHUT["torch.jit"])
    used = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "jit"
    ]
    assert used == ["trace"]
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "jit"]
    assert len(named) == len(used), "and has no other name"


def test_no_shell(project: Path) -> None:
    for file, tree in sources(project):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, file


def layers(project: Path) -> list[list[str]]:
    config = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    stack = next(c for c in contracts if c["id"] == "layers")["layers"]
    return [re.split(r"\s*[|:]\s*", row) for row in stack]


def test_every_part_of_the_package_has_a_layer(project: Path) -> None:
    package = project / "src" / "chashka"
    parts = {p.stem for p in package.glob("*.py")} | {p.parent.name for p in package.glob("*/__init__.py")}
    listed = {name.removeprefix("chashka.") for row in layers(project) for name in row}
    assert parts - {"__init__", "__main__"} <= listed
    assert listed - {"kandinsky2"} <= parts


def test_files_and_functions_stay_readable(project: Path) -> None:
    """At most about 400 lines a file and 60 lines a function, its docstring apart."""
    too_long = []
    for file, tree in sources(project):
        length = len((project / "src" / file).read_text(encoding="utf-8").splitlines())
        if length > 420:
            too_long.append(f"{file}: {length} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > 60:
                    too_long.append(f"{file}: {node.name} has {lines} lines")
    assert not too_long


@pytest.mark.parametrize("name", ["util.py", "utils.py", "helpers.py", "common.py", "misc.py"])
def test_no_drawer_for_everything(project: Path, name: str) -> None:
    assert not list((project / "src").rglob(name))
