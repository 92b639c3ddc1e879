"""The user's own models: what ``chashka models add`` keeps, each file once, by its sha256.

    FOLDER/.files/SHA256          every file's content, once
    FOLDER/NAME/…                 a model: its files by their own names, and ``chashka.json``, which says which content they are
    FOLDER/loras/, embeddings/    adapters, which a model is given (``adapters.py``),
    FOLDER/vaes/                  and autoencoders likewise

A model's files and its contents are hard links to one another, and to the files they were added from where these lie in the same
file system: nothing is copied that need not be.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from chashka.checkpoints import embedding, lora
from chashka.checkpoints.safetensors_file import sha256
from chashka.errors import FileError, InputError, OtherKindError, WeightsError
from chashka.families import ADAPTERS

CONTENTS = ".files"
MANIFEST = "chashka.json"
BESIDE = ".yaml"
"""A configuration beside a checkpoint's file, which says what its keys cannot; it is kept with it."""
NAME = re.compile(r"[\w][\w.+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Kept:
    """name: what ``--model`` takes. kind: model, lora, embedding or vae. files: sha256 by path within ``folder``."""

    name: str
    kind: str
    source: str
    folder: Path
    files: Mapping[str, str]

    @property
    def place(self) -> Path:
        """What it is opened by: its one file, or the folder of them."""
        files = [file for file in self.files if not file.endswith(BESIDE)]
        if len(files) == 1:
            return self.folder / files[0]
        return self.folder if self.kind == "model" else self.folder / self.name

    @property
    def size(self) -> int:
        """Bytes."""
        return sum((self.folder / file).stat().st_size for file in self.files if (self.folder / file).is_file())


class Collection:
    """The models in ``folder``, which is made when the first one is added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Kept]:
        """Everything that was added, by name."""
        found = [self._read(path) for path in sorted(self.folder.glob(f"*/{MANIFEST}"))]
        for kind in ADAPTERS:
            found += [self._read(path) for path in sorted((self.folder / kind).glob(f"*.{MANIFEST}"))]
        return found

    def get(self, name: str) -> Kept:
        """Raises InputError that lists what there is."""
        known = {kept.name: kept for kept in self.all()}
        if name not in known:
            there = ", ".join(known) or "nothing was added yet"
            raise InputError(f"model {name[:60]!r} was not added to {self.folder}; allowed: {there}")
        return known[name]

    def add(self, source: Path, name: str | None = None, *, said: str | None = None, copy: bool = False) -> Kept:
        """Keep a checkpoint's file or folder, a LoRA, an embedding or an autoencoder.

        said: where it comes from, if not from ``source``. Adding the same again is no mistake. Raises InputError (a name that is
        taken or impossible), WeightsError (nothing that chashka can use), FileError.
        """
        kind = kind_of(source)
        name = name or re.sub(r"[^\w.+-]", "-", source.stem if source.is_file() else source.resolve().name).lstrip(
            ".-+"
        )
        if not NAME.fullmatch(name) or name in ADAPTERS:
            raise InputError(f"name: {name[:60]!r} is not possible; allowed: letters, digits, '.', '+', '-' and '_'")
        files = {source.name: source} if source.is_file() else _files_of(source)
        if kind != "model":
            single = source.is_file()
            files = {f"{name}{source.suffix}" if single else f"{name}/{path}": file for path, file in files.items()}
        elif source.is_file() and source.with_suffix(BESIDE).is_file():
            files[source.with_suffix(BESIDE).name] = source.with_suffix(BESIDE)
        sums = {path: sha256(file) for path, file in files.items()}
        folder = self.folder / (name if kind == "model" else f"{kind}s")
        kept = Kept(name, kind, said or str(source.resolve()), folder, sums)
        there = {one.name: one for one in self.all()}.get(name)
        if there is not None:
            if there.kind == kind and sorted(there.files.values()) == sorted(sums.values()):
                return there
            raise InputError(
                f"name: {name!r} is taken by another {there.kind}; give another name, or first: chashka models remove {name}"
            )
        try:
            self._write(kept, files, copy)
        except OSError as error:
            raise FileError(f"cannot add {str(source)!r} to {self.folder}: {error.strerror or error}") from error
        return kept

    def remove(self, name: str) -> int:
        """Forget a model. Returns how many bytes that set free: contents that nothing else has. Raises InputError, FileError."""
        kept = self.get(name)
        try:
            if kept.kind == "model":
                shutil.rmtree(kept.folder)
            else:
                if kept.place.is_dir():
                    shutil.rmtree(kept.place)
                for file in kept.files:
                    (kept.folder / file).unlink(missing_ok=True)
                (kept.folder / f"{name}.{MANIFEST}").unlink()
            return self._swept(set(kept.files.values()))
        except OSError as error:
            raise FileError(f"cannot remove {name!r} from {self.folder}: {error.strerror or error}") from error

    def _swept(self, sums: set[str]) -> int:
        used = {digest for kept in self.all() for digest in kept.files.values()}
        free = 0
        for digest in sums - used:
            content = self.folder / CONTENTS / digest
            if content.is_file():
                free += content.stat().st_size if content.stat().st_nlink == 1 else 0
                content.unlink()
        return free

    def _write(self, kept: Kept, files: Mapping[str, Path], copy: bool) -> None:
        contents = self.folder / CONTENTS
        contents.mkdir(parents=True, exist_ok=True)
        for path, digest in kept.files.items():
            content = contents / digest
            if not content.exists():
                _bring(files[path], content, copy)
            place = kept.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                place.unlink()
            _bring(content, place, copy=False)
        # the manifest comes last: without one there is no model, only files that the next attempt replaces
        text = json.dumps({**asdict(kept), "folder": None}, ensure_ascii=False, indent=1)
        _manifest(kept).write_text(text, encoding="utf-8")

    def _read(self, manifest: Path) -> Kept:
        try:
            said = json.loads(manifest.read_text(encoding="utf-8"))
            return Kept(said["name"], said["kind"], said["source"], manifest.parent, dict(said["files"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"{manifest} is damaged ({str(error)[:80]}); remove it, and add the model again") from error


def kind_of(source: Path) -> str:
    """model, lora, embedding or vae, by a look into it. Raises WeightsError for what is none of them, or damaged."""
    from chashka import families

    if not source.exists():
        raise FileError(f"cannot add {str(source)!r}: there is no such file or folder")
    try:
        families.at(source)[1].look()
        return "model"
    except WeightsError:
        if families.is_autoencoder(source):
            return "vae"
        if source.is_dir():
            raise
        for kind, read in (("lora", lora.read), ("embedding", embedding.vectors)):
            # what is wrong with an adapter says more than that it is no checkpoint, so only "something else" is passed over
            with suppress(OtherKindError):
                read(source)
                return kind
        raise


def _manifest(kept: Kept) -> Path:
    return kept.folder / (MANIFEST if kept.kind == "model" else f"{kept.name}.{MANIFEST}")


def _files_of(folder: Path) -> dict[str, Path]:
    """Every file of a folder by its path, hidden ones left out."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    inside = {path.relative_to(folder): path for path in found}
    return {p.as_posix(): path for p, path in inside.items() if not any(part.startswith(".") for part in p.parts)}


def _bring(source: Path, target: Path, copy: bool) -> None:
    """A hard link where there can be one, otherwise a copy, which appears whole or not at all."""
    if not copy:
        with suppress(OSError):
            os.link(source.resolve(), target)
            return
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
