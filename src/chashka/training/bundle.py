"""Packs what training imports into one zip that runs on a bare machine: Python 3.12, torch, numpy, safetensors.

python -m chashka.training.bundle bundle.zip
PYTHONPATH=bundle.zip python -m chashka.training unet --shards DIR --run DIR --minutes 9 --device cuda …
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import chashka
from chashka.errors import FileError
from chashka.training.origin import PACKED_REVISION, revision

PACKED = (
    "training/*.py",
    "checkpoints/*.py",
    "nets/*.py",
    "diffusion/*.py",
    "prompts/*.py",
    "engines/__init__.py",
    "engines/components.py",
    "engines/engine.py",
    "data/shards.py",
    "data/colours.py",
    "data/__init__.py",
    "evaluation/__init__.py",
    "evaluation/detections.py",
    "evaluation/scene_checks.py",
    "evaluation/colours.py",
    "errors.py",
)
LEFT_OUT = (
    "training/ship.py",
    "training/ship_judge.py",
    "training/judge_perfect.py",
    "training/hearing.py",
    "training/parcel.py",
)
"""They export with OpenVINO, and measure what they exported: done where the package is."""
EMPTY = "chashka/__init__.py"


def write_bundle(path: Path) -> list[str]:
    """Write the zip (same sources and commit, same bytes) and return the names in it. It carries the commit, if there is one."""
    root = Path(chashka.__file__).parent
    files = sorted({file for pattern in PACKED for file in root.glob(pattern)} - {root / name for name in LEFT_OUT})
    names, commit = [], revision()
    carried = [] if commit is None else [(f"chashka/training/{PACKED_REVISION}", f"{commit}\n".encode())]
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, data in [
                (EMPTY, b""),
                *((f"chashka/{f.relative_to(root).as_posix()}", f.read_bytes()) for f in files),
                *carried,
            ]:
                bundle.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
                names.append(name)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    return names


if __name__ == "__main__":
    print(f"{len(write_bundle(Path(sys.argv[1])))} files in {sys.argv[1]}")
