"""The published model's texts: two big encoders that are opened for a text and freed after it, and the head that joins them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chashka.checkpoints.torch_file import read_checkpoint
from chashka.diffusion import Conditioning
from chashka.errors import WeightsError
from chashka.families.family import Meter
from chashka.families.kandinsky import encoders
from chashka.families.kandinsky.codec import Graph

if TYPE_CHECKING:
    import torch

Float = NDArray[np.float32]
Encoded = tuple[Float, Float, Float]
"""tokens1 (L, D1), pooled1 (P1,) and tokens2 (L, D2) of one text."""
REMEMBERED = 64
"""Texts whose encodings are kept: one takes half a megabyte."""


class PublishedText:
    """Texts → ``tokens`` (B, 2·77, D) and ``added`` (B, 4·width).

    first, second: folders of the two encoders with their weight files. head: the graph that joins them. widths: what the head
    takes, (tokens1, pooled1, tokens2). device, dtype: what torch computes the encoders with.
    """

    def __init__(
        self,
        first: tuple[Path, Path],
        second: tuple[Path, Path],
        head: Graph,
        widths: tuple[int, int, int],
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self._first, self._second, self._head, self._widths = first, second, head, widths
        self._device, self._dtype = device, dtype
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._words = encoders.roberta_words(first[0]), encoders.t5_words(second[0])

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """One row per text. pooled: see ``families.family.TextEncoder``."""
        self._remember(list(dict.fromkeys(texts)))
        rows = [self._kept[text] for text in texts]
        tokens1, whole, tokens2 = (np.stack(parts) for parts in zip(*rows, strict=True))
        for row, value in (pooled or {}).items():
            whole[row : row + 1] = value
        joined = self._head({"tokens1": tokens1, "pooled1": whole, "tokens2": tokens2})
        return {"tokens": joined["tokens"], "added": joined["added"]}

    def pooled(self, texts: Sequence[str]) -> Float:
        """M-CLIP's one vector for each text, (B, P1)."""
        self._remember(list(dict.fromkeys(texts)))
        return np.stack([self._kept[text][1] for text in texts])

    def meter(self, text: str) -> Meter:
        """How many tokens are read, by the encoder that reads least of the text; its marks take some of the 77 places."""
        longest = max(self._words, key=lambda words: words.count(text))
        marks = longest.count("")
        limit, count = encoders.LENGTH - marks, longest.count(text) - marks
        return Meter(min(count, limit), max(count - limit, 0), limit)

    def _remember(self, texts: Sequence[str]) -> None:
        """Encode what is not kept yet. The encoders are gone afterwards."""
        new = [text for text in texts if text not in self._kept]
        if new:
            tokens1, pooled1 = self._run(self._contrastive, new, self._words[0])
            (tokens2,) = self._run(self._t5, new, self._words[1])
            self._check((tokens1.shape[-1], pooled1.shape[-1], tokens2.shape[-1]))
            self._kept.update(
                {text: row for text, *row in zip(new, tokens1, pooled1, tokens2, strict=True)}  # type: ignore[misc]
            )
        for text in texts:
            self._kept.move_to_end(text)
        while len(self._kept) > max(REMEMBERED, len(texts)):
            self._kept.popitem(last=False)

    def _run(
        self,
        call: Callable[[torch.Tensor, torch.Tensor], Sequence[torch.Tensor]],
        texts: list[str],
        words: encoders.Words,
    ) -> list[Float]:
        import torch

        ids, mask = (torch.from_numpy(array).to(self._device) for array in words.encode(texts))
        with torch.inference_mode():
            return [value.float().cpu().numpy() for value in call(ids, mask)]

    def _contrastive(self, ids: torch.Tensor, mask: torch.Tensor) -> Sequence[torch.Tensor]:
        folder, file = self._first
        network, projection = encoders.roberta(folder, read_checkpoint(file), file)
        return encoders.roberta_call(self._moved(network), self._moved(projection), ids, mask)

    def _t5(self, ids: torch.Tensor, mask: torch.Tensor) -> Sequence[torch.Tensor]:
        folder, file = self._second
        network = self._moved(encoders.t5(folder, read_checkpoint(file), file))
        return (network(input_ids=ids, attention_mask=mask).last_hidden_state,)

    def _moved(self, network: Any) -> Any:
        import torch

        return network.to(self._device, getattr(torch, self._dtype))

    def _check(self, given: tuple[int, int, int]) -> None:
        """Encoders of another size would fail in the head, in its own words."""
        names = (("text_encoder1", "tokens"), ("text_encoder1", "projection"), ("text_encoder2", "tokens"))
        for (folder, what), have, want in zip(names, given, self._widths, strict=True):
            if have != want:
                raise WeightsError(
                    f"{folder}: its {what} have {have} numbers, the U-Net's file wants {want}; it is another model's encoder"
                )
