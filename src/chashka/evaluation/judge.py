"""The classifier that says what a picture shows: the image tower and the prototypes of the contrastive training stage.

It learnt from the same pictures as the models that it judges. Its word is good for comparing two models, and an upper
bound of nothing: a drawing that it recognises looks to it like the training pictures of that concept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from chashka.errors import FileError, MissingExtraError, TrainingError
from chashka.evaluation.drawing import Float

CAVEAT = (
    "The judge was trained on the same pictures as the model: its figures compare models with each other and with "
    "held-out pictures, and are no measure of what people recognise."
)
_TOWER, _PROTOTYPES = "image_tower/", "prototypes/concept"


class Judge(Protocol):
    """Whatever says how alike pictures are to concepts."""

    @property
    def concepts(self) -> Sequence[str]:
        """The concept ids that the columns of ``scores`` stand for."""

    def scores(self, small: Float) -> Float:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → (B, C), higher is more alike."""


class PrototypeJudge:
    """Cosines between the image tower's vectors and the concepts' prototypes. Needs the extra [torch]."""

    def __init__(self, average: Path, concepts: Sequence[str]) -> None:
        """``average``: the averaged weights of a run of the stage 'clip'. ``concepts``: the list that the run was trained with.

        Raises MissingExtraError, FileError and TrainingError (another stage's weights, or of other concepts).
        """
        try:
            import torch
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise MissingExtraError("torch", "recognition") from None
        from chashka.nets.configs import ImageTowerConfig
        from chashka.nets.image_tower import ImageTower

        try:
            with safe_open(average, framework="pt") as file:
                recipe = json.loads((file.metadata() or {}).get("recipe", "{}"))
                weights = {k: file.get_tensor(k) for k in file.keys() if k.startswith((_TOWER, _PROTOTYPES))}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise FileError(f"{average}: cannot be read as averaged weights ({error})") from error
        if _PROTOTYPES not in weights or "image" not in recipe:
            raise TrainingError(f"{average}: not the averaged weights of the stage 'clip', which has the judge")
        prototypes = weights.pop(_PROTOTYPES).float()
        if len(prototypes) != len(concepts):
            raise TrainingError(
                f"{average}: knows {len(prototypes)} concepts, the shards {len(concepts)}: not of one training"
            )
        self.concepts = tuple(concepts)
        self._torch = torch
        self._prototypes = torch.nn.functional.normalize(prototypes, dim=-1)
        self._tower = ImageTower(ImageTowerConfig(**recipe["image"])).eval()
        try:
            self._tower.load_state_dict({k.removeprefix(_TOWER): v.float() for k, v in weights.items()})
        except RuntimeError as error:
            raise TrainingError(f"{average}: the image tower is not the one of its recipe ({error})") from error

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
