"""What the pages say is so: links lead somewhere, flags and targets exist, tables match the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import chashka.errors
from chashka.errors import ChashkaError

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READMES = ("README.md", "README.ru.md")


def anchors(text: str) -> set[str]:
    """The names that headings get on a rendered page."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def without_prose(text: str) -> str:
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*blocks, *inline])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target}: no such file"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_that_pages_name_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    code = re.findall(r"`([^`\n]+)`|^(make .+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for inline, line in code:
        named = re.match(r"make ([a-z-]+)\b", inline or line)
        assert named is None or named[1] in targets, f"make {named[1]}"


@pytest.mark.parametrize("name", READMES)
def test_exit_codes_match_the_error_tree(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    ours = {e.exit_code for e in vars(chashka.errors).values() if isinstance(e, type) and issubclass(e, ChashkaError)}
    assert rows == ours | {0, 130}


def test_readmes_show_the_same_code() -> None:
    """Commands and listings are the same in both languages, comments apart."""

    def blocks(name: str) -> list[str]:
        found = re.findall(r"^```\w*\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        return [re.sub(r"#.*", "", block).replace(" ", "") for block in found]

    assert blocks("README.md") == blocks("README.ru.md")


def test_readmes_have_the_same_headings_and_rows() -> None:
    shapes = []
    for name in READMES:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        shapes.append([line[:2] for line in lines if line.startswith(("#", "|", "- "))])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("guide", "commands"),
    [("draw.md", {"draw"}), ("edit.md", {"vary", "mix", "extend"}), ("train.md", {"train", "export"})],
)
def test_every_flag_is_in_its_guide_and_no_other(guide: str, commands: set[str]) -> None:
    """All flags of the guide's own commands are named, and no flag that none of the commands it shows has."""
    text = without_prose((ROOT / "docs" / "guides" / guide).read_text(encoding="utf-8"))
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*(?![\w-])", text))
    shown = set(re.findall(r"\bchashka ((?:data |evaluate )?[a-z]+)\b", text))
    own = set[str]().union(*map(_flags_of, commands)) - {"-h", "--help"}
    assert own <= named
    others = set[str]().union(*map(_flags_of, shown - commands))
    assert {name for name in named if name.startswith("--")} <= own | others | {"--help"}


def _flags_of(command: str) -> set[str]:
    """The flags that a command's --help declares: what stands before the two blanks that start a description."""
    words = [sys.executable, "-c", "from chashka.cli import main; main()", *command.split(), "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    rows = [line for line in shown.stdout.split("Options:", 1)[1].splitlines() if line.lstrip().startswith("-")]
    return {
        flag for row in rows for flag in re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", re.split(r" {2,}", row.strip())[0])
    }


def test_architecture_page_lists_every_part() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "chashka"
    parts = [p.name + "/" for p in package.iterdir() if p.is_dir() and p.name != "__pycache__"]
    parts += [p.name for p in package.glob("*.py") if p.name != "__main__.py"]
    assert not [part for part in parts if not re.search(rf"[├└]─ {re.escape(part)}", page)]


@pytest.mark.parametrize("file", ["Makefile", ".ci/run", "pyproject.toml"])
def test_set_up_names_no_host(file: str) -> None:
    """Packages come from wherever pip is configured to look."""
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not re.findall(r"\w+://[^\s'\"]+|index-url|find-links", text)
