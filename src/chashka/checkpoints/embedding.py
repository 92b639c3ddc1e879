"""Embeddings of textual inversion (arXiv 2208.01618): new words for a text encoder, as rows of its table.

Read are AUTOMATIC1111's files (``string_to_param``, ``emb_params``) and those of diffusers (``{"<word>": vectors}``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chashka.checkpoints.safetensors_file import NumpyArray
from chashka.checkpoints.torch_file import read_whole
from chashka.errors import WeightsError

SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")
NAMELESS = ("*", "emb_params")
"""What stands for the word where the file's own name says it."""


def read(path: Path, width: int) -> tuple[list[str], NumpyArray]:
    """(the words that mean it, float32 (n, width)). The file's name without suffix is the first of the words.

    Raises WeightsError for a file that holds no embedding, or one of another width: for another model.
    """
    found = read_whole(path)
    if isinstance(found, dict) and isinstance(found.get("string_to_param"), dict):
        found = found["string_to_param"]
    named = {n: v for n, v in found.items() if isinstance(v, np.ndarray)} if isinstance(found, dict) else {}
    if len(named) != 1:
        some = ", ".join(map(str, list(named)[:3])) or "no vectors"
        raise WeightsError(f"{path} is no embedding: it holds {some}, not vectors for one word")
    ((name, value),) = named.items()
    if value.ndim not in (1, 2) or not value.size:
        raise WeightsError(f"{path} is no embedding: {name} has the shape {list(value.shape)}")
    vectors = np.atleast_2d(value).astype(np.float32)
    if vectors.shape[1] != width:
        raise WeightsError(
            f"{path}: its vectors have {vectors.shape[1]} numbers, the text encoder {width}: it is an embedding for another model"
        )
    if not np.isfinite(vectors).all():
        raise WeightsError(f"{path}: its vectors hold numbers that are not finite")
    words = [path.stem, *([] if name in NAMELESS else [str(name)])]
    return list(dict.fromkeys(words)), vectors
