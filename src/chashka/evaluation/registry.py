"""The registry of shipped weights: one entry a file, saying what it is and where it came from, null where nobody knows.

The file's own metadata are the source; the recipe's and the log's file are found by comparing recipes. What only people know
(``note``, and history from before metadata told it) is kept when the same file is registered again, and an entry whose file was
replaced moves to ``earlier``, so that parents can be looked up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import chashka
from chashka.checkpoints import read_metadata, sha256
from chashka.checkpoints.safetensors_file import replace
from chashka.errors import FileError

FORMAT = 1
KNOWN_BY_PEOPLE = (
    "steps",
    "revision",
    "data",
    "captions",
    "scenes",
    "frozen",
    "hours",
    "machine",
    "parents",
    "note",
)
"""Fields that an entry keeps where the file says nothing: they were written by hand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of weights.

    file: path in the sources. recipe, log: paths in the sources. revision: git commit of the code that trained it. data:
    sha256 of the manifest of training pictures. captions, scenes: sha256 of those tables. frozen: sha256 of the other stages'
    weights that the run read, by stage or ``stage/component``. hours: of training in its last run. parents: sha256 of the weights
    that run began with, [] for none. None: not known; captions, scenes and frozen also where a run read none, and in entries from
    before they were recorded.
    """

    file: str
    model: str
    component: str
    sha256: str
    bytes: int
    precision: str
    licence: str
    steps: int | None = None
    recipe: str | None = None
    log: str | None = None
    revision: str | None = None
    data: str | None = None
    captions: str | None = None
    scenes: str | None = None
    frozen: dict[str, str] | None = None
    hours: float | None = None
    machine: str | None = None
    parents: list[str] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    """``weights``: what is shipped; ``earlier``: entries whose files were replaced."""

    weights: tuple[Entry, ...] = ()
    earlier: tuple[Entry, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Registry:
        """Raises FileError for a missing or foreign file."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise ValueError(f"format {stored['format']}, expected {FORMAT}")
            return cls(*(tuple(Entry(**entry) for entry in stored[kind]) for kind in ("weights", "earlier")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path}: not a readable registry of weights ({error})") from error

    def write(self, path: Path) -> None:
        """Atomically. Raises FileError."""
        kinds = {"weights": self.weights, "earlier": self.earlier}
        stored = {"format": FORMAT, **{kind: [asdict(entry) for entry in entries] for kind, entries in kinds.items()}}
        replace(path, [(json.dumps(stored, ensure_ascii=False, indent=1) + "\n").encode()])

    def of(self, digest: str) -> Entry | None:
        """The entry of the file with this sha256, shipped or earlier."""
        return next((entry for entry in (*self.weights, *self.earlier) if entry.sha256 == digest), None)

    def ancestors(self, entry: Entry) -> list[Entry]:
        """The entries of the weights that this file's run began with, those that these began with, and so on; nearest first."""
        found: list[Entry] = []
        waiting = list(entry.parents or ())
        while waiting:
            parent = self.of(waiting.pop(0))
            if parent is not None and parent not in found:
                found.append(parent)
                waiting += parent.parents or ()
        return found

    def joined(self, entries: Iterable[Entry]) -> Registry:
        """With these entries in place of those of the same files; replaced ones are kept under ``earlier``."""
        new = {entry.file: _kept(entry, self.of(entry.sha256)) for entry in entries}
        old = [entry for entry in self.weights if entry.file in new and entry.sha256 != new[entry.file].sha256]
        both = {entry.file: entry for entry in self.weights} | new
        shipped = {entry.sha256 for entry in both.values()}
        earlier = {entry.sha256: entry for entry in (*self.earlier, *old) if entry.sha256 not in shipped}
        return Registry(tuple(both[file] for file in sorted(both)), tuple(earlier.values()))


def shipped_registry() -> Path | None:
    """The registry that came with this package, or the checkout's; None where neither is."""
    package = Path(chashka.__file__).parent
    places = (package / "teacup" / "registry.json", package.parents[1] / "docs" / "models" / "registry.json")
    return next((place for place in places if place.is_file()), None)


def entry_of(weights: Path, model: str, root: Path, recipes: Sequence[Path]) -> Entry:
    """What ``weights`` say of themselves. root: paths are given from here; recipes: files among which theirs is looked for.

    A log is the file ``logs/<recipe's name>.jsonl`` beside the recipes' folder. Raises WeightsError, FileError.
    """
    metadata = read_metadata(weights)
    recipe = _recipe(metadata.get("recipe"), recipes)
    log = recipe.parent.parent / "logs" / f"{recipe.stem}.jsonl" if recipe else None
    steps = int(metadata.get("steps", "0")) or None  # exports wrote 0 where they did not know
    return Entry(
        file=_from(root, weights),
        model=model,
        component=weights.stem,
        sha256=sha256(weights),
        bytes=weights.stat().st_size,
        precision=metadata.get("precision", "fp16"),
        licence=metadata.get("licence", ""),
        steps=steps,
        recipe=_from(root, recipe) if recipe else None,
        log=_from(root, log) if log and log.is_file() else None,
        revision=metadata.get("revision"),
        data=metadata.get("data"),
        captions=metadata.get("captions"),
        scenes=metadata.get("scenes"),
        frozen=json.loads(metadata["frozen"]) if "frozen" in metadata else None,
        hours=float(metadata["hours"]) if "hours" in metadata else None,
        machine=metadata.get("machine"),
        parents=json.loads(metadata["parents"]) if "parents" in metadata else None,
        note=metadata.get("note"),
    )


def faults(registry: Registry, root: Path, weights: Sequence[Path]) -> list[str]:
    """What is wrong, one line each: weights without their entry, entries without their file, other bytes, lost files."""
    found = []
    entries = {entry.file: entry for entry in registry.weights}
    for path in weights:
        entry = entries.get(_from(root, path))
        if entry is None:
            found.append(f"{_from(root, path)} has no entry")
        elif entry.sha256 != sha256(path):
            found.append(f"{entry.file} is another file than its entry says ({entry.sha256[:12]}…)")
    for entry in registry.weights:
        named = [entry.file, *(name for name in (entry.recipe, entry.log) if name)]
        found += [f"{entry.component}: {name} does not exist" for name in named if not (root / name).is_file()]
    return found


def _recipe(text: str | None, files: Sequence[Path]) -> Path | None:
    """The file that holds this recipe."""
    if text is None:
        return None
    wanted = json.loads(text)
    for file in files:
        try:
            if json.loads(file.read_text(encoding="utf-8")) == wanted:
                return file
        except (OSError, ValueError) as error:
            raise FileError(f"{file}: not a readable recipe ({error})") from error
    return None


def _from(root: Path, path: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise FileError(f"{path} is not below {root}, where the registry's paths begin; give --root") from error


def _kept(entry: Entry, known: Entry | None) -> Entry:
    """``entry`` with what people wrote into its former version, where the file itself says nothing."""
    if known is None:
        return entry
    values: dict[str, Any] = {field.name: getattr(entry, field.name) for field in fields(Entry)}
    for name in KNOWN_BY_PEOPLE:
        values[name] = getattr(known, name) if values[name] is None else values[name]
    return Entry(**values)
