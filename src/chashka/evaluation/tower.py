"""A trained picture tower from its file, as figures need it. Needs the extra [torch]."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from chashka.errors import FileError, MissingExtraError, TrainingError
from chashka.evaluation.drawing import Float

AVERAGED = "image_tower/"


class TrainedTower:
    """The picture tower of an ``average.safetensors`` of the stage 'clip', or an exported component ``picture``."""

    def __init__(self, path: Path) -> None:
        """Raises MissingExtraError, FileError, and TrainingError for a file without a picture tower."""
        try:
            import torch
            from safetensors import SafetensorError, safe_open
        except ImportError:
            raise MissingExtraError("torch", "the picture tower") from None
        from chashka.checkpoints.safetensors_file import GRAPH_TENSOR
        from chashka.nets.configs import ImageTowerConfig
        from chashka.nets.image_tower import ImageTower

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                weights = {key: file.get_tensor(key).float() for key in file.keys() if key != GRAPH_TENSOR}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise FileError(f"{path}: cannot be read as weights of a picture tower ({error})") from error
        averaged = {k.removeprefix(AVERAGED): v for k, v in weights.items() if k.startswith(AVERAGED)}
        config = json.loads(metadata.get("recipe", "{}")).get("image") or json.loads(metadata.get("config", "{}"))
        try:
            self._tower = ImageTower(ImageTowerConfig(**config)).eval()
            self._tower.load_state_dict(averaged or weights)
        except (RuntimeError, TypeError) as error:
            raise TrainingError(f"{path}: no picture tower of this version in it ({error})") from error
        self.name, self._torch = "picture tower", torch

    def embed(self, small: Float) -> Float:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → (B, D)."""
        with self._torch.inference_mode():
            found = self._tower(self._torch.from_numpy(np.ascontiguousarray(small, np.float32)))
        vectors: Float = found.float().numpy()
        return vectors
