"""Two text encoders and the head that joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chashka.diffusion import Conditioning
from chashka.families.family import Meter
from chashka.families.latents import Graph
from chashka.families.teacups import BLOCK
from chashka.prompts.vocabulary import MAX_LENGTH, Vocabulary


class JoinedText:
    """Texts → ``tokens`` (B, 2L, D), both encoders' one after the other, and ``added`` (B, 4·width)."""

    def __init__(self, vocabulary: Vocabulary, contrastive: Graph, t5: Graph, head: Graph, block: int = BLOCK) -> None:
        self._vocabulary, self._contrastive, self._t5, self._head = vocabulary, contrastive, t5, head
        self._block = block

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """One row per text, padded to one length, a multiple of the block. pooled: see ``families.family.TextEncoder``."""
        inputs = self._inputs(texts)
        first, second = self._contrastive(inputs), self._t5(inputs)
        whole = np.array(first["pooled"])
        for row, value in (pooled or {}).items():
            whole[row : row + 1] = value
        joined = self._head({"tokens1": first["tokens"], "pooled1": whole, "tokens2": second["tokens"]})
        return {"tokens": joined["tokens"], "added": joined["added"]}

    def pooled(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The contrastive encoder's one vector for each text, (B, D): texts that mean the same lie near each other."""
        return self._contrastive(self._inputs(texts))["pooled"]

    def _inputs(self, texts: Sequence[str]) -> dict[str, Any]:
        ids, mask = self._vocabulary.encode_batch(texts, MAX_LENGTH)
        missing = -ids.shape[1] % self._block
        return {"ids": np.pad(ids, ((0, 0), (0, missing))), "mask": np.pad(mask, ((0, 0), (0, missing)))}

    def meter(self, text: str) -> Meter:
        """How many pieces of ``text`` are read; beginning and end take two of the model's places."""
        encoded = self._vocabulary.encode(text, MAX_LENGTH)
        return Meter(encoded.used, encoded.cut, MAX_LENGTH - 2)
