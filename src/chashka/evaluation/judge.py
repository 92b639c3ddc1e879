"""Who says what a picture shows. Two judges, both of which know the pictures that the models learnt from.

``NearestJudge`` compares with every training picture and takes the nearest one's concept. ``PrototypeJudge`` is the picture
encoder of the training stage 'picture', which is as good as that stage was trained. Reports state how often a judge is
right about held-out pictures: its word on drawings is worth no more than that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from chashka.errors import FileError, MissingExtraError, TrainingError
from chashka.evaluation.drawing import Float
from chashka.evaluation.gallery import Gallery

CAVEAT = (
    "The judge knows the same pictures as the model: its figures compare models with each other and with held-out "
    "pictures, and are no measure of what people recognise."
)
_TOWER, _PROTOTYPES = "picture/", "prototypes/concept"


class Judge(Protocol):
    """Whatever says how alike pictures are to concepts; ``name`` is for reports."""

    @property
    def name(self) -> str:
        """What it looks at, in a few words."""

    @property
    def concepts(self) -> Sequence[str]:
        """The concept ids that the columns of ``scores`` stand for."""

    def scores(self, small: Float) -> Float:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → (B, C), higher is more alike."""


class NearestJudge:
    """The negative distance to the nearest training picture of each concept (see ``gallery``); −inf if it has none."""

    name = "nearest training picture"

    def __init__(self, training: Gallery) -> None:
        self.concepts = tuple(training.names)
        self._training = training
        columns = {concept: i for i, concept in enumerate(self.concepts)}
        labels = np.array([columns[concept] for concept in training.concepts])
        self._order = np.argsort(labels, kind="stable")
        self._columns, self._starts = np.unique(labels[self._order], return_index=True)

    def scores(self, small: Float) -> Float:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → (B, C), at most 0."""
        scores = np.full((len(small), len(self.concepts)), -np.inf, np.float32)
        ordered = self._training.distances(small)[:, self._order]
        scores[:, self._columns] = -np.minimum.reduceat(ordered, self._starts, axis=1)
        return scores


class PrototypeJudge:
    """Cosines between the picture encoder's vectors and those of the concepts' names. Needs the extra [torch]."""

    name = "picture encoder"

    def __init__(self, average: Path, concepts: Sequence[str]) -> None:
        """``average``: the averaged weights of a run of the stage 'picture'. ``concepts``: the list that the run was trained with.

        Raises MissingExtraError, FileError and TrainingError (another stage's weights, or of other concepts).
        """
        try:
            import torch
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise MissingExtraError("torch", "the picture encoder as a judge") from None
        from chashka.nets.configs import ImageTowerConfig
        from chashka.nets.image_tower import ImageTower

        try:
            with safe_open(average, framework="pt") as file:
                recipe = json.loads((file.metadata() or {}).get("recipe", "{}"))
                names = [name for name in file.keys() if name.startswith((_TOWER, _PROTOTYPES))]  # noqa: SIM118
                weights = {name: file.get_tensor(name).float() for name in names}
        except (OSError, SafetensorError) as error:
            raise FileError(f"{average}: cannot be read as averaged weights ({error})") from error
        if _PROTOTYPES not in weights or recipe.get("stage") != "picture":
            raise TrainingError(f"{average}: not the averaged weights of the stage 'picture'")
        prototypes = weights.pop(_PROTOTYPES)
        if len(prototypes) != len(concepts):
            raise TrainingError(
                f"{average}: knows {len(prototypes)} concepts, the shards {len(concepts)}: not of one training"
            )
        self.concepts = tuple(concepts)
        self._torch = torch
        self._prototypes = torch.nn.functional.normalize(prototypes, dim=-1)
        self._tower = ImageTower(ImageTowerConfig(**recipe["network"])).eval()
        try:
            self._tower.load_state_dict({name.removeprefix(_TOWER): value for name, value in weights.items()})
        except RuntimeError as error:
            raise TrainingError(f"{average}: the picture encoder is not the one of its recipe ({error})") from error

    def scores(self, small: Float) -> Float:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → cosines (B, C)."""
        torch = self._torch
        found = []
        with torch.inference_mode():
            for start in range(0, len(small), 64):
                pooled = self._tower(torch.from_numpy(np.ascontiguousarray(small[start : start + 64], np.float32)))
                found.append(torch.nn.functional.normalize(pooled, dim=-1) @ self._prototypes.T)
        cosines: Float = torch.cat(found).numpy()
        return cosines
