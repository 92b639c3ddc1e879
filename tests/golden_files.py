"""Where the reference numbers lie: the compact subset in tests/golden, or all of them beside the project."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "golden", _HERE.parents[1] / "shared" / "golden")


def golden(name: str) -> Path:
    """The path of a golden file; fails with where it was looked for."""
    for folder in _PLACES:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"golden file {name} is in none of: {', '.join(map(str, _PLACES))}")
