"""Which content a file of weights has: its sha256, computed once and remembered in the cache folder by path, size and time.

Weights in several files are known by their index (``checkpoints.several_files``), and their content by that of the parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from chashka.checkpoints.safetensors_file import sha256
from chashka.checkpoints.several_files import files_of, is_index
from chashka.engines.remembered import recall, remember
from chashka.errors import WeightsError

CHEAP = 1_000_000_000
"""Bytes that are read for a sum that is good to have and not needed: a second, or two."""
FILE = "sums.json"
"""In the cache folder: {path: [size, time in nanoseconds, sha256]}."""


def content_of(file: Path, cache_dir: Path | None) -> str:
    """The sha256 of ``file``, 64 digits, so that a copy of it at another path is the same.

    Of an index: the sum of its parts' sums, one a line, in rising order. No two parts hold the same weight, so that neither their
    names nor their order says anything more.

    Without a cache folder nothing is kept for the next process, and what cannot be found again needs no sum: then its path, size
    and time are what is returned. Raises WeightsError for a file that cannot be read.
    """
    if is_index(file):
        return _of_all([content_of(part, cache_dir) for part in files_of(file)])
    path, state = _state(file)
    if cache_dir is None:
        return repr((path, *state))
    digest = _known(file, cache_dir)
    if digest is None:
        digest = sha256(file)
        learn(cache_dir, {file: digest})
    return digest


def sum_of(file: Path, cache_dir: Path | None, most: float = CHEAP) -> str:
    """The sha256 of ``file``, 64 digits, of an index as in :func:`content_of`; "" where it is not remembered and more than ``most``
    bytes would have to be read.

    Raises WeightsError for a file that cannot be read.
    """
    parts = files_of(file) if is_index(file) else (file,)
    sums = {part: None if cache_dir is None else _known(part, cache_dir) for part in parts}
    unknown = [part for part, known in sums.items() if known is None]
    if sum(_state(part)[1][0] for part in unknown) > most:
        return ""
    made = {part: sha256(part) for part in unknown}
    if cache_dir is not None and made:
        learn(cache_dir, made)
    found = [made.get(part) or known or "" for part, known in sums.items()]
    return _of_all(found) if is_index(file) else found[0]


def _of_all(sums: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(sums)).encode()).hexdigest()


def _known(file: Path, cache_dir: Path) -> str | None:
    """The sum that is remembered of a file as it is now."""
    path, state = _state(file)
    known = recall(cache_dir / FILE).get(path)
    if isinstance(known, list) and known[:2] == state and len(known) == 3 and isinstance(known[2], str):
        return known[2]
    return None


def learn(cache_dir: Path, sums: Mapping[Path, str]) -> None:
    """Remember sums that somebody has computed already. Files that are gone are forgotten. Raises WeightsError."""
    known = {path: value for path, value in recall(cache_dir / FILE).items() if Path(path).is_file()}
    for file, digest in sums.items():
        path, state = _state(file)
        known[path] = [*state, digest]
    remember(cache_dir / FILE, known)


def state_of(file: Path) -> tuple[tuple[str, list[int]], ...]:
    """Its path, and size and time, of an index those of its parts too: where they are equal, the content is what it was.

    Raises WeightsError.
    """
    parts = files_of(file) if is_index(file) else ()
    return tuple(_state(one) for one in (file, *parts))


def _state(file: Path) -> tuple[str, list[int]]:
    try:
        state = file.stat()
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror}") from error
    return str(file.resolve()), [state.st_size, state.st_mtime_ns]
