"""Which LoRA files a drawing wants: those of ``--lora``, then those that its prompt names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from chashka.checkpoints.lora import SUFFIXES
from chashka.errors import InputError
from chashka.prompts.tags import taken_out

FOLDER = "loras"


def found(
    given: Sequence[tuple[str, float]], prompts: Sequence[str], models: Path | None, strict: bool
) -> tuple[list[tuple[Path, float]], list[str]]:
    """(file, how much of it) of each, and notes about names in prompts that mean no file.

    given: (a file's path or a name, weight). models: the folder whose sub-folder ``loras`` has the names, at any depth. Raises
    InputError for a given name that is not found, with ``strict`` for one in a prompt too.
    """
    known = _known(models)
    files = [(_one(name, known, models), weight) for name, weight in given]
    tags = {tag.name: tag for prompt in prompts for tag in taken_out(prompt)[1]}
    notes = []
    for tag in tags.values():
        if tag.name in known:
            files.append((known[tag.name], tag.weight))
            continue
        problem = f"<lora:{tag.name}> in the prompt is not found{_where(models)}"
        if strict:
            raise InputError(f"prompt: {problem}; {_allowed(known)}")
        notes.append(f"{problem}; it was left out")
    return files, notes


def _known(models: Path | None) -> dict[str, Path]:
    """Files by their names without suffix, and by their paths below the folder."""
    if models is None:
        return {}
    folder = models / FOLDER
    files = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
    names = {file.stem: file for file in reversed(files)}
    return names | {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _one(name: str, known: dict[str, Path], models: Path | None) -> Path:
    path = Path(name)
    if path.suffix in SUFFIXES and path.is_file():
        return path
    if name not in known:
        raise InputError(f"lora: {name[:80]!r} is neither a file nor a name{_where(models)}; {_allowed(known)}")
    return known[name]


def _where(models: Path | None) -> str:
    return " (--models is not given, so only files are)" if models is None else f" in {models / FOLDER}"


def _allowed(known: dict[str, Path]) -> str:
    names = sorted(known)
    if not names:
        return f"allowed: a file ({', '.join(SUFFIXES)})"
    return f"allowed: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}, or a file"
