"""Sentences of one scene in several languages become one point, and held-out scenes are never trained on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chashka.training.scenes import SceneTable
from chashka.training.sentences import Sentences

pytestmark = pytest.mark.torch

THINGS, COLOURS = 8, 5


def table(scenes: int = 120) -> SceneTable:
    """Two captions a scene: language 0 says thing, colour; language 1 colour, thing, in other words. Scenes repeat after 40."""
    chance = torch.Generator().manual_seed(0)
    thing, colour = torch.randint(THINGS, (40,), generator=chance), torch.randint(COLOURS, (40,), generator=chance)
    thing, colour = thing.repeat(scenes // 40), colour.repeat(scenes // 40)
    said = torch.stack([thing + 3, colour + 20, colour + 30, thing + 40], 1).reshape(2 * scenes, 2)
    none = torch.full((scenes,), -1)
    wide = torch.full((scenes, 5), -1)
    noun, shade = wide.clone(), wide.clone()
    noun[:, 0], shade[:, 0] = thing, colour
    offsets = torch.arange(2 * scenes + 1) * 2
    scene, locale = torch.arange(scenes).repeat_interleave(2), torch.tensor([0, 1]).repeat(scenes)
    return SceneTable(
        noun,
        shade,
        wide,
        none,
        none,
        none,
        none,
        said.reshape(-1),
        offsets,
        scene,
        locale,
        ["a"],
        ["flat"],
        ["en", "ru"],
    )


class Bag(nn.Module):
    """The sum of its words' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(64, 32)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = (self.words(ids) * mask[..., None]).sum(1)
        return out


def test_twins_are_found_after_training() -> None:
    torch.manual_seed(0)
    model, sentences = Bag(), Sentences(table(), 0, "cpu")
    chance = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    before = sentences.found(model, torch.Generator().manual_seed(2))
    losses = []
    for _ in range(150):
        loss = sentences.loss(model, 16, 20.0, chance)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    after = sentences.found(model, torch.Generator().manual_seed(2))
    assert before < 0.3 and after == 1.0
    assert losses[-1] < 0.3 * losses[0]


def test_equal_scenes_are_no_negatives() -> None:
    """A model that says the same of equal scenes has no loss to speak of, although they have other numbers."""
    sentences = Sentences(table(), 0, "cpu")
    known: dict[int, torch.Tensor] = {}

    def perfect(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        rows = []
        for row in ids.tolist():
            thing, colour = (row[0] - 3, row[1] - 20) if row[0] < 20 else (row[1] - 40, row[0] - 30)
            key = thing * COLOURS + colour
            known.setdefault(key, torch.randn(512, generator=torch.Generator().manual_seed(key)))
            rows.append(known[key])
        return torch.stack(rows)

    scenes = torch.Generator().manual_seed(3)
    loss = sentences.loss(perfect, 60, 50.0, scenes)
    # what is left is that a caption cannot tell its own twin from those of equal scenes: log of how many there are
    assert float(loss) < 2.0
    assert sentences.found(perfect, torch.Generator().manual_seed(2)) == 1.0


def test_held_out_scenes_are_not_trained_on() -> None:
    sentences = Sentences(table(), 0, "cpu")
    assert sentences.scenes == 96
    drawn = []

    def spy(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        drawn.append(len(ids))
        return torch.randn(len(ids), 4)

    scenes = []
    captions = sentences._captions
    sentences._captions = lambda rows: (scenes.extend(rows.tolist()), captions(rows))[1]  # type: ignore[method-assign]
    for _ in range(20):
        sentences.loss(spy, 16, 20.0, torch.Generator().manual_seed(len(scenes)))
    assert max(scenes) < 96 and sum(drawn) == 20 * 32
