"""A model's files on the disk that hold weights."""

from __future__ import annotations

from pathlib import Path

from chashka.checkpoints.several_files import files_of, is_index
from chashka.checkpoints.torch_file import SUFFIXES
from chashka.families.family import Preset


def weight_files(preset: Preset) -> list[Path]:
    """A preset's files that hold weights; all of its folder where it names none (a folder of diffusers has an index)."""
    if preset.folder is None or not preset.files:
        return []
    names = [name for entry in preset.files for name in ((entry,) if isinstance(entry, str) else entry)]
    paths = [preset.folder / name for name in (*names, *preset.optional)]
    named = [path for path in paths if path.suffix in SUFFIXES or is_index(path)]
    if not named:
        return weights_below(preset.folder)
    return sorted(part for file in named if file.is_file() for part in files_of(file) if part.is_file())


def weights_below(place: Path) -> list[Path]:
    """A file of weights, or those in a folder."""
    found = [place] if place.is_file() else sorted(place.rglob("*"))
    return [file for file in found if file.suffix in SUFFIXES and file.is_file()]
