"""What a picture was drawn with beside its request, found again by what its file says: checkpoint, LoRAs, embeddings, autoencoder.

A file says names and sums, and never where anything lies. A name that is another file's by now is told by the sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chashka.adapters import Shelf, name_of, vaes
from chashka.checkpoints.several_files import is_index
from chashka.checkpoints.torch_file import SUFFIXES
from chashka.engines.sums import CHEAP, sum_of
from chashka.errors import FileError, InputError
from chashka.prompts.tags import Weight
from chashka.request import Added, shown

if TYPE_CHECKING:
    from chashka.families import Bundle

_SUM = re.compile(r"[0-9a-f]{64}")
_LONGEST = 255
"""Characters of a name: those of a file's."""
_MOST = 100
"""LoRAs and embeddings of a picture; nobody has so many."""


@dataclass(frozen=True, slots=True)
class Kept:
    """For ``load``: loras, embeddings, vae. notes: what is not certain, or not as it was, one sentence each."""

    loras: tuple[tuple[Path, Weight], ...] = ()
    embeddings: tuple[Path, ...] = ()
    vae: Path | None = None
    notes: tuple[str, ...] = ()


def kept(
    stored: Mapping[str, Any],
    models: Path | None,
    files: Sequence[Path] = (),
    *,
    anyway: bool = False,
    cache_dir: Path | None = None,
) -> Kept:
    """The files that a picture's metadata (``read_metadata``) mean; the tags of its prompt are among them.

    Looked for among ``files``, wherever they lie, then in the folders of ``models``. The same is what has the same sha256. Raises
    InputError for one that is not there, and for one whose name has another content; with ``anyway`` a note tells of the latter,
    and it is taken. FileError for metadata that nobody wrote like that. cache_dir: where sums are remembered.
    """
    missing = next((file for file in files if not file.exists()), None)
    if missing is not None:
        raise InputError(
            f"with: there is no file or folder {str(missing)!r}; give one that was drawn with, or leave it out"
        )
    search = _Search(models, files, anyway, cache_dir)
    loras, embeddings = (_rows(stored, name) for name in ("loras", "embeddings"))
    vae = _rows({"vae": [stored["vae"]]}, "vae") if stored.get("vae") is not None else []
    found = Kept(
        tuple((search.one(one), Weight(one.unet, one.text)) for one in loras),
        tuple(search.one(one) for one in embeddings),
        next((search.one(one) for one in vae), None),
    )
    return Kept(found.loras, found.embeddings, found.vae, tuple(dict.fromkeys(search.notes)))


def same_checkpoint(
    stored: Mapping[str, Any], bundle: Bundle, *, anyway: bool = False, cache_dir: Path | None = None
) -> str:
    """A note, or "": whether ``bundle`` has the weights that the picture's metadata mean.

    Raises InputError where they are others; with ``anyway`` the note says so. FileError for metadata that nobody wrote like that.
    """
    said = stored.get("checkpoint")
    if said is None or bundle.weights is None:
        return ""
    wanted = _row(said, "checkpoint").sha256
    if not wanted:
        return "model: the picture's file tells no sum of its weights: whether they are the same is not known"
    now = sum_of(bundle.weights, cache_dir, math.inf)
    if now == wanted:
        return ""
    other = f"model: the picture was drawn with other weights (sha256 {wanted[:12]}…) than {bundle.model} has now ({now[:12]}…)"
    if not anyway:
        raise InputError(
            f"{other}; name the right model with --model, or draw with these, another picture, with --anyway"
        )
    return f"{other}; these were taken"


def contents(place: Path, cache_dir: Path | None, most: float = CHEAP) -> list[str]:
    """The sums of a file, or of the weights of an autoencoder's folder; see ``sum_of``. Raises WeightsError."""
    inside = [place / "vae", place] if place.is_dir() else []
    files = [file for folder in inside if folder.is_dir() for file in sorted(folder.iterdir())] or [place]
    return [
        sum_of(file, cache_dir, most)
        for file in files
        if (file.suffix in SUFFIXES or is_index(file)) and file.is_file()
    ]


@dataclass
class _Search:
    """Looks for files, and remembers what is to be told."""

    models: Path | None
    files: Sequence[Path]
    anyway: bool
    cache_dir: Path | None
    notes: list[str] = field(default_factory=list)

    def one(self, wanted: Added) -> Path:
        shelf = vaes(self.models) if wanted.kind == "vae" else Shelf(f"{wanted.kind}s", self.models)
        named = [place for place in self.files if name_of(place) == wanted.name]
        candidates = list(dict.fromkeys([*named, *shelf.named(wanted.name)]))
        what = f"{wanted.kind}: the picture was drawn with {shown(wanted.name)}"
        if not wanted.sha256:
            if candidates:
                self.notes.append(f"{what}, of which its file tells no sum: whether it is the same is not known")
                return candidates[0]
            raise InputError(f"{what}, which is not found{shelf.where()}; give its file with --with, or put it there")
        same = next((place for place in (*candidates, *self.files) if self._same(place, wanted.sha256)), None)
        if same is not None and (same in candidates or wanted.kind == "vae"):
            return same
        if same is not None:  # a prompt may name it, and an embedding is a word
            raise InputError(f"{what}; {same.name} has its content under another name; call it so again")
        if not candidates:
            raise InputError(
                f"{what} (sha256 {wanted.sha256[:12]}…), which is not found{shelf.where()}; give its file with --with, or put it "
                "there"
            )
        other = f"{what} of another content (sha256 {wanted.sha256[:12]}…) than {candidates[0]} has now"
        if not self.anyway:
            raise InputError(f"{other}; give the right file with --with, or take this one with --anyway")
        self.notes.append(f"{other}; this one was taken")
        return candidates[0]

    def _same(self, place: Path, digest: str) -> bool:
        return digest in contents(place, self.cache_dir, math.inf)


def _rows(stored: Mapping[str, Any], name: str) -> list[Added]:
    """One list of the metadata, checked: anything can stand in a file."""
    rows = stored.get(name) or []
    if not isinstance(rows, list) or len(rows) > _MOST:
        raise FileError(f"the picture's metadata are damaged: {name} is no list of at most {_MOST}")
    return [_row(row, name) for row in rows]


def _row(row: Any, name: str) -> Added:
    said = row if isinstance(row, dict) else {}
    kind, called, digest = name.removesuffix("s"), said.get("name"), said.get("sha256", "")
    weights = [said.get("weight", 1.0), said.get("text_weight", said.get("weight", 1.0))]
    numbers = [float(one) for one in weights if isinstance(one, int | float) and not isinstance(one, bool)]
    right = (
        isinstance(called, str)
        and 0 < len(called) <= _LONGEST
        and len(numbers) == 2
        and all(map(math.isfinite, numbers))
    )
    if not (right and isinstance(called, str) and isinstance(digest, str) and (digest == "" or _SUM.fullmatch(digest))):
        raise FileError(f"the picture's metadata are damaged: {name} has {shown(row)}")
    return Added(kind, called, digest, *numbers)
