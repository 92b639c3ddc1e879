"""Nothing in the library unpickles, evaluates or unpacks: files from elsewhere go through checkpoints/pickled.py alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal", "yaml"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "np.load",
    "numpy.load",
}
METHODS = {"extractall", "unpack_archive"}


def found(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in IMPORTS)
        elif isinstance(node, ast.ImportFrom) and node.module in IMPORTS:
            yield node.module
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS or name.rpartition(".")[2] in METHODS:
                yield name


def test_there_is_one_door(project: Path) -> None:
    files = list((project / "src").rglob("*.py"))
    assert len(files) > 100
    seen = {(str(path), what) for path in files for what in found(ast.parse(path.read_text(encoding="utf-8")))}
    assert not seen, sorted(seen)


def test_the_rule_sees_what_it_looks_for() -> None:
    bad = "import pickle\nfrom yaml import load\neval('1')\ntorch.load(x)\narchive.extractall()\n"
    assert sorted(found(ast.parse(bad))) == ["archive.extractall", "eval", "pickle", "torch.load", "yaml"]
