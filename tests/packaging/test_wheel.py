"""The base install, proven: a wheel in a clean environment, away from the checkout, without torch or a network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.promise

MEGABYTE = 1_000_000
# What must work in the base install, with which arguments. Any other command gets values for what it requires (see below).
DRAWN = "x.png"
WORKS = {
    "draw": ["красное яблоко", "--seed", "1", "--out", DRAWN],
    "vary": [DRAWN, "--steps", "2", "--out", "varied.png"],
    "mix": ["--picture", DRAWN, "2", "--text", "чашка", "1", "--steps", "2", "--out", "mixed.png"],
    "extend": [DRAWN, "--left", "64", "--steps", "2", "--out", "extended.png"],
    "doctor": [],
    "models list": [],
    "models show": [],
    "models card": [],
    "models ledger": [],
    "evaluate teacup": ["--out", "teacup", "--limit", "7", "--fast"],
    "evaluate sheet": ["--out", "sheet", "--steps", "2"],
    "evaluate thresholds": ["--steps", "2"],
    "serve": ["--print-settings"],
}
ENDS = {"studio": ["--port", "70000"]}  # what would go on for ever, asked for something impossible
EXPORTED = ["--autoencoder", "a", "--clip", "c", "--unet", "u", "--out", "o"]
ERROR_FOR_PEOPLE = (2, 3, 4, 5, 6, 7)

# Every command with a value for each argument and option that it requires.
LIST_COMMANDS = """
import json
import click
from chashka.cli import main

def value(kind):
    if isinstance(kind, click.Choice):
        return str(kind.choices[0])
    return "1" if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)) else "nothing-here"

def walk(group, context, prefix):
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = click.Context(command, parent=context)
        if isinstance(command, click.Group):
            yield from walk(command, inner, (*prefix, name))
            continue
        words = []
        for parameter in command.params:
            if parameter.required:
                words += [parameter.opts[0]] if isinstance(parameter, click.Option) else []
                words.append(value(parameter.type))
        yield (*prefix, name), words

print(json.dumps(list(walk(main, click.Context(main), ()))))
"""


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(project)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean_bin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that holds the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(home, with_pip=True)
    install = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", str(wheel)]
    result = subprocess.run(install, capture_output=True, text=True, timeout=600, cwd=home)
    assert result.returncode == 0, result.stderr
    return home / "bin"


@pytest.fixture(scope="module")
def offline() -> list[str]:
    """The words that start a command without any network but loopback."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to cut the network: apt-get install util-linux")
    for words in (["unshare", "-rn"], ["unshare", "-n"]):
        if subprocess.run([*words, "true"], capture_output=True).returncode == 0:
            seen = subprocess.run([*words, "cat", "/proc/self/net/dev"], capture_output=True, text=True, check=True)
            devices = [line.split(":")[0].strip() for line in seen.stdout.splitlines() if ":" in line]
            assert devices == ["lo"]
            return words
    pytest.skip(
        "the network cannot be cut: allow user namespaces (sysctl kernel.unprivileged_userns_clone=1) or be root"
    )


@pytest.fixture
def call(clean_bin: Path, offline: list[str], tmp_path: Path):
    """Runs a program of the clean environment offline, in an empty folder with an empty home."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "CHASHKA", "XDG"))}
    environment["HOME"] = str(tmp_path / "home")
    folder = tmp_path / "work"
    folder.mkdir()

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [*offline, str(clean_bin / program), *arguments]
        return subprocess.run(words, capture_output=True, text=True, timeout=600, cwd=folder, env=environment)

    return run


def test_wheel_holds_each_weight_once(wheel: Path) -> None:
    owners: dict[str, list[str]] = defaultdict(list)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        for info in archive.infolist():
            if info.file_size > 1000:
                owners[hashlib.sha256(archive.read(info)).hexdigest()].append(info.filename)
        weights = [n for n in names if n.endswith(".safetensors")]
        bases = {name: changed(archive.read(name)) for name in weights}
    for name, base in bases.items():
        owner = (
            name if base is None else f"{name.rpartition('/')[0]}/{base}.safetensors"
        )  # a change has its base's graph
        assert owner.removesuffix(".safetensors") + ".xml" in names, f"{name} has no graph beside it"
    assert [base for base in bases.values() if base] == ["unet"]
    assert not [n for n in names if n.endswith((".bin", ".ckpt", ".pt", ".pth", ".onnx", ".blob"))]
    inside = [[n for n in same if n.startswith("chashka/")] for same in owners.values()]
    assert not [same for same in inside if len(same) > 1]


def changed(weights: bytes) -> str | None:
    """The component that these weights are changes of."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    base: str | None = header["__metadata__"].get("base")
    return base


