"""Which scenes a training was shown: by the tables of ``chashka data scenes``, whatever the language of their captions.

A sentence counts as seen when one of the tables has its scene exactly: the same things in the same order with the same colours,
sizes and counts, the same relation, no more and no less. The last scenes of a table count too, which the contrastive stage only
measures with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chashka.checkpoints import read_metadata, sha256
from chashka.checkpoints.safetensors_file import read_tensors
from chashka.data.composed_words import EMOJI
from chashka.data.scenes import Scene, columns_of
from chashka.errors import InputError

COLUMNS = ("noun", "colour", "size", "relation", "ground", "ground_colour", "style")


class SeenScenes:
    """The scenes of ``tables`` (scenes.safetensors). Raises WeightsError, and InputError for a table of another grammar."""

    def __init__(self, tables: Sequence[Path]) -> None:
        self.tables = {path.name: sha256(path) for path in tables}
        if len(self.tables) < len(tables):  # tables of several folders are called the same
            self.tables = {f"{path.parent.name}/{path.name}": sha256(path) for path in tables}
        self._known: set[bytes] = set()
        for path in tables:
            if json.loads(read_metadata(path).get("emoji", "[]")) != list(EMOJI):
                raise InputError(
                    f"{path}: not a table of scenes of this grammar's things; give one of chashka data scenes"
                )
            self._known.update(_rows(read_tensors(path)))

    def __len__(self) -> int:
        """How many different scenes."""
        return len(self._known)

    def unseen(self, scenes: Sequence[Scene]) -> list[int]:
        """The numbers of those that no table has."""
        return [i for i, row in enumerate(_rows(columns_of(scenes))) if row not in self._known]


def _rows(columns: Mapping[str, Any]) -> list[bytes]:
    """What each scene shows, in one key."""
    count = len(columns["relation"])
    parts = [np.asarray(columns[name], np.int8).reshape(count, -1) for name in COLUMNS]
    return [row.tobytes() for row in np.concatenate(parts, axis=1)]
