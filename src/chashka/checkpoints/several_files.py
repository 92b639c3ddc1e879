"""Weights in several files: an index says which file holds which of them. The index's path stands for all of them.

diffusers and transformers write so what is larger than a file shall be: ``NAME.safetensors.index.json`` with a ``weight_map`` from
names to files, and beside it ``NAME-00001-of-00002.safetensors`` and so on; of torch's files ``NAME.bin.index.json``. It comes
with what was downloaded and is not trusted: it may name files of its own folder alone, and each weight has to be where it says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from chashka.checkpoints import content
from chashka.checkpoints.configurations import read_json
from chashka.checkpoints.renaming import HARMLESS, some
from chashka.checkpoints.safetensors_file import NumpyArray, layout
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import WeightsError

KINDS = r"(?P<kind>\.safetensors|\.bin)"
INDEX = re.compile(rf"(?P<stem>[\w-]+){KINDS}(\.(?P<former>[\w-]+))?\.index(\.(?P<variant>[\w-]+))?\.json")
"""Names of indices. variant: such as fp16; former: the place where diffusers put it at first, and still reads it."""
PART = re.compile(
    r"(?P<stem>[\w-]+)(\.(?P<variant>[\w-]+))?-(?P<number>\d{5})-of-(?P<of>\d{5})" + rf"(\.(?P<former>[\w-]+))?{KINDS}"
)
"""Names of parts, as they are usual. An index may name others."""
BESIDE = re.compile(r"\w[\w.+-]{0,199}", re.ASCII)
"""What an index may name: no path in any system's notation, nothing hidden, and nothing that no file can be called."""
SHOWN = 12
"""Parts that a message names."""


def is_index(path: Path) -> bool:
    """Whether a path is called like the index of weights in several files."""
    return INDEX.fullmatch(path.name) is not None


def parts(index: Path) -> dict[Path, list[str]]:
    """The files that an index names, with the names of the weights that each of them shall hold, all in its order.

    Raises WeightsError for an index that is none, and for one that names anything but files of its own kind in its own folder.
    """
    said = read_json(index).get("weight_map")
    if not isinstance(said, dict) or not said or not all(isinstance(file, str) for file in said.values()):
        raise WeightsError(
            f"{index}: its weight_map is {said!r:.60}; allowed: a table from names of weights to names of files; fetch it again"
        )
    told = INDEX.fullmatch(index.name)
    kind = told["kind"] if told is not None else ".safetensors"
    found: dict[Path, list[str]] = {}
    for name, file in said.items():
        if not BESIDE.fullmatch(file) or not file.endswith(kind):
            raise WeightsError(
                f"{index}: refused: it says that {name!r:.80} is in {file!r:.80}; allowed: names of {kind} files in its own "
                "folder. Take the folder as it was published"
            )
        found.setdefault(index.with_name(file), []).append(name)
    return found


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold weights: of an index its parts, in its order; any other file itself. Raises WeightsError."""
    return tuple(parts(path)) if is_index(path) else (path,)


def there(path: Path) -> bool:
    """Whether a file is there; of an index, one of its parts at least. Raises WeightsError for an index that is none."""
    return path.is_file() and any(file.is_file() for file in files_of(path))


def check(index: Path, *, torch: bool = False) -> None:
    """Raises WeightsError where a part is missing or damaged, or holds other weights than the index says. Reads headers alone.

    torch: open torch's files for it too; otherwise these only have to be there.
    """
    said = _there(index)
    held: dict[Path, Collection[str]] = {}
    for file in said:
        of_torch = content.is_torch(file)
        if torch or not of_torch:
            held[file] = read_checkpoint(file) if of_torch else layout(file)[0]
    _check_held(index, said, held)


def read_weights(path: Path) -> dict[str, NumpyArray]:
    """The weights by name of a single file or, for an index, of all its parts. Raises WeightsError as ``read_checkpoint`` does,
    and where parts are missing or hold other weights than the index says."""
    if not is_index(path):
        return read_checkpoint(path)
    said = _there(path)
    held = {file: read_checkpoint(file) for file in said}
    _check_held(path, said, held)
    return {name: value for tensors in held.values() for name, value in tensors.items()}


def _there(index: Path) -> dict[Path, list[str]]:
    """The parts, all of which are there. Raises WeightsError that says which are and which are not."""
    said = parts(index)
    missing = [file.name for file in said if not file.is_file()]
    if missing:
        found = [file.name for file in said if file.is_file()]
        raise WeightsError(
            f"{index.parent}: {index.name} says that its weights are in {len(said)} files; missing {_are(missing)} "
            f"{some(missing, SHOWN)}; found {_are(found)} {some(found, SHOWN) or 'none of them'}. Put what is missing there, as it "
            "was published"
        )
    return said


def _check_held(index: Path, said: Mapping[Path, list[str]], held: Mapping[Path, Collection[str]]) -> None:
    """held: the names of the weights in those files that were looked into."""
    for file, names in held.items():
        lacking = [name for name in said[file] if name not in names]
        if lacking:
            other = next((one.name for one in held if lacking[0] in held[one]), None)
            where = "no other file of its does" if other is None else f"{_named(lacking[:1])} is in {other}"
            what = (
                f"it says that {_named(lacking)} {_are(lacking)} in {file.name}, which does not hold {_them(lacking)}"
            )
            _disagree(index, f"{what}; {where}")
    places = {name: file for file, names in said.items() for name in names}
    for file, names in held.items():
        more = [name for name in names if places.get(name) != file and not HARMLESS.match(name)]
        if more:
            by_index = f"by the index is in {places[more[0]].name}" if more[0] in places else "the index does not know"
            _disagree(index, f"{file.name} holds {_named(more)}, which {by_index}")


def _disagree(index: Path, how: str) -> NoReturn:
    raise WeightsError(f"{index}: {how}. Take index and files of one version, as they were published")


def _named(names: Sequence[str]) -> str:
    """The first names, for one line, whatever somebody wrote there."""
    return some([name[:80] if name.isprintable() else f"{name!r:.80}" for name in names])


def _are(names: Collection[str]) -> str:
    return "are" if len(names) > 1 else "is"


def _them(names: Collection[str]) -> str:
    return "them" if len(names) > 1 else "it"
