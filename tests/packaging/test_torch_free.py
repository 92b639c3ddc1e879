"""What the base install may import: the package with every extra blocked, and a quick `import chashka`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXTRAS = (
    "torch",
    "nncf",
    "vtracer",
    "tokenizers",
    "resvg_py",
    "pymorphy3",
    "transformers",
    "sentencepiece",
    "diffusers",
)
# Modules that need an extra at import, by prefix. Everything else is the base list, and so is a new module.
NEEDS_EXTRA = (
    "chashka.app.compute.training_process",
    "chashka.engines.conversion",
    "chashka.engines.export",
    "chashka.engines.torch_engine",
    "chashka.engines.torch_residents",
    "chashka.engines.torch_wrapping",
    "chashka.nets",
    "chashka.training",
)
BASE_ALL_THE_SAME = (
    "chashka.nets",
    "chashka.nets.clip_presets",
    "chashka.nets.configs",
    "chashka.nets.teacup_configs",
    "chashka.nets.kandinsky_presets",
    "chashka.training",
    "chashka.training.recipes",
)

WALK = """
import importlib, importlib.abc, json, pkgutil, sys, traceback
extras, skip, keep = json.loads(sys.argv[1])

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in extras:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Block())
import chashka, kandinsky2
def wanted(name):
    return name in keep or not any(name == s or name.startswith(s + ".") for s in skip)
done, failed, todo = [], {}, [chashka, kandinsky2]
while todo:
    package = todo.pop()
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if info.name.endswith("__main__") or not wanted(info.name):
            continue
        try:
            module = importlib.import_module(info.name)
        except BaseException:
            failed[info.name] = traceback.format_exc().strip().splitlines()[-1]
            continue
        done.append(info.name)
        if info.ispkg:
            todo.append(module)
print(json.dumps([done, failed]))
"""

BLOCKED_CALL = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from chashka.cli import main
main()
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def test_every_base_module_imports_with_the_extras_blocked() -> None:
    result = run_python(WALK, json.dumps([EXTRAS, NEEDS_EXTRA, BASE_ALL_THE_SAME]))
    assert result.returncode == 0, result.stderr
    done, failed = json.loads(result.stdout)
    assert not failed
    assert {"chashka.cli", "chashka.families", "chashka.diffusion", "chashka.nets.configs"} <= set(done)


def test_every_command_shows_its_help_with_the_extras_blocked() -> None:
    listing = run_python("import json, chashka.cli as c; print(json.dumps(sorted(c.main.list_commands(None))))")
    assert listing.returncode == 0, listing.stderr
    commands = json.loads(listing.stdout)
    assert "draw" in commands
    for command in commands:
        result = run_python(BLOCKED_CALL, ",".join(EXTRAS), command, "--help")
        assert result.returncode == 0, f"{command}: {result.stderr}"
        assert "Usage:" in result.stdout


@pytest.mark.parametrize("heavy", ["torch", "openvino", "numpy", "pydantic", "PIL", "click"])
def test_import_chashka_is_light(heavy: str) -> None:
    result = run_python("import sys, chashka; print('\\n'.join(sys.modules))")
    assert result.returncode == 0, result.stderr
    assert heavy not in result.stdout.split()


def test_public_names_resolve_without_extras(project: Path) -> None:
    code = "import sys\nfor n in sys.argv[1].split(','): sys.modules[n] = None\nimport chashka\n"
    code += "for name in chashka.__all__: getattr(chashka, name)\nprint(len(chashka.__all__))"
    result = run_python(code, ",".join(EXTRAS))
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 0
