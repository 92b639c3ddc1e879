"""Texts of the published models: big encoders that are opened for a text and freed after it, and heads that join what they say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chashka.checkpoints.several_files import read_weights
from chashka.diffusion import Conditioning
from chashka.errors import WeightsError
from chashka.families.family import Meter
from chashka.families.kandinsky import encoders
from chashka.families.latents import Graph

if TYPE_CHECKING:
    import torch

Float = NDArray[np.float32]
REMEMBERED = 64
"""Texts whose encodings are kept: one takes half a megabyte."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an encoder's files are, and what torch computes it with. weights: a file, or the index of several."""

    folder: Path
    weights: Path
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(eq=False)
class BigEncoder:
    """One encoder: opened when a text is new, gone afterwards; what it said of the last texts is kept.

    words: its tokenizer. run: (place, ids, mask) → its outputs, rows first. widths: the last axes that its outputs must have.
    """

    place: Place
    words: encoders.Words
    run: Callable[[Place, torch.Tensor, torch.Tensor], Sequence[torch.Tensor]]
    widths: tuple[int, ...]
    _kept: OrderedDict[str, tuple[Float, ...]] = field(default_factory=OrderedDict)

    def __call__(self, texts: Sequence[str]) -> list[Float]:
        """Its outputs, one row per text. Raises WeightsError for an encoder of other sizes."""
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        if new:
            self._kept.update(zip(new, zip(*self._run(new), strict=True), strict=True))
        for text in texts:
            self._kept.move_to_end(text)
        rows = [self._kept[text] for text in texts]
        while len(self._kept) > max(REMEMBERED, len(texts)):
            self._kept.popitem(last=False)
        return [np.stack(parts) for parts in zip(*rows, strict=True)]

    def _run(self, texts: list[str]) -> list[Float]:
        import torch

        ids, mask = (torch.from_numpy(array).to(self.place.device) for array in self.words.encode(texts))
        with torch.inference_mode():
            outputs = [value.float().cpu().numpy() for value in self.run(self.place, ids, mask)]
        for output, width in zip(outputs, self.widths, strict=True):
            if output.shape[-1] != width:  # it would fail later, in the head's words
                raise WeightsError(
                    f"{self.place.folder}: its outputs have {output.shape[-1]} numbers, the U-Net's file wants {width}; "
                    "it is another model's encoder"
                )
        return outputs


def contrastive(place: Place, widths: tuple[int, int]) -> BigEncoder:
    """XLM-R with M-CLIP's projection: tokens (B, 77, D) and pooled (B, P). widths: (D, P)."""
    return BigEncoder(place, encoders.roberta_words(place.folder), _run_contrastive, widths)


def t5(place: Place, width: int) -> BigEncoder:
    """mT5's encoder: tokens (B, 77, D). width: D."""
    return BigEncoder(place, encoders.t5_words(place.folder), _run_t5, (width,))


class PublishedText:
    """Kandinsky 2.0: texts → ``tokens`` (B, 2·77, D) and ``added`` (B, 4·width). head: the graph that joins both encoders."""

    def __init__(self, first: BigEncoder, second: BigEncoder, head: Graph) -> None:
        self._first, self._second, self._head = first, second, head

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """One row per text. pooled: see ``families.family.TextEncoder``."""
        tokens1, whole = self._first(texts)
        for row, value in (pooled or {}).items():
            whole[row : row + 1] = value
        (tokens2,) = self._second(texts)
        joined = self._head({"tokens1": tokens1, "pooled1": whole, "tokens2": tokens2})
        return {"tokens": joined["tokens"], "added": joined["added"]}

    def pooled(self, texts: Sequence[str]) -> Float:
        """M-CLIP's one vector for each text, (B, P)."""
        return self._first(texts)[1]

    def meter(self, text: str) -> Meter:
        """How many tokens are read, by the encoder that cuts the text into more of them; its marks take some of the 77 places."""
        return meter(max((self._first.words, self._second.words), key=lambda words: words.count(text)), text)


def meter(words: encoders.Words, text: str) -> Meter:
    """How many tokens of ``text`` an encoder reads."""
    marks = words.count("")
    limit, count = encoders.LENGTH - marks, words.count(text) - marks
    return Meter(min(count, limit), max(count - limit, 0), limit)


def _run_contrastive(place: Place, ids: torch.Tensor, mask: torch.Tensor) -> Sequence[torch.Tensor]:
    network, projection = encoders.roberta(place.folder, read_weights(place.weights), place.weights)
    return encoders.roberta_call(_moved(network, place), _moved(projection, place), ids, mask)


def _run_t5(place: Place, ids: torch.Tensor, mask: torch.Tensor) -> Sequence[torch.Tensor]:
    network = _moved(encoders.t5(place.folder, read_weights(place.weights), place.weights), place)
    return (network(input_ids=ids, attention_mask=mask).last_hidden_state,)


def _moved(network: Any, place: Place) -> Any:
    import torch

    return network.to(place.device, getattr(torch, place.dtype))
