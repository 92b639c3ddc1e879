"""Compiled graphs on disk, without their weights, a bounded number of them.

OpenVINO's own CACHE_DIR would do, but grows for ever and needs the graph to be read and hashed before it finds a blob.
Here the key says everything that a blob depends on, so a hit reads nothing else; blobs used least recently are deleted.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from chashka.checkpoints.safetensors_file import replace
from chashka.engines.machine import processor
from chashka.engines.runtime import openvino
from chashka.errors import FileError

FOLDER = "graphs"
LAYOUT = "2"  # part of the key: raise it when what is stored changes
MAX_BLOBS = 48
MAX_BYTES = 256 * 2**20
DIGEST = 32  # bytes of sha256 after the blob: OpenVINO does not survive a damaged one

log = logging.getLogger(__name__)


class CompiledCache:
    """Blobs of one component. folder: shared by all; graph: its file; weights_sha256: of its weights.

    Nothing here raises for a cache that cannot be read or written: it is an optimisation.
    """

    def __init__(self, folder: Path, graph: Path, weights_sha256: str) -> None:
        self.folder = Path(folder) / FOLDER
        self.name = graph.stem
        self._owner: tuple[str, ...] = (hashlib.sha256(graph.read_bytes()).hexdigest(), weights_sha256)

    def apart(self, variant: str) -> CompiledCache:
        """For the same graph after a change that ``variant`` names."""
        other = copy.copy(self)
        other._owner = (*self._owner, variant)
        return other

    def path(self, shapes: Any, settings: Mapping[str, Any]) -> Path:
        """Where the blob for these shapes and settings lies, on this machine and with this version of openvino."""
        parts = [LAYOUT, *self._owner, openvino().get_version(), processor(), shapes, sorted(settings.items())]
        return self.folder / f"{self.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}.blob"

    def load(self, core: Any, weights: Path, shapes: Any, settings: Mapping[str, Any]) -> Any:
        """The compiled graph, or None."""
        path = self.path(shapes, settings)
        try:
            with path.open("rb") as file:
                blob, digest = file.read(max(path.stat().st_size - DIGEST, 0)), file.read()
        except OSError:
            return None
        if hashlib.sha256(blob).digest() != digest:
            log.debug("%s is damaged and will be written again", path)
            return None
        try:
            compiled = core.import_model(
                blob, "CPU", dict(settings) | {"WEIGHTS_PATH": str(weights), "CACHE_MODE": "OPTIMIZE_SIZE"}
            )
        except RuntimeError as error:
            log.debug("%s cannot be loaded: %s", path, error)
            return None
        with suppress(OSError):
            os.utime(path)
        return compiled

    def store(self, compiled: Any, shapes: Any, settings: Mapping[str, Any]) -> None:
        """Keep what ``core.compile_model`` made; then delete what was used least recently beyond the limits."""
        try:
            exported = compiled.export_model()
            blob = exported if isinstance(exported, bytes) else exported.getvalue()
            replace(self.path(shapes, settings), [blob, hashlib.sha256(blob).digest()])
            self._prune()
        except (FileError, OSError, RuntimeError) as error:
            log.debug("the compiled graph of %s is not kept: %s", self.name, error)

    def _prune(self) -> None:
        found = sorted(((p.stat(), p) for p in self.folder.glob("*.blob")), key=lambda item: -item[0].st_mtime_ns)
        total = 0
        for number, (status, path) in enumerate(found):
            total += status.st_size
            if number >= MAX_BLOBS or total > MAX_BYTES:
                path.unlink(missing_ok=True)
