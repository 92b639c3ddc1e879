"""A run's folder: atomic checkpoints with a manifest and sha256, and a log that never runs ahead of them.

    run/recipe.json         the recipe, written once and checked on resume
    run/log.jsonl           one line per log interval
    run/state-A.safetensors, state-B.safetensors   weights, averages and optimiser moments, written in turn
    run/manifest.json       which of the two is the newest whole one: step, seconds, sha256
    run/look-*.png          sample grids

The manifest is replaced after its state file is on disk, so a kill at any moment leaves the previous state whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from chashka.errors import TrainingError
from chashka.training.catalogue import from_json, to_json


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps done and seconds of training spent, over all slices."""

    step: int = 0
    seconds: float = 0.0


class RunFolder:
    def __init__(self, folder: Path, recipe_json: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        stored = folder / "recipe.json"
        # Compared as recipes: fields that came later have their defaults in an older file.
        if stored.exists() and to_json(from_json(stored.read_text(encoding="utf-8"), str(stored))) != recipe_json:
            raise TrainingError(
                f"{folder} holds a run of another recipe; resume with {stored} or choose another folder"
            )
        if not stored.exists():
            replace(stored, recipe_json.encode())

    def save(self, tensors: Mapping[str, torch.Tensor], progress: Progress) -> None:
        """Write the state beside the newest one, then point the manifest at it."""
        name = "state-B.safetensors" if self._manifest().get("file") == "state-A.safetensors" else "state-A.safetensors"
        path = self.folder / name
        save_file({key: value.detach().contiguous().cpu() for key, value in tensors.items()}, path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        manifest = {"file": name, "sha256": file_sha256(path), **asdict(progress)}
        replace(self.folder / "manifest.json", json.dumps(manifest).encode())

    def load(self) -> tuple[dict[str, torch.Tensor], Progress] | None:
        """The newest whole state, or None for a new run. Raises TrainingError if the file is damaged."""
        manifest = self._manifest()
        if not manifest:
            return None
        path = self.folder / manifest["file"]
        if not path.is_file() or file_sha256(path) != manifest["sha256"]:
            raise TrainingError(
                f"{path} is missing or damaged (sha256 differs from manifest.json): start a new run folder"
            )
        progress = Progress(manifest["step"], manifest["seconds"])
        self._cut_log(progress.step)
        return load_file(path), progress

    def log(self, record: Mapping[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _cut_log(self, step: int) -> None:
        """Drop what was logged after the state was saved: those steps are about to run again."""
        path = self.folder / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # a kill may have cut the last line
                continue
            if record["step"] <= step:
                kept.append(line)
        replace(path, "".join(line + "\n" for line in kept).encode())

    def _manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return manifest


def replace(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old bytes or the new ones, never half."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
