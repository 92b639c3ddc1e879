"""The packed training core runs where only torch, numpy and safetensors are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch

ALLOWED = ("torch", "numpy", "safetensors")

# torch's own dependencies (sympy, filelock, …) come with torch: what torch and numpy loaded themselves stays
# importable.
IMPORT_ALL = """
import importlib, importlib.abc, json, pkgutil, sys
allowed, root = json.loads(sys.argv[1])
sys.path.insert(0, root)
import torch, numpy, safetensors.torch      # with whatever they need themselves
before = set(sys.modules)

class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in allowed or top == "chashka" or top in before:
            return None
        raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Only())
for name in [n for n in sys.modules if n.partition(".")[0] in ("chashka", "kandinsky2")]:
    del sys.modules[name]
import chashka
assert chashka.__file__.startswith(root), chashka.__file__
names = [m.name for m in pkgutil.walk_packages(chashka.__path__, "chashka.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
third = {m.partition(".")[0] for m in set(sys.modules) - before}
third -= set(sys.stdlib_module_names) | {"chashka"}
print(json.dumps([names, sorted(third - set(allowed))]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    command = [sys.executable, "-m", "chashka.training.bundle", str(packed)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return packed


def test_bundle_imports_with_torch_numpy_safetensors_alone(bundle: Path) -> None:
    words = [sys.executable, "-c", IMPORT_ALL, json.dumps([ALLOWED, str(bundle)])]
    result = subprocess.run(words, capture_output=True, text=True, timeout=180, cwd=bundle.parent)
    assert result.returncode == 0, result.stderr
    names, others = json.loads(result.stdout)
    assert not others
    for prefix in ("chashka.training.", "chashka.nets.", "chashka.diffusion.", "chashka.data.shards"):
        assert any(n.startswith(prefix) for n in names), f"{prefix} is not in the bundle"
    assert "chashka.errors" in names


def test_bundle_runs_from_the_zip(bundle: Path) -> None:
    """Isolated from the installed package: only the standard search path and the zip."""
    code = f"import sys; sys.path.insert(0, {str(bundle)!r}); import runpy; sys.argv = ['x', '--help']; "
    code += "runpy.run_module('chashka.training', run_name='__main__')"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=bundle.parent
    )
    assert result.returncode == 0, result.stderr
    assert "--shards" in result.stdout


def test_same_sources_same_bytes(bundle: Path) -> None:
    again = bundle.with_name("again.zip")
    subprocess.run([sys.executable, "-m", "chashka.training.bundle", str(again)], check=True, capture_output=True)
    assert again.read_bytes() == bundle.read_bytes()
