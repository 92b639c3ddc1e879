"""What a run's weights came from, kept beside them: start weights, data, code, machine. For the registry of shipped weights."""

from __future__ import annotations

import importlib.resources
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from chashka.checkpoints.safetensors_file import replace, sha256
from chashka.training.recipes import (
    ContrastiveRecipe,
    JudgeRecipe,
    PictureRecipe,
    Recipe,
    T5Recipe,
    UNetRecipe,
)

FILE = "origin.json"
MANIFEST = "manifest.jsonl.gz"
PACKED_REVISION = "revision.txt"
"""What a bundle for a machine without git carries beside this file (bundle.py)."""
KEYS = ("captions", "data", "frozen", "hours", "machine", "parents", "revision", "scenes")
"""The metadata that ``origin`` gives; an export hands them on."""
PARTS = {
    "autoencoder": ("encoder", "decoder"),
    "clip": ("text_contrastive",),
    "t5": ("text_t5",),
    "picture": ("picture",),
    "unet": ("unet", "text_head"),
}
"""The components that later stages read of the weights of an earlier one."""


def begin(
    run: Path,
    shards: Path,
    starts: Sequence[tuple[Path, tuple[str, ...]]],
    device: str,
    tables: tuple[str, ...] = (),
    frozen: Mapping[str, Path] | None = None,
) -> None:
    """Write ``origin.json`` into the folder of a new run; what is not known is left out.

    starts: the weights that the run goes on from, each with the components that it takes of them. tables: files of ``shards``
    that the run reads besides pictures, by their stems. frozen: the weights of earlier stages, by stage.
    """
    found: dict[str, object] = {"machine": machine(device)}
    if (shards / MANIFEST).is_file():
        found["data"] = sha256(shards / MANIFEST)
    for name in tables:
        if (shards / f"{name}.safetensors").is_file():
            found[name] = sha256(shards / f"{name}.safetensors")
    if starts:
        files = [file for start, parts in starts for file in weight_files(start, parts)]
        found["parents"] = [sha256(file) for file in files if file.is_file()]
    if frozen:
        found["frozen"] = frozen_weights(frozen)
    code = revision()
    if code is not None:
        found["revision"] = code
    run.mkdir(parents=True, exist_ok=True)
    replace(run / FILE, [json.dumps(found, indent=1, sort_keys=True).encode()])


def tables_of(recipe: Recipe) -> tuple[str, ...]:
    """The files of a shard folder, by their stems, that a run of this recipe reads besides pictures."""
    read = []
    if isinstance(recipe, ContrastiveRecipe | T5Recipe | PictureRecipe | UNetRecipe):
        read.append("captions")
    composed = isinstance(recipe, UNetRecipe) and recipe.scenes > 0
    spoken = isinstance(recipe, ContrastiveRecipe | T5Recipe) and recipe.sentences > 0
    spoken = spoken or (isinstance(recipe, ContrastiveRecipe) and recipe.kept > 0)
    if composed or spoken or isinstance(recipe, JudgeRecipe):
        read.append("scenes")
    return tuple(read)


def frozen_weights(frozen: Mapping[str, Path]) -> dict[str, str]:
    """sha256 of the files, by ``stage`` for a run's weights and by ``stage/component`` for those of a folder of components."""
    found = {}
    for stage, path in sorted(frozen.items()):
        for file in weight_files(path, PARTS.get(stage, ())):
            if file.is_file():
                found[f"{stage}/{file.stem}" if path.is_dir() else stage] = sha256(file)
    return found


def weight_files(weights: Path, parts: tuple[str, ...]) -> list[Path]:
    """Where the components ``parts`` lie: in an ``average.safetensors``, or in files of their own."""
    return [weights / f"{part}.safetensors" for part in parts] if weights.is_dir() else [weights]


def origin(run: Path, seconds: float) -> dict[str, str]:
    """Metadata for a run's weights: hours of training, machine, revision, parents (JSON list) and frozen (JSON object); sha256 of
    the pictures' manifest (data), and of captions and scenes where they were read.

    seconds: of training so far. A run that was begun before there was an ``origin.json`` has its hours alone.
    """
    found: dict[str, object] = {}
    with suppress(OSError, ValueError):
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
    stored = {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}
    return {key: stored[key] for key in KEYS if key in stored} | {"hours": f"{seconds / 3600:.3f}"}


def machine(device: str) -> str:
    """For people: the processor and how many cores this process may use, or the GPU."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {_processor()}"


def revision() -> str | None:
    """The git commit of this code, with "+" where files differ from it: a bundle's own, or the checkout's; else None."""
    packed = importlib.resources.files(__package__) / PACKED_REVISION
    if packed.is_file():
        return packed.read_text(encoding="utf-8").strip() or None
    here = Path(__file__).parent
    words = ["git", "-C", str(here)]
    try:
        top = subprocess.run([*words, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        changed = subprocess.run(
            [*words, "status", "--porcelain", "--", str(here.parent)], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    commit = top.stdout.strip()
    return commit + "+" * bool(changed.stdout.strip()) if top.returncode == 0 and commit else None


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
