"""Sentences for the text encoders: captions of composed scenes (``scenes.safetensors``, ``data/scenes.py``).

For the contrastive one what is said of a scene in several languages shall be one point: all captions of the batch that say the
same are positives of one another, all others negatives (supervised contrastive learning, arXiv 2004.11362, equation 2). The
T5-style one translates into English, so that its tokens hold every word of a sentence and its place, whatever the language.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from chashka.errors import TrainingError
from chashka.training.captions import ragged
from chashka.training.scenes import SceneTable

Encode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(ids, mask) → pooled (B, D)."""
PARTS = 4
HELD_OUT = 2000
"""The last scenes of the table (at most a fifth of it) are never trained on; figures are theirs."""
AMONG = 200


class Sentences:
    """Batches of sentences, their loss, and how often a sentence's English twin is found."""

    def __init__(self, table: SceneTable, english: int, device: str) -> None:
        """english: the number of that language in the table."""
        self.ids, self.offsets = table.ids.to(device), table.offsets.to(device)
        self.locale, self.english, self.device = table.locale.to(device), english, device
        said = (table.relation, table.ground, table.ground_colour, table.style)
        whole = torch.cat([table.noun, table.colour, table.size, torch.stack(said, 1)], 1)
        self.content = torch.unique(whole, dim=0, return_inverse=True)[1].to(device)
        self.first = torch.searchsorted(table.scene, torch.arange(len(table) + 1)).to(device)
        self.scenes = len(table) - min(HELD_OUT, len(table) // 5)

    def loss(self, encode: Encode, count: int, temperature: float, generator: torch.Generator) -> torch.Tensor:
        """Of the captions of ``count`` scenes; temperature multiplies cosines."""
        scenes = torch.randint(self.scenes, (count,), generator=generator, device=self.device)
        rows, owner = self._captions(scenes)
        points, order = self._encoded(encode, rows)
        content = self.content[scenes[owner[order]]]
        alone = torch.eye(len(rows), dtype=torch.bool, device=self.device)
        cosine = (points @ points.T * temperature).masked_fill(alone, -torch.inf)
        same = (content[:, None] == content[None]) & ~alone
        chance = F.log_softmax(cosine, dim=1).masked_fill(~same, 0.0)
        twins = same.sum(1)
        loss: torch.Tensor = -(chance.sum(1)[twins > 0] / twins[twins > 0]).mean()
        return loss

    @torch.no_grad()
    def found(self, encode: Encode, generator: torch.Generator) -> float:
        """How often the English caption of a held-out scene is the nearest of 200 to another caption of it."""
        last = torch.arange(self.scenes, len(self.first) - 1, device=self.device)
        rows, owner = self._captions(last)
        english = self.locale[rows] == self.english
        own = {int(s): int(r) for s, r in zip(owner[english], rows[english], strict=True)}
        asked = [
            (int(r), own[int(s)]) for s, r in zip(owner, rows, strict=True) if int(s) in own and int(r) != own[int(s)]
        ]
        chosen = torch.randperm(len(asked), generator=generator)[:AMONG].tolist()
        pairs = torch.tensor([asked[i] for i in chosen], device=self.device).reshape(-1, 2)
        if not len(pairs):
            return 0.0
        points = []
        for column in pairs.T:
            encoded, order = self._encoded(encode, column)
            points.append(torch.empty_like(encoded).index_copy(0, order, encoded))
        nearest = (points[0] @ points[1].T).argmax(1)
        right = self.content_of(pairs[nearest, 1]) == self.content_of(pairs[:, 1])
        return float(right.float().mean())

    def content_of(self, rows: torch.Tensor) -> torch.Tensor:
        """What captions say, as a number."""
        content: torch.Tensor = self.content[torch.searchsorted(self.first, rows.contiguous(), right=True) - 1]
        return content

    def _captions(self, scenes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All captions of some scenes, and whose (its place in ``scenes``) each is."""
        counts = self.first[scenes + 1] - self.first[scenes]
        owner = torch.repeat_interleave(torch.arange(len(scenes), device=self.device), counts)
        inside = torch.arange(len(owner), device=self.device) - (counts.cumsum(0) - counts)[owner]
        return self.first[scenes][owner] + inside, owner

    def _encoded(self, encode: Encode, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit points of captions, in batches of similar length, and the order that they come in."""
        order = torch.argsort(self.offsets[rows + 1] - self.offsets[rows])
        parts = [encode(*ragged(self.ids, self.offsets, part)) for part in rows[order].chunk(PARTS)]
        return F.normalize(torch.cat(parts).float(), dim=-1), order


class Translations:
    """Captions of composed scenes, and what the English caption of the same scene says."""

    def __init__(self, table: SceneTable, device: str) -> None:
        """Scenes without an English caption are left out; raises TrainingError where none has one."""
        self.ids, self.offsets = table.ids.to(device), table.offsets.to(device)
        english = torch.nonzero(table.locale == table.locales.index("en")).squeeze(1).flip(0)
        target = torch.full((len(table),), -1)
        target[table.scene[english]] = english  # a scene's first
        rows = torch.nonzero(target[table.scene] >= 0).squeeze(1)
        if not len(rows):
            raise TrainingError("no scene of the table has an English caption: chashka data scenes --languages 6")
        known = table.scene[rows] < len(table) - min(HELD_OUT, len(table) // 5)
        self.rows, held = rows[known].to(device), rows[~known].to(device)
        self.held = held if len(held) else self.rows  # a table of a few scenes
        self.english = target[table.scene].to(device)
        """Of every caption the row of its English twin, -1 where there is none."""

    @property
    def pieces(self) -> torch.Tensor:
        """What English sentences are made of."""
        rows = self.english[self.english >= 0].unique()
        ids, mask = ragged(self.ids, self.offsets, rows)
        pieces: torch.Tensor = ids[mask > 0].unique()
        return pieces

    def draw(self, count: int, generator: torch.Generator, held: bool = False) -> list[tuple[torch.Tensor, ...]]:
        """``count`` captions in batches of similar length: ids, mask (B, L) and those of what English says (B, M)."""
        among = self.held if held else self.rows
        pick = torch.randint(len(among), (count,), generator=generator, device=among.device)
        rows = among[pick]
        order = torch.argsort(self.offsets[rows + 1] - self.offsets[rows])
        return [
            (*ragged(self.ids, self.offsets, part), *ragged(self.ids, self.offsets, self.english[part]))
            for part in rows[order].chunk(PARTS)
        ]
