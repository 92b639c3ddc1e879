"""Stage judge: a detector of the grammar's things, trained on composed scenes (recipe: ``JudgeRecipe``).

It learns from the drawings of some sources and is tested on scenes of all other sources' drawings, which is what it will be
asked about. Not a part of any model: its averaged weights go to ``chashka evaluate teacup --judge``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from chashka.evaluation.detections import Found, Maps, detections, maps_of, overlap
from chashka.evaluation.scene_checks import Asked, Wanted, judged
from chashka.nets.judge import JudgeNet, Seen
from chashka.training.judge_scenes import Boxes, Spoiler, augment, boxes_of, focal, frames, targets
from chashka.training.judge_styles import restyle
from chashka.training.pictures import Pictures, sheet
from chashka.training.recipes import JudgeRecipe
from chashka.training.scenes import Composed, Composer, SceneTable

TESTED = 384
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, *(round(0.05 * i, 2) for i in range(2, 17)))
ANYTHING = 0.25
"""The threshold of boxes that are shown in sample grids, whatever they are called."""
HIT = 0.5
"""A detection is right where its box shares so much with that of a thing of its label (IoU)."""


class JudgeTask:
    modules: Mapping[str, nn.Module]

    def __init__(
        self,
        recipe: JudgeRecipe,
        scenes: SceneTable,
        own: Pictures,
        others: Pictures,
        device: str,
        extra: Mapping[str, torch.Tensor] | None = None,
        every: Pictures | None = None,
    ) -> None:
        """``own`` and ``others``: drawings of the recipe's sources and of all others, at the network's size. ``extra``: see
        ``judge_scenes.decoded``. ``every``: drawings of the recipe's sources of all concepts, half that size, to be named; ``own``
        if not given."""
        self.recipe, self.scenes, self.device = recipe, scenes, device
        torch.manual_seed(recipe.run.seed)
        self.network = JudgeNet(recipe.network).to(device)
        self.names = nn.Linear(4 * recipe.network.width, len(own.concepts)).to(device)
        self.modules = {"judge": self.network, "names": self.names}
        self.every = own if every is None else every
        extra = extra or {}
        worn = extra.get("worn", own.pixels[:0])
        self.spoiler = Spoiler(own.pixels, worn, recipe.spoilt)
        if recipe.decoded and "clean" in extra:
            own = doubled(own, extra["clean"])
        self.composer, self.tester = Composer(scenes, own, device), Composer(scenes, others, device)
        self.known, self.tested = complete(self.composer), complete(self.tester)
        self.labels: dict[str, str] = {"emoji": json.dumps(scenes.emoji)}

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        chance = torch.Generator().manual_seed(generator.initial_seed())  # scenes are laid out on the CPU everywhere
        rows = self.known[torch.randint(len(self.known), (recipe.run.batch,), generator=chance)]
        with torch.autocast(self.device.split(":")[0], enabled=False), torch.no_grad():
            scene = self.composer.compose(rows, chance, self._changed)
            pixels, visible = augment(scene, recipe.opaque, chance)
            boxes = self._boxes(rows, visible, scene)
            wanted = targets(boxes, visible, self.recipe.network.grid)
        seen = self.network(pixels)
        centre = focal(seen.centre.float(), wanted.centre)
        kind = F.cross_entropy(seen.kind.float().movedim(1, -1)[wanted.near], wanted.kind[wanted.near])
        near = wanted.near[:, None]
        place = ((seen.box.float() - wanted.place).abs() * near).sum() / near.sum().clamp(min=1)
        mask = seen.mask.float()
        cover = F.binary_cross_entropy_with_logits(mask[:, 0], wanted.covered)
        inside = wanted.covered[:, None]
        way = ((mask[:, 1:] - wanted.way).abs() * inside).sum() / inside.sum().clamp(min=1)
        loss = centre + kind + recipe.size * place + recipe.cover * cover + recipe.way * way
        parts = {"centre": centre, "kind": kind, "place": place, "cover": cover, "way": way}
        if recipe.named:
            parts["named"] = self._naming_loss(chance)
            loss = loss + recipe.named * parts["named"]
        return loss, parts

    def _changed(self, drawings: torch.Tensor, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """In other hands, and some of them spoilt; see ``scenes.Spoil``."""
        return self.spoiler(restyle(drawings, self.recipe.restyled, chance), chance)

    def _naming_loss(self, chance: torch.Generator) -> torch.Tensor:
        """Of single drawings of any concept, by the features of the whole picture."""
        rows = torch.randint(len(self.every), (self.recipe.named_batch,), generator=chance)
        with torch.autocast(self.device.split(":")[0], enabled=False), torch.no_grad():
            pixels = restyle(self.every.pixels[rows].to(self.device).float() / 255, self.recipe.restyled, chance)
            alone = Composed(
                pixels * 2 - 1, pixels[:, 3:], pixels.new_ones(len(rows), 1), pixels.new_zeros(len(rows), 1)
            )
            pixels, _ = augment(alone, self.recipe.opaque, chance)
        said = self.names(self.network.features(pixels))
        return F.cross_entropy(said.float(), self.every.concept[rows].to(self.device))

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """How it does on scenes of drawings that it never sees, and 32 of them with its boxes.

        ``precision``, ``recall``: of things, at the threshold where both together are best; ``boxed``: share of things that
        have a box whatever it is called; ``counts``: scenes of one thing
        several times that are counted right at the strict threshold; ``scenes``: those where everything asked for is
        found as asked, which is what a perfect painter would get from this judge. Both thresholds go into the weights' file.
        """
        chance = torch.Generator().manual_seed(11)
        rows = self.tested[torch.randperm(len(self.tested), generator=chance)[:TESTED]]
        pixels, maps, truth = [], [], []
        for part in rows.split(32):
            scene = self.tester.compose(part, chance)
            boxes = self._boxes(part, scene.visible, scene)
            pixels.append(scene.picture.cpu())
            maps += read(self.network(scene.picture))
            truth += _listed(boxes)
        seen = torch.cat(pixels)
        figures = self._measured([self._asked(int(row)) for row in rows], maps, seen, truth)
        anything = [[f.box for f in detections(of_any_kind(m), ANYTHING)] for m in maps[:32]]
        sheet(frames(seen[:32], anything, torch.tensor([1.0, -1.0, 0.0])), 8, folder / f"look-{step:07d}.png")
        self.labels |= {name: f"{value:.4f}" for name, value in figures.items()}
        self.labels["tested"] = str(len(rows))
        return figures

    def _measured(
        self, asked: Sequence[Asked], maps: Sequence[Maps], seen: torch.Tensor, truth: Sequence[Listed]
    ) -> dict[str, float]:
        f1 = {t: _f1(*_matched([detections(m, t) for m in maps], truth)) for t in THRESHOLDS}
        usual = max(f1, key=lambda t: f1[t])
        counts = [i for i, a in enumerate(asked) if a.exact]
        right = {t: sum(self._checked(asked[i], maps[i], seen[i], usual, t) for i in counts) for t in THRESHOLDS}
        strict = max((t for t in THRESHOLDS if t >= usual), key=lambda t: right[t])
        hits, said, there = _matched([detections(m, usual) for m in maps], truth)
        boxed = [[(0, box) for _, box in known] for known in truth]
        anything = [detections(of_any_kind(m), ANYTHING) for m in maps]
        good = sum(self._checked(a, m, p, usual, strict) for a, m, p in zip(asked, maps, seen, strict=True))
        return {
            "precision": hits / max(said, 1),
            "recall": hits / max(there, 1),
            "boxed": _matched(anything, boxed)[0] / max(there, 1),
            "counts": right[strict] / max(len(counts), 1),
            "scenes": good / len(asked),
            "threshold": usual,
            "strict": strict,
        }

    def _boxes(self, rows: torch.Tensor, visible: torch.Tensor, scene: Composed) -> Boxes:
        noun = self.scenes.noun[rows][:, : visible.shape[1]].to(visible.device)
        return boxes_of(noun, visible, scene.whole, scene.spoilt, self.recipe.network.classes)

    def _asked(self, row: int) -> Asked:
        """A row of the table as the judge would be asked: equal neighbours are one thing several times."""
        s = self.scenes
        things: list[Wanted] = []
        for noun, colour in zip(s.noun[row].tolist(), s.colour[row].tolist(), strict=True):
            if noun < 0:
                break
            last = things[-1] if things else None
            if last is not None and (last.label, last.colour) == (noun, colour):
                things[-1] = dataclasses.replace(last, count=last.count + 1)
            else:
                things.append(Wanted(noun, colour))
        exact = len(things) == 1 and things[0].count > 1
        return Asked(tuple(things), int(s.relation[row]), exact)

    @staticmethod
    def _checked(asked: Asked, maps: Maps, pixels: torch.Tensor, usual: float, strict: float) -> bool:
        return judged(asked, maps, usual, strict, pixels.numpy()).correct


def read(seen: Seen) -> list[Maps]:
    """The network's words as numbers, picture by picture."""
    return maps_of({name: part.float().cpu().numpy() for name, part in seen._asdict().items()})


