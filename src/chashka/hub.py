"""Checkpoints from the Hugging Face hub, when somebody asks for one by its address; never otherwise.

Only safetensors and small text files are taken; what arrives is compared with the sum that the hub names. Needs the extra [hub].
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from chashka.checkpoints.safetensors_file import sha256
from chashka.checkpoints.several_files import INDEX as INDEX_OF_PARTS
from chashka.checkpoints.several_files import PART
from chashka.errors import ChashkaError, FileError, InputError, MissingExtraError, WeightsError

ADDRESS = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")
INDEX = "model_index.json"
SMALL = (".json", ".txt", ".model")
"""What a folder of diffusers has besides weights: configurations and vocabularies."""

UNUSED = ("safety_checker", "feature_extractor")


@dataclass(frozen=True, slots=True)
class Fetched:
    """place: the file, or the folder. source: the address with the commit that the revision meant."""

    place: Path
    source: str


def fetch(
    address: str, into: Path, *, file: str | None = None, variant: str | None = None, endpoint: str | None = None
) -> Fetched:
    """Download ``hf:OWNER/NAME@REVISION`` into the folder ``into``.

    file: one file of the repository, where it has several checkpoints. variant: of a folder of diffusers, such as fp16. endpoint:
    another server than the hub. Raises InputError, WeightsError, FileError, MissingExtraError.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise InputError(f"{address[:80]!r} is no address; allowed: hf:OWNER/NAME@REVISION, such as hf:owner/name@main")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtraError("hub", f"downloading {address}")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    repo, revision = found["repo"], found["revision"]
    api = HfApi(endpoint=endpoint)
    try:
        info = api.model_info(repo, revision=revision, files_metadata=True)
        sizes = {one.rfilename: one for one in info.siblings or ()}
        wanted = chosen(list(sizes), file, variant, address)
        for name in wanted:
            api.hf_hub_download(repo, name, revision=info.sha, local_dir=into)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise InputError(f"{address}: the hub has no such repository or revision, or does not show it") from error
    except HFValidationError as error:
        raise InputError(f"{address}: {_first_line(error)}") from error
    except ChashkaError:
        raise
    except Exception as error:  # its versions raise the errors of different HTTP libraries
        raise FileError(f"{address}: the download failed ({_first_line(error)}); try again") from error
    for name in wanted:
        _check(into / name, sizes[name])
    place = into / wanted[0] if len(wanted) == 1 else into
    return Fetched(place, f"hf:{repo}@{info.sha}")


def chosen(files: list[str], file: str | None, variant: str | None, address: str) -> list[str]:
    """Which files of a repository make the model. Raises InputError that lists what there is to choose from."""
    files = [name for name in files if PurePosixPath(name).parts[0] not in UNUSED]
    safe = [name for name in files if name.endswith(".safetensors")]
    if file is not None:
        if file not in safe:
            raise InputError(f"file: {file[:80]!r} is not in {address}; allowed: {_some(safe)}")
        return [file]
    if INDEX in files:
        folders = sorted({str(PurePosixPath(name).parent) for name in safe} - {"."})
        weights = [_weights([n for n in files if str(PurePosixPath(n).parent) == f], variant, f) for f in folders]
        if not weights:
            raise InputError(f"{address} has no safetensors; other files may hold anything and are not taken")
        small = (
            n for n in files if n.endswith(SMALL) and "/" in n and not INDEX_OF_PARTS.fullmatch(PurePosixPath(n).name)
        )
        return [INDEX, *small, *(name for some in weights for name in some)]
    single = [name for name in safe if "/" not in name]
    if len(single) != 1:
        what = f"several: give one with --file ({_some(single)})" if single else "no safetensors"
        raise InputError(f"{address} has {what}; other files may hold anything and are not taken")
    return single


def _weights(files: list[str], variant: str | None, folder: str) -> list[str]:
    """A component's one file, or its several with their index: of the variant, or the plain one, or the only one there is.

    files: all of the component's folder. Raises InputError.
    """
    names = [name for name in files if name.endswith(".safetensors")]
    single = [name for name in names if not PART.fullmatch(PurePosixPath(name).name)]
    wanted = [name for name in single if (f".{variant}." in name if variant else name.count(".") == 1)]
    if len(wanted) == 1:
        return wanted
    several = _several(files)
    parts = [whole for of, whole in several.items() if of == variant]
    if not wanted and len(parts) == 1:
        return _whole(parts[0], folder)
    found = [] if variant or wanted or parts else [*([name] for name in single), *several.values()]
    if len(found) != 1:
        raise InputError(f"variant: {folder} has {_some(names)}; allowed: the part before .safetensors, such as fp16")
    return _whole(found[0], folder)


def _several(files: list[str]) -> dict[str | None, list[str]]:
    """Of each variant (None: the plain one) the parts in several files of safetensors, and their index first where it is there."""
    found: dict[str | None, list[str]] = {}
    for name in sorted(files):
        told = PART.fullmatch(PurePosixPath(name).name)
        if told is not None and told["kind"] == ".safetensors":
            found.setdefault(told["variant"] or told["former"], []).append(name)
    for name in files:
        told = INDEX_OF_PARTS.fullmatch(PurePosixPath(name).name)
        if told is not None and told["kind"] == ".safetensors" and (told["variant"] or told["former"]) in found:
            found[told["variant"] or told["former"]].insert(0, name)
    return found


def _whole(names: list[str], folder: str) -> list[str]:
    """The same. Raises InputError for parts of which one or the index is not there, before anything is downloaded."""
    parts = [told for name in names if (told := PART.fullmatch(PurePosixPath(name).name)) is not None]
    if not parts:
        return names
    count, there = int(parts[0]["of"]), {int(told["number"]) for told in parts}
    missing = [f"number {i}" for i in range(1, count + 1) if i not in there]
    missing += ["their index"] if len(names) == len(parts) else []
    if missing or len(names) != count + 1:
        what = f"missing: {_some(missing)}" if missing else "allowed: each number once"
        raise InputError(f"{folder}: its weights are in {count} files; found are {_some(names)}; {what}")
    return names


def _check(path: Path, sibling: Any) -> None:
    digest = sha256(path)
    said = sibling.lfs.sha256 if sibling.lfs else None
    if said is not None and said != digest:
        raise WeightsError(f"{path.name} arrived with sha256 {digest[:12]}…, the hub says {said[:12]}…; try again")


def _some(names: list[str]) -> str:
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "none"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
