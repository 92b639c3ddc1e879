"""Which LoRAs and embeddings a drawing wants: those of its options, then those that its prompts name. And which autoencoder."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias, TypeVar

from chashka.checkpoints.torch_file import SUFFIXES
from chashka.errors import InputError
from chashka.prompts.tags import Weight, taken_out

Key = TypeVar("Key", bound=Hashable)
Adapters: TypeAlias = tuple[tuple[tuple[Path, Weight], ...], tuple[Path, ...]]
"""Files of LoRAs, each with how much of it, and files of embeddings."""


@dataclass(frozen=True)
class Shelf:
    """The files of one kind by their names: stems, and paths below ``models/kind`` without suffix. models: None: none is kept.

    paths: options may mean a file by its path too, and messages may tell paths; off where strangers ask. folders: a folder of
    diffusers, which has a configuration beside its weights, is one too.
    """

    kind: str
    models: Path | None
    paths: bool = True
    folders: bool = False

    @cached_property
    def files(self) -> dict[str, Path]:
        if self.models is None:
            return {}
        folder = self.models / self.kind
        found = sorted({self._whole(file, folder) for file in folder.rglob("*") if file.suffix in SUFFIXES})
        names = {name_of(file): file for file in reversed(found)}
        return names | {file.relative_to(folder).with_name(name_of(file)).as_posix(): file for file in found}

    def _whole(self, file: Path, folder: Path) -> Path:
        """The file, or the folder below ``folder`` whose weights it is."""
        home = file.parent
        return home if self.folders and home != folder and (home / "config.json").is_file() else file

    def one(self, option: str, name: str) -> Path:
        """The file that an option means. Raises InputError."""
        path = Path(name)
        if self.paths and path.suffix in SUFFIXES and path.is_file():
            return path
        if self.paths and self.folders and ("/" in name or "\\" in name) and path.is_dir():
            return path
        files = self.files
        if name not in files:
            what = f"is neither a file nor a name{self.where()}" if self.paths else "does not exist"
            raise InputError(f"{option}: {name[:80]!r} {what}; {self.allowed()}")
        return files[name]

    def named(self, name: str) -> list[Path]:
        """Every file that is called so, in whichever folder."""
        return [file for file in dict.fromkeys(self.files.values()) if name_of(file) == name]

    def where(self) -> str:
        if not self.paths:
            return ""
        return " (--models is not given)" if self.models is None else f" in {self.models / self.kind}"

    def allowed(self) -> str:
        names = sorted(self.files)
        shown = f"{', '.join(names[:20])}{' …' if len(names) > 20 else ''}"
        if not self.paths:
            return f"allowed: {shown}" if names else "there are none"
        folder = " or ./FOLDER" if self.folders else ""
        return f"allowed: {shown}, or a file{folder}" if names else f"allowed: a file ({', '.join(SUFFIXES)}){folder}"


def name_of(file: Path) -> str:
    """What a file or folder is called."""
    return file.name if file.is_dir() else file.stem


def vaes(models: Path | None, *, paths: bool = True) -> Shelf:
    """The autoencoders in the sub-folder ``vaes``."""
    return Shelf("vaes", models, paths, folders=True)


def vae(given: str | None, models: Path | None, *, paths: bool = True) -> Path | None:
    """The file or folder of the autoencoder that an option means; None: the model's own. Raises InputError."""
    return None if given is None else vaes(models, paths=paths).one("vae", given)


def loras(
    given: Sequence[tuple[str, float]], prompt: str, models: Path | None, strict: bool, *, paths: bool = True
) -> list[tuple[Path, Weight]]:
    """(file, how much of it) of each: those given, then those that one picture's prompt names and that are there.

    given: (a file's path or a name, weight). models: the folder whose sub-folder ``loras`` has the names, at any depth. Raises
    InputError for a given name that is not found, with ``strict`` for one in the prompt too (without it a note of the result
    tells of such, see ``generate``), and for a weight that is no number. paths: see :class:`Shelf`.
    """
    return _loras(Shelf("loras", models, paths), given, prompt, strict)


