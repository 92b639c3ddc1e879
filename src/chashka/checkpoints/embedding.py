"""Embeddings of textual inversion (arXiv 2208.01618): new words for a text encoder, as rows of its table.

Read are the paper's files and AUTOMATIC1111's (``string_to_param``, with the vectors in a dict or in torch's ``ParameterDict``, and
``emb_params``) and those of diffusers (``{"<word>": vectors}``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.safetensors_file import NumpyArray
from chashka.checkpoints.torch_file import read_whole
from chashka.errors import InputError, OtherKindError, WeightsError

MOST = 75
"""Vectors of one word: as many as CLIP reads at once, for a word is never cut in two."""
SECOND = "clip_g"
"""What Stable Diffusion XL's second text encoder is called."""
NAMELESS = ("*", "emb_params")
"""What stands for the word where the file's own name says it."""


def read(path: Path, width: int) -> tuple[list[str], NumpyArray]:
    """(the words that mean it, float32 (n, width)). The file's name without suffix is the first of the words.

    Raises WeightsError for a file that holds no embedding, or one of another width: for another model; InputError for more
    vectors than a text has room for.
    """
    name, found = vectors(path)
    if len(found) > MOST:
        raise InputError(
            f"embedding: {path.name} has {len(found)} vectors; allowed: from 1 to {MOST}; take a smaller one"
        )
    if found.shape[1] != width:
        raise WeightsError(
            f"{path}: its vectors have {found.shape[1]} numbers, the text encoder {width}: it is an embedding for another model"
        )
    words = [path.stem, *([] if name in NAMELESS else [name])]
    return list(dict.fromkeys(words)), found


def vectors(path: Path) -> tuple[str, NumpyArray]:
    """(what the file calls the word, float32 (n, width)).

    Raises OtherKindError for a file that holds no embedding, WeightsError for one of another model, or not finite.
    """
    found = read_whole(path)
    if isinstance(found, dict) and isinstance(found.get("string_to_param"), dict):
        found = found["string_to_param"]
    named = {n: v for n, v in found.items() if isinstance(v, np.ndarray)} if isinstance(found, dict) else {}
    if SECOND in named:
        both = ", ".join(sorted(map(str, named)))
        raise WeightsError(
            f"{path}: it has vectors for two text encoders ({both[:60]}), as Stable Diffusion XL has them; supported are "
            "embeddings for 1.x and 2.x"
        )
    if len(named) != 1:
        some = ", ".join(map(str, list(named)[:3])) or "no vectors"
        raise OtherKindError(f"{path} is no embedding: it holds {some}, not vectors for one word")
    ((name, value),) = named.items()
    if value.ndim not in (1, 2) or not value.size:
        raise OtherKindError(f"{path} is no embedding: {name} has the shape {list(value.shape)}")
    rows = np.atleast_2d(computable(value)).astype(np.float32)
    if not np.isfinite(rows).all():
        raise WeightsError(f"{path}: its vectors hold numbers that are not finite")
    return str(name), rows
