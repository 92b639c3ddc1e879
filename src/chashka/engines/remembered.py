"""Small results that a machine found out once, in a JSON file of the cache folder; without a folder nothing is remembered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from chashka.checkpoints.safetensors_file import replace
from chashka.errors import FileError


def recall(path: Path | None) -> dict[str, Any]:
    """What the file holds by its keys; nothing where it is missing or damaged."""
    if path is None:
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return results if isinstance(results, dict) else {}


def remember(path: Path | None, results: Mapping[str, Any]) -> None:
    """Store all of it; where the folder cannot be written to, it is found out again next time."""
    if path is None:
        return
    with suppress(FileError):
        replace(path, [json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False).encode()])