def _loras(shelf: Shelf, given: Sequence[tuple[str, float]], prompt: str, strict: bool) -> list[tuple[Path, Weight]]:
    files = [(shelf.one("lora", name), Weight.of(weight)) for name, weight in given]
    for tag in taken_out(prompt)[1]:
        if not tag.lora:
            continue
        weight, file = tag.weight, shelf.files.get(tag.name)
        if file is not None:
            files.append((file, weight))
        elif strict:
            raise InputError(f"prompt: {tag} is not found{shelf.where()}; {shelf.allowed()}")
    return files


def without(prompt: str, negative_prompt: str, takes: bool, model: str) -> None:
    """For strict mode: raises InputError for a tag that no LoRA is loaded for, wherever it is kept, or that says what is not done.

    takes: whether the model takes any.
    """
    tags, misplaced = taken_out(prompt)[1], taken_out(negative_prompt)[1]
    others = [tag for tag in (*tags, *misplaced) if not tag.lora]
    if others:
        field = "prompt" if others[0] in tags else "negative_prompt"
        raise InputError(f"{field}: {others[0]} loads nothing; allowed: <lora:NAME:WEIGHT> in the prompt; leave it out")
    if tags and not takes:
        raise InputError(
            f"prompt: {tags[0]}: {model} takes no LoRA; leave it out, or draw with a checkpoint of Stable Diffusion"
        )
    if misplaced:
        raise InputError(
            f"negative_prompt: {misplaced[0]} loads nothing there; write it into the prompt, or leave it out"
        )
    more = next((tag for tag in tags if tag.unread), None)
    if more is not None:
        raise InputError(
            f"prompt: {more}: {', '.join(more.unread)[:60]!r} has no effect; allowed: a weight, te= and unet=; leave it out"
        )


def embeddings(given: Sequence[str], prompts: Sequence[str], models: Path | None, *, paths: bool = True) -> list[Path]:
    """The files of the given names, and of those in the sub-folder ``embeddings`` whose name stands in a prompt as a word.

    Raises InputError for a given name that is not found. paths: see :class:`Shelf`.
    """
    return _embeddings(Shelf("embeddings", models, paths), given, prompts)


def _embeddings(shelf: Shelf, given: Sequence[str], prompts: Sequence[str]) -> list[Path]:
    files = [shelf.one("embedding", name) for name in given]
    said = "\n".join(prompts).lower()
    for name, file in shelf.files.items():
        if re.search(rf"(?<![\w-]){re.escape(name.lower())}(?![\w-])", said):
            files.append(file)
    return list(dict.fromkeys(files))


@dataclass(frozen=True)
class Wanted:
    """What is asked for beside the prompts. loras: (name or file, weight). embeddings: names or files. strict: as :func:`loras`."""

    loras: Sequence[tuple[str, float]]
    embeddings: Sequence[str]
    models: Path | None
    strict: bool = False
    paths: bool = True

    def of(self, prompt: str, negative_prompt: str, takes: bool, model: str) -> Adapters:
        """The adapters of one picture, by its own prompts. takes: whether the model takes any. Raises InputError."""
        if self.strict:
            without(prompt, negative_prompt, takes, model)
        changes = _loras(self._shelves[0], self.loras, prompt if takes else "", self.strict)
        said = [prompt, negative_prompt] if takes else []
        return tuple(changes), tuple(_embeddings(self._shelves[1], self.embeddings, said))

    @cached_property
    def _shelves(self) -> tuple[Shelf, Shelf]:
        """Looked through once, for however many pictures."""
        return Shelf("loras", self.models, self.paths), Shelf("embeddings", self.models, self.paths)


def alike(keys: Sequence[Key]) -> dict[Key, list[int]]:
    """Places of equal keys, in the order of their first: pictures with the same adapters, for which a model is opened once."""
    groups: dict[Key, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    return groups