def test_wheel_is_small_and_only_the_package(wheel: Path, project: Path) -> None:
    size = wheel.stat().st_size
    assert size <= 100 * MEGABYTE
    page = (project / "docs" / "models" / "ledger.md").read_text(encoding="utf-8")
    told = re.search(r"^## The wheel\n\n([\d,]+) bytes", page, re.MULTILINE)
    assert told is not None and abs(int(told[1].replace(",", "")) - size) < MEGABYTE / 2, (
        "the ledger's wheel is another: make ledger"
    )
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {n.split("/")[0] for n in names}
    assert top == {"chashka", "kandinsky2", next(t for t in top if t.endswith(".dist-info"))}
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert any(n.endswith("/ATTRIBUTION.md") for n in names)
    assert "chashka/teacup/registry.json" in names
    unwanted = (".pyc", ".svg", ".npz", ".npy", ".csv", ".jsonl", ".zip", ".gz", ".log", "conftest.py")
    foreign = [n for n in names if n.endswith(unwanted) and not n.startswith("chashka/app/web/")]  # its icons are SVG
    assert not [*foreign, *(n for n in names if "/tests/" in n or "__pycache__" in n)]
    assert {"chashka/app/web/index.html", "chashka/app/store/sql/0001-sqlite.sql"} <= set(names)
    assert "chashka/prompts/policy_words.txt" in names


def test_no_torch_came_along(clean_bin: Path) -> None:
    listed = subprocess.run(
        [clean_bin / "python", "-m", "pip", "list", "--format=json"], capture_output=True, text=True
    )
    names = {row["name"].lower() for row in json.loads(listed.stdout)}
    assert "chashka" in names
    unwanted = {"torch", "vtracer", "tokenizers", "resvg-py", "resvg_py", "transformers", "diffusers", "onnxruntime"}
    assert not names & unwanted


def test_every_command_works_offline_or_names_its_extra(call, tmp_path: Path) -> None:
    listing = call("python", "-c", LIST_COMMANDS)
    assert listing.returncode == 0, listing.stderr
    commands = {" ".join(words): arguments for words, arguments in json.loads(listing.stdout)}
    assert set(WORKS) <= set(commands)
    for name, required in commands.items():
        shown = call("chashka", *name.split(), "--help")
        assert shown.returncode == 0, f"{name} --help: {shown.stderr}"
        result = call("chashka", *name.split(), *WORKS.get(name, ENDS.get(name, required)))
        told = f"{name}: exit {result.returncode}: {result.stderr}"
        if name in WORKS:
            assert result.returncode == 0, told
        elif result.returncode != 0:
            assert result.returncode in ERROR_FOR_PEOPLE, told
            assert len(result.stderr.strip().splitlines()) == 1, told
            assert result.returncode != 3 or "pip install 'chashka[" in result.stderr, told
    assert (tmp_path / "work" / DRAWN).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "extra", "given"),
    [("train", "train", []), ("export", "torch", EXPORTED), ("export", "quantise", ["--int8", "--calibrate"])],
)
def test_commands_of_an_extra_name_it(call, command: str, extra: str, given: list[str]) -> None:
    listing = json.loads(call("python", "-c", LIST_COMMANDS).stdout)
    required = next(arguments for words, arguments in listing if words == [command])
    result = call("chashka", command, *required, *given)
    assert result.returncode == 3, result.stderr
    assert f"pip install 'chashka[{extra}]'" in result.stderr


def test_same_seed_same_file(call, tmp_path: Path) -> None:
    drawn = []
    for name in ("a.png", "b.png"):
        result = call("chashka", "draw", "красное яблоко", "--seed", "1", "--out", name)
        assert result.returncode == 0, result.stderr
        drawn.append(hashlib.sha256((tmp_path / "work" / name).read_bytes()).hexdigest())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("example", ["python-example", "paper-listing"])
def test_code_of_the_readme_runs_offline(call, project: Path, tmp_path: Path, example: str) -> None:
    readme = (project / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {example} -->\n```python\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    shown = call("python", "-c", found[1])
    assert shown.returncode == 0, shown.stderr
    if example == "python-example":
        assert (tmp_path / "work" / "cup.png").read_bytes().startswith(b"\x89PNG")
