"""A model's card: what it is, its files, how well it draws, where each file came from, what it learnt from.

From its own files, the registry and the reports beside that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chashka.checkpoints import read_metadata, sha256
from chashka.checkpoints.bfloat16 import BFLOAT16
from chashka.checkpoints.content import is_safetensors
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import OtherKindError, WeightsError
from chashka.evaluation.card_figures import figures
from chashka.evaluation.registry import Entry, Registry
from chashka.families import Preset
from chashka.families.files import weight_files
from chashka.families.teacups import FAST

ATTRIBUTION = "ATTRIBUTION.md"
UNKNOWN = "not known"
DAMAGED = "damaged"
PRECISIONS = {
    np.dtype(np.float16): "fp16",
    np.dtype(np.float32): "fp32",
    np.dtype(np.float64): "fp64",
    BFLOAT16: "bf16",
}


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights as it lies on disk."""

    name: str
    bytes: int
    sha256: str
    precision: str
    licence: str
    steps: str


def known_files(preset: Preset) -> list[WeightFile]:
    """The model's weight files that are here. Raises WeightsError for damaged ones."""
    return [_known(path, preset) for path in weight_files(preset)]


def _known(path: Path, preset: Preset) -> WeightFile:
    metadata = read_metadata(path) if is_safetensors(path) else {}
    precision = metadata["precision"] if "precision" in metadata else precision_of(path)
    told = (precision, metadata.get("licence", UNKNOWN), metadata.get("steps", "0"))
    return WeightFile(_name(path, preset), path.stat().st_size, sha256(path), *told)


def _name(path: Path, preset: Preset) -> str:
    """From the model's folder; of a file that is another preset's, its own name."""
    below = path.parent.resolve().is_relative_to(preset.place.resolve())
    return path.relative_to(preset.place).as_posix() if below else path.name


def precision_of(path: Path) -> str:
    """What most of a file's numbers are, such as ``fp16``; UNKNOWN for one that holds no weights. Raises WeightsError."""
    try:
        tensors = read_checkpoint(path)
    except OtherKindError:  # a training's settings, say, beside the weights
        return UNKNOWN
    numbers: Counter[str] = Counter()
    for tensor in tensors.values():
        numbers[PRECISIONS.get(tensor.dtype, str(tensor.dtype))] += tensor.size
    return numbers.most_common(1)[0][0]


def card(name: str, preset: Preset, registry: Registry | None, reports: Path | None = None) -> str:
    """Markdown. registry: for the history; without one the card says what the files themselves say.

    reports: the folder that holds a folder of reports for each model, where there is one.
    """
    files = known_files(preset)
    parts = [
        f"# {name}",
        f"{preset.summary[:1].upper()}{preset.summary[1:]}. Licence: {preset.licence}.",
        "## Files",
        "\n".join(_table(files)),
        f"{sum(file.bytes for file in files):,} bytes of weights in all; the graphs beside them hold none of their own.",
        "## How it draws",
        "\n".join(_drawing(preset)),
        "## How well",
        *figures(name, reports, {file.name: file.sha256 for file in files}),
        "## Where the weights came from",
        *_history(files, registry),
        "## What it is for, and what it is not",
        "For drawings of single things and simple scenes, for trying out diffusion models, and for tests that need a real one. "
        "It knows what its training drawings show, and is too small to be relied on for facts. Every picture that is saved "
        "carries its request in its metadata.",
    ]
    learnt = _attribution(preset.place)
    if learnt is not None:
        parts += ["## What it learnt from", learnt]
    return "\n\n".join(parts) + "\n"


def _table(files: list[WeightFile]) -> list[str]:
    rows = [f"| `{f.name}` | {f.bytes:,} | {f.precision} | {f.licence} | `{f.sha256}` |" for f in files]
    return ["| file | bytes | precision | licence | sha256 |", "|---|---|---|---|---|", *rows]


