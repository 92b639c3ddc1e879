"""Sentences of one scene in several languages become one point or are translated; held-out scenes are never trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from little import CLIP, T5
from torch import nn

from chashka.errors import TrainingError
from chashka.nets.configs import T5Config, TextEncoderConfig
from chashka.training.captions import NAME, Captions
from chashka.training.loop import Task, trainable
from chashka.training.scenes import SceneTable
from chashka.training.sentences import Sentences, Translations
from chashka.training.t5 import T5Task
from chashka.training.tokens import TokensTask

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


def test_a_caption_is_translated_by_the_english_one_of_its_scene() -> None:
    scenes = table()
    said = Translations(scenes, "cpu")
    assert torch.equal(said.english, torch.arange(120).repeat_interleave(2) * 2)
    assert len(said.rows) == 2 * 96 and int(scenes.scene[said.rows].max()) == 95  # a fifth is kept from training
    assert int(scenes.scene[said.held].min()) == 96
    assert set(said.pieces.tolist()) == {int(i) for i in scenes.ids.reshape(-1, 4)[:, :2].flatten()}
    for ids, mask, english, english_mask in said.draw(64, torch.Generator().manual_seed(0)):
        assert mask.all() and english_mask.all()
        russian = ids[:, 0] >= 30
        assert 0.2 < float(russian.float().mean()) < 0.8
        assert torch.equal(english[russian], torch.stack([ids[russian, 1] - 40 + 3, ids[russian, 0] - 30 + 20], 1))
        assert torch.equal(english[~russian], ids[~russian])


def test_scenes_without_english_are_not_translated() -> None:
    scenes = table()
    scenes.locale[:2] = 1
    said = Translations(scenes, "cpu")
    assert int(said.english[0]) == int(said.english[1]) == -1 and not {0, 1} & set(said.rows.tolist())
    scenes.locale[:] = 1
    with pytest.raises(TrainingError, match="no scene of the table has an English caption"):
        Translations(scenes, "cpu")


def test_held_out_sentences_are_translated_after_training() -> None:
    """The held-out scenes of this table say what others say too: that training reaches their captions is what is shown."""
    text = T5Config(vocab=300, embed=16, width=32, layers=1, heads=2, ff=32)
    recipe = replace(T5, text=text, sentences=1.0, sentence_captions=64, token_noise=0.0, run=replace(T5.run, batch=8))
    task = T5Task(recipe, named_captions(), torch.ones(2), "cpu", Translations(table(), "cpu"))
    before = task.look(Path(), 0)["whole_sentence"]
    assert trained(task, 120) == {"right", "sentences", "sentence_right"}
    assert before < 0.2 and task.look(Path(), 1)["whole_sentence"] > 0.9


def trained(task: Task, steps: int) -> set[str]:
    """So many steps of Adam; the names of the last one's figures."""
    optimiser = torch.optim.Adam(list(trainable(task.modules).values()), 0.01)
    for step in range(steps):
        loss, figures = task.loss(torch.Generator().manual_seed(step), 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return set(figures)


def named_captions() -> Captions:
    return Captions(
        ids=torch.tensor([1, 50, 2, 1, 51, 2]),
        offsets=torch.tensor([0, 3, 6]),
        concept=torch.tensor([0, 1]),
        locale=torch.zeros(2, dtype=torch.int64),
        kind=torch.full((2,), NAME),
        style=torch.full((2,), -1),
        language_weight=torch.ones(1),
        concepts=["a", "b"],
        locales=["en"],
        main=["en"],
    )


def test_tokens_learn_and_the_vector_stays() -> None:
    text = TextEncoderConfig(vocab=300, embed=16, width=32, layers=1, heads=2, pooled=16)
    recipe = replace(CLIP, text=text, kept=30.0, translated=64, token_noise=0.0, run=replace(CLIP.run, batch=8))
    task = TokensTask(recipe, named_captions(), torch.ones(2), "cpu", Translations(table(), "cpu"))
    task.keep()
    before = task.look(Path(), 0)
    old = {key: value.clone() for key, value in task.kept.state_dict().items()}
    assert before["moved"] < 1e-5 and before["whole_sentence"] < 0.2
    assert trained(task, 150) == {"translated", "moved", "right"}
    after = task.look(Path(), 1)
    assert after["whole_sentence"] > 0.9 and after["moved"] < 0.02 and after["moved_names"] < 0.02
    assert all(torch.equal(value, old[key]) for key, value in task.kept.state_dict().items())
    assert not any(torch.equal(value, old[key]) for key, value in task.text.state_dict().items() if "qkv" in key)


def test_without_its_weight_the_vector_moves_away() -> None:
    """What the loss of the vector is for: the same run with next to none of it."""
    text = TextEncoderConfig(vocab=300, embed=16, width=32, layers=1, heads=2, pooled=16)
    recipe = replace(CLIP, text=text, kept=1e-9, translated=64, token_noise=0.0, run=replace(CLIP.run, batch=8))
    task = TokensTask(recipe, named_captions(), torch.ones(2), "cpu", Translations(table(), "cpu"))
    task.keep()
    trained(task, 60)
    assert task.look(Path(), 1)["moved"] > 0.05