def of_any_kind(maps: Maps) -> Maps:
    """The same with one class of everything, and nothing rejected."""
    centre = maps.heat.sum(0, keepdims=True)
    return Maps(np.concatenate([centre, np.zeros_like(centre)]), maps.box, maps.mask)


def complete(composer: Composer) -> torch.Tensor:
    """The scenes whose things all have a drawing."""
    noun = composer.scenes.noun
    drawn = composer.size.sum(1) > 0
    there: torch.Tensor = torch.nonzero((drawn[noun.clamp(min=0)] | (noun < 0)).all(1)).squeeze(1)
    return there


def doubled(pictures: Pictures, pixels: torch.Tensor) -> Pictures:
    """Every picture twice, the second time with these pixels."""
    names = ("concept", "style", "group", "weight", "held_out")
    labels: dict[str, Any] = {name: torch.cat([getattr(pictures, name)] * 2) for name in names}
    return dataclasses.replace(pictures, pixels=torch.cat([pictures.pixels, pixels]), **labels)


Listed = list[tuple[int, tuple[float, float, float, float]]]


def _listed(boxes: Boxes) -> list[Listed]:
    pairs = zip(boxes.label.tolist(), boxes.box.tolist(), strict=True)
    return [
        [(label, tuple(box)) for label, box in zip(labels, all_, strict=True) if label >= 0] for labels, all_ in pairs
    ]


def _matched(found: Sequence[Sequence[Found]], truth: Sequence[Listed]) -> tuple[int, int, int]:
    """Detections that are right, all detections, all things."""
    hits = 0
    for things, known in zip(found, truth, strict=True):
        left = list(known)
        for thing in things:
            own = [k for k in left if k[0] == thing.label and overlap(k[1], thing.box) >= HIT]
            if own:
                hits += 1
                left.remove(max(own, key=lambda k: overlap(k[1], thing.box)))
    return hits, sum(map(len, found)), sum(map(len, truth))


def _f1(hits: int, said: int, there: int) -> float:
    return 2 * hits / max(said + there, 1)
