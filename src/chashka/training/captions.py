"""The caption table of a shard folder as training reads it: token ids only, so that no tokenizer is needed here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from chashka.errors import TrainingError

NAME, KEYWORD, VARIANT, STYLED = 0, 1, 2, 3
"""Kinds of rows: a name, a keyword, a name without spaces or with a slip of the pen, a name with its style."""


@dataclass(slots=True)
class Captions:
    """Ragged ``ids`` with ``offsets`` (R + 1,); labels (R,) int64; ``language_weight`` (R,); names of the labels."""

    ids: torch.Tensor
    offsets: torch.Tensor
    concept: torch.Tensor
    locale: torch.Tensor
    kind: torch.Tensor
    style: torch.Tensor
    language_weight: torch.Tensor
    concepts: list[str]
    locales: list[str]
    main: list[str]

    def __len__(self) -> int:
        return len(self.concept)

    def to(self, device: str) -> Captions:
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in columns.items() if isinstance(v, torch.Tensor)}
        return dataclasses.replace(self, **moved)

    def batch(self, rows: torch.Tensor, length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """``ids`` int64 (B, L) and ``mask`` float32 (B, L) of some rows; L is ``length`` or the longest of them."""
        return ragged(self.ids, self.offsets, rows, length)

    def weight(self, main_boost: float, others: Sequence[tuple[str, float]] = ()) -> torch.Tensor:
        """Chance of each row among its concept's rows of its kind; rows of the main languages count ``main_boost`` fold, those of
        ``others`` (language, factor) as often as they say."""
        factors = dict.fromkeys(self.main, main_boost) | dict(others)
        often = torch.tensor([factors.get(name, 1.0) for name in self.locales])[self.locale.cpu()]
        return self.language_weight * often.to(self.language_weight.device)

    def by_length(self, rows: torch.Tensor, parts: int = 4) -> list[torch.Tensor]:
        """The rows in ``parts`` batches of similar length, so that little is spent on padding. The order changes."""
        return list(rows[torch.argsort(self.offsets[rows + 1] - self.offsets[rows])].chunk(parts))


def ragged(
    ids: torch.Tensor, offsets: torch.Tensor, rows: torch.Tensor, length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a ragged table, padded with 0: ``ids`` int64 (B, L) and ``mask`` float32 (B, L)."""
    counts = offsets[rows + 1] - offsets[rows]
    length = length or int(counts.max())
    place = torch.arange(length, device=rows.device)
    inside = place[None] < counts[:, None]
    index = (offsets[rows, None] + place[None]).clamp(max=len(ids) - 1)
    return torch.where(inside, ids[index], torch.zeros_like(index)), inside.float()


def load_captions(path: Path) -> Captions:
    if not path.is_file():
        raise TrainingError(f"{path}: no caption table there; build it with: chashka data build")
    with safe_open(path, framework="pt") as file:
        lists = {key: json.loads(value) for key, value in (file.metadata() or {}).items() if value.startswith("[")}
        columns = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    return Captions(
        **{n: columns[n].long() for n in ("ids", "offsets", "concept", "locale", "kind", "style")},
        language_weight=columns["language_weight"].float(),
        concepts=lists["concepts"],
        locales=lists["locales"],
        main=lists["main"],
    )


class Draw:
    """Draws indices in proportion to ``weights`` by one search in their running sum; also within ranges of indices."""

    def __init__(self, weights: torch.Tensor) -> None:
        total = torch.cumsum(weights.double(), 0)
        self.running = torch.cat([total.new_zeros(1), total])

    def __call__(self, count: int, generator: torch.Generator) -> torch.Tensor:
        ends = torch.full((count,), len(self.running) - 1, device=self.running.device)
        return self.within(torch.zeros_like(ends), ends, generator)

    def within(self, start: torch.Tensor, end: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One index from each range [start, end); ranges are not empty."""
        low, high = self.running[start], self.running[end]
        u = torch.rand(len(start), generator=generator, device=low.device, dtype=torch.float64)
        return (torch.searchsorted(self.running, low + u * (high - low), right=True) - 1).clamp(start, end - 1)


def balanced(concept: torch.Tensor, concepts: int, within: torch.Tensor, of_concept: torch.Tensor) -> torch.Tensor:
    """Weights of rows so that concept c is drawn in proportion to ``of_concept[c]`` and its rows to ``within``."""
    total = torch.zeros(concepts, dtype=torch.float64, device=concept.device).index_add_(0, concept, within.double())
    return within.double() / total[concept].clamp(min=1e-12) * of_concept.double()[concept]