def _drawing(preset: Preset) -> list[str]:
    """What the files say about sampling; of drafts, what the change says that they are drawn with, if there is one."""
    lines = []
    here = sorted(weight_files(preset), key=lambda path: path.stem)
    changed = any(path.stem == FAST for path in here)
    for path in here:
        metadata = read_metadata(path) if is_safetensors(path) else {}
        for key in ("prediction", "data_std", "schedule", "defaults", "fast", "latent_scale"):
            if key in metadata and not (key == "fast" and changed and path.stem != FAST):
                lines.append(f"- {path.stem}: {key} {metadata[key]}")
    return lines


def _history(files: list[WeightFile], registry: Registry | None) -> list[str]:
    if registry is None:
        steps = "\n".join(f"- `{file.name}`: {_steps(file.steps)}" for file in files)
        return ["There is no registry beside this model. Its files say:", steps]
    return [_told(file, registry) for file in files]


def _steps(steps: str) -> str:
    return f"{int(steps):,} steps" if steps.isdecimal() and int(steps) else f"steps {UNKNOWN}"


def _told(file: WeightFile, registry: Registry) -> str:
    entry = registry.of(file.sha256)
    if entry is None:
        return f"**{file.name}** is not in the registry; {_steps(file.steps)} by its own metadata."
    facts = {
        "steps of the last run": None if entry.steps is None else f"{entry.steps:,}",
        "hours of the last run": None if entry.hours is None else f"{entry.hours:g}",
        "recipe": _code(entry.recipe),
        "log": _code(entry.log),
        "machine": entry.machine,
        "code": _code(entry.revision),
        "training pictures (sha256 of their manifest)": _code(entry.data),
        "began with": _parents(entry, registry),
    }
    rows = [f"- {what}: {UNKNOWN if value is None else value}" for what, value in facts.items()]
    tables = {"captions": entry.captions, "scenes": entry.scenes}
    rows += [f"- {what} (sha256): `{digest}`" for what, digest in tables.items() if digest]
    rows += [f"- read as it was: {name} `{digest[:16]}…`" for name, digest in (entry.frozen or {}).items()]
    return "\n".join([f"**{file.name}**", "", *rows, *([f"- note: {entry.note}"] if entry.note else [])])


def _parents(entry: Entry, registry: Registry) -> str | None:
    if entry.parents is None:
        return None
    known = [(digest, registry.of(digest)) for digest in entry.parents]
    told = [f"`{digest[:16]}…`" + (f" ({_bare(parent.file)})" if parent else "") for digest, parent in known]
    return ", ".join(told) or "random weights"


def _bare(file: str) -> str:
    """Of a file that is not in the sources, whose entry says so in parentheses, what stands in them."""
    return file[1:-1] if file.startswith("(") and file.endswith(")") else file


def _code(value: str | None) -> str | None:
    return None if value is None else f"`{value}`"


def _attribution(folder: Path) -> str | None:
    """The attribution beside the model or in the folder above, its headings one level down."""
    for place in (folder, folder.parent):
        if (place / ATTRIBUTION).is_file():
            lines = (place / ATTRIBUTION).read_text(encoding="utf-8").strip().splitlines()
            return "\n".join(
                f"#{line}" if line.startswith("##") else line for line in lines if line[:2] != "# "
            ).strip()
    return None


def weight_facts(preset: Preset) -> tuple[list[dict[str, str | int]], list[str]]:
    """The model's weight files as plain data, and what is wrong with those that are damaged, one sentence each."""
    keys = ("name", "bytes", "sha256", "precision", "licence")
    rows, faults = [], []
    for path in weight_files(preset):
        try:
            file = _known(path, preset)
        except WeightsError as error:
            file = WeightFile(_name(path, preset), path.stat().st_size, sha256(path), DAMAGED, UNKNOWN, "0")
            faults.append(str(error))
        rows.append({key: getattr(file, key) for key in keys})
    return rows, faults
