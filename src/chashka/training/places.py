"""What stands where in composed scenes, and the lesson that a text head's places learn from it.

The scenes' own layouts say it: the picture is cut into ``side`` × ``side`` places, and of each the thing that covers most of it is
known, with the colour that its caption names. A head with places (``nets.kandinsky_text.PlaceReader``) has to tell both from the
caption alone; what tells them is thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from chashka.training.layout import BESIDE
from chashka.training.scenes import SceneTable

COVERED = 0.15
"""Share of a place that a thing covers at least to be what is there."""
NOTHING = -1
FILE = "places.safetensors"
SIDE = 4
"""Places on a side, where no head says how many."""


@dataclass(slots=True)
class Places:
    """Of S scenes: ``thing`` and ``colour`` int64 (S, side²), row by row, NOTHING where there is none; ``kept`` (K,): scenes that
    say all that can be known of who is where; ``related`` (R,): those among them with two things or more."""

    thing: torch.Tensor
    colour: torch.Tensor
    kept: torch.Tensor
    related: torch.Tensor


def places_of(table: SceneTable, rows: torch.Tensor, visible: torch.Tensor, side: int) -> dict[str, torch.Tensor]:
    """Who is where in scenes ``rows`` of which (B, O, H, W) is visible, as the file has it."""
    share, owner = (found.cpu() for found in F.adaptive_avg_pool2d(visible, side).flatten(2).max(1))
    found = {"ordered": in_reading_order(visible).cpu()}
    for name, column in (("thing", table.noun), ("colour", table.colour)):
        found[name] = torch.where(share >= COVERED, column[rows].gather(1, owner), NOTHING).to(torch.int8)
    return found


def in_reading_order(visible: torch.Tensor) -> torch.Tensor:
    """(B,) bool: whether the first of the things (B, O, H, W) stands to the left of the second; False where there is one alone."""
    if visible.shape[1] < 2:
        return torch.zeros(len(visible), dtype=torch.bool, device=visible.device)
    across = torch.arange(visible.shape[3], dtype=visible.dtype, device=visible.device)
    total = visible.sum((2, 3))
    centre = (visible.sum(2) * across).sum(2) / total.clamp(min=1)
    return (centre[:, 0] < centre[:, 1]) & (total[:, :2] > 0).all(1)


def load_places(path: Path, table: SceneTable, device: str) -> Places:
    """Of the scenes that were written. Two things that stand together in no said order are kept where the first is on the left:
    a text that could mean two pictures would teach that its order means nothing."""
    found = load_file(path)
    count = len(found["thing"])
    noun, relation = table.noun[:count], table.relation[:count]
    several = (noun[:, 1] >= 0) & (noun[:, 0] != noun[:, 1])
    free = several & (noun[:, 2] < 0) & ((relation < 0) | (relation == BESIDE))
    kept = ~free | found["ordered"]
    return Places(
        found["thing"].long().to(device),
        found["colour"].long().to(device),
        torch.nonzero(kept).squeeze(1).to(device),
        torch.nonzero(kept & several & (noun[:, 2] < 0)).squeeze(1).to(device),
    )


def with_places(weights: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a head or a U-Net; where they know no places and ``module`` does, with its own for them, so that it can begin."""
    own = {name: value for name, value in module.state_dict().items() if name.startswith(("places.", "told."))}
    return own | weights


class Lesson(nn.Module):
    """From the head's place tokens (B, side², context) the thing and the said colour of every place."""

    def __init__(self, context: int, things: int, colours: int) -> None:
        super().__init__()
        self.thing, self.colour = nn.Linear(context, things + 1), nn.Linear(context, colours + 1)

    def forward(self, tokens: torch.Tensor, thing: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (B,). thing, colour (B, side²): NOTHING is a class of its own."""
        heads = ((self.thing, thing), (self.colour, colour))
        each = [F.cross_entropy(head(tokens).transpose(1, 2), said + 1, reduction="none") for head, said in heads]
        return (each[0] + each[1]).mean(1)
