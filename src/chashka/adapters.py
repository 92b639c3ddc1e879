"""Which LoRAs and embeddings a drawing wants: those of its options, then those that its prompts name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chashka.checkpoints.torch_file import SUFFIXES
from chashka.errors import InputError
from chashka.prompts.tags import taken_out


@dataclass(frozen=True)
class Shelf:
    """The files of one kind by their names: stems, and paths below ``models/kind`` without suffix. models: None: none is kept.

    paths: options may mean a file by its path too, and messages may tell paths; off where strangers ask.
    """

    kind: str
    models: Path | None
    paths: bool = True

    @property
    def files(self) -> dict[str, Path]:
        if self.models is None:
            return {}
        folder = self.models / self.kind
        found = sorted(file for file in folder.rglob("*") if file.suffix in SUFFIXES)
        names = {file.stem: file for file in reversed(found)}
        return names | {file.relative_to(folder).with_suffix("").as_posix(): file for file in found}

    def one(self, option: str, name: str) -> Path:
        """The file that an option means. Raises InputError."""
        path = Path(name)
        if self.paths and path.suffix in SUFFIXES and path.is_file():
            return path
        files = self.files
        if name not in files:
            what = f"is neither a file nor a name{self.where()}" if self.paths else "does not exist"
            raise InputError(f"{option}: {name[:80]!r} {what}; {self.allowed()}")
        return files[name]

    def where(self) -> str:
        if not self.paths:
            return ""
        return " (--models is not given)" if self.models is None else f" in {self.models / self.kind}"

    def allowed(self) -> str:
        names = sorted(self.files)
        shown = f"{', '.join(names[:20])}{' …' if len(names) > 20 else ''}"
        if not self.paths:
            return f"allowed: {shown}" if names else "there are none"
        return f"allowed: {shown}, or a file" if names else f"allowed: a file ({', '.join(SUFFIXES)})"


def loras(
    given: Sequence[tuple[str, float]], prompts: Sequence[str], models: Path | None, strict: bool, *, paths: bool = True
) -> tuple[list[tuple[Path, float]], list[str]]:
    """(file, how much of it) of each, and notes about names in prompts that mean no file.

    given: (a file's path or a name, weight). models: the folder whose sub-folder ``loras`` has the names, at any depth. Raises
    InputError for a given name that is not found, with ``strict`` for one in a prompt too. paths: see :class:`Shelf`.
    """
    shelf = Shelf("loras", models, paths)
    files = [(shelf.one("lora", name), weight) for name, weight in given]
    tags = {tag.name: tag for prompt in prompts for tag in taken_out(prompt)[1]}
    notes = []
    for tag in tags.values():
        file = shelf.files.get(tag.name)
        if file is not None:
            files.append((file, tag.weight))
            continue
        problem = f"<lora:{tag.name}> in the prompt is not found{shelf.where()}"
        if strict:
            raise InputError(f"prompt: {problem}; {shelf.allowed()}")
        notes.append(f"{problem}; it was left out")
    return files, notes


def embeddings(given: Sequence[str], prompts: Sequence[str], models: Path | None, *, paths: bool = True) -> list[Path]:
    """The files of the given names, and of those in the sub-folder ``embeddings`` whose name stands in a prompt as a word.

    Raises InputError for a given name that is not found. paths: see :class:`Shelf`.
    """
    shelf = Shelf("embeddings", models, paths)
    files = [shelf.one("embedding", name) for name in given]
    said = "\n".join(prompts).lower()
    for name, file in shelf.files.items():
        if re.search(rf"(?<![\w-]){re.escape(name.lower())}(?![\w-])", said):
            files.append(file)
    return list(dict.fromkeys(files))
