"""The ledger of sizes: what every file inside the package weighs, what is planned, and what is left of 100 MB."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import chashka
from chashka.errors import FileError

LIMIT = 100_000_000
"""Bytes that everything embedded may have together."""

EMBEDDED = Path(chashka.__file__).parent / "teacup"


@dataclass(frozen=True, slots=True)
class Planned:
    """Something that is not in the package yet. bytes: what its makers expect, no measurement."""

    name: str
    bytes: int
    why: str


def embedded(folder: Path = EMBEDDED) -> dict[str, int]:
    """Name below ``folder`` → bytes, of every file there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def read_plans(path: Path) -> list[Planned]:
    """``[[planned]]`` tables of a TOML file with name, bytes and why. Raises FileError."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["planned"]
        return [Planned(str(row["name"]), int(row["bytes"]), str(row["why"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: not a readable list of plans ({error})") from error


def ledger(files: dict[str, int], planned: Sequence[Planned], wheel: int | None = None) -> str:
    """Markdown. wheel: bytes of the built wheel, if one was built."""
    here, later = sum(files.values()), sum(plan.bytes for plan in planned)
    weights = sum(size for name, size in files.items() if name.endswith(".safetensors"))
    parts = [
        "# Sizes",
        "What is inside the package, in bytes. `make ledger` writes this page from the files themselves; plans come from "
        "`docs/models/planned.toml` and are expectations, not measurements.",
        "## Inside the package",
        "\n".join(["| file | bytes |", "|---|---|", *(f"| `{name}` | {size:,} |" for name, size in files.items())]),
        f"{here:,} bytes in all, {weights:,} of them weights; {_share(here)} of the {LIMIT:,} that are allowed.",
    ]
    if planned:
        rows = [f"| {plan.name} | {plan.bytes:,} | {plan.why} |" for plan in planned]
        parts += ["## Planned", "\n".join(["| part | expected bytes | how it is reckoned |", "|---|---|---|", *rows])]
        left = LIMIT - here - later
        fits = f"{left:,} are left" if left >= 0 else f"{-left:,} too many"
        parts.append(f"With all plans {here + later:,} bytes, {_share(here + later)} of what is allowed: {fits}.")
    if wheel is not None:
        parts += ["## The wheel", f"{wheel:,} bytes as it is installed from, compressed."]
    return "\n\n".join(parts) + "\n"


def _share(size: int) -> str:
    return f"{size / LIMIT:.1%}"
