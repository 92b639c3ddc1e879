"""Pictures of composed scenes, made of the shards' drawings on whatever device training runs on.

``data/scenes.py`` says what stands where; here drawings are chosen, coloured, placed by their opaque boxes and laid over one
another. All coordinates are shares of the picture's side; boxes are of what is opaque in a drawing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

from chashka.errors import TrainingError
from chashka.training.grounds import paint
from chashka.training.pictures import Pictures
from chashka.training.recolour import recolour

OPAQUE = 8
INSIDE, ON, UNDER, LEFT, RIGHT, BESIDE, BEHIND, ABOVE, WEARING = range(9)
"""The relations of data/composed_words.RELATIONS."""
OPENING = 0.30
"""A holder hides what is inside of it below this share of its height."""

# how many things stand together → centre x, centre y, side of each
TOGETHER: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((0.5, 0.5, 0.84),),
    2: ((0.27, 0.5, 0.46), (0.73, 0.5, 0.46)),
    3: ((0.5, 0.27, 0.42), (0.27, 0.73, 0.42), (0.73, 0.73, 0.42)),
    4: ((0.27, 0.27, 0.42), (0.73, 0.27, 0.42), (0.27, 0.73, 0.42), (0.73, 0.73, 0.42)),
    5: ((0.24, 0.24, 0.36), (0.76, 0.24, 0.36), (0.5, 0.5, 0.34), (0.24, 0.76, 0.36), (0.76, 0.76, 0.36)),
}
# sides of the first and the second thing by relation, where they differ from LEFT's
SIDES = {INSIDE: (0.42, 0.66), ON: (0.42, 0.50), UNDER: (0.42, 0.46), BEHIND: (0.60, 0.46), ABOVE: (0.42, 0.46)}
SIDES |= {WEARING: (0.62, 0.28)}
SIZES = (1.2, 0.65)
"""Big and small, as factors."""


Spoil = Callable[[torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""Drawings (n, 4, H, W) in [0, 1] → the same with some of them spoilt, and which (n,)."""


@dataclass(slots=True)
class Composed:
    """Pictures and who is where in them.

    picture  premultiplied RGBA float32 (B, 4, H, W) in [-1, 1]
    visible  (B, O, H, W) in [0, 1]: what of each thing is not hidden by others
    whole    (B, O): how many pixels each thing would cover alone
    spoilt   (B, O) bool
    """

    picture: torch.Tensor
    visible: torch.Tensor
    whole: torch.Tensor
    spoilt: torch.Tensor


@dataclass(slots=True)
class SceneTable:
    """The columns of ``scenes.safetensors``, int64, and the names behind its numbers."""

    noun: torch.Tensor
    colour: torch.Tensor
    size: torch.Tensor
    relation: torch.Tensor
    ground: torch.Tensor
    ground_colour: torch.Tensor
    style: torch.Tensor
    ids: torch.Tensor
    offsets: torch.Tensor
    scene: torch.Tensor
    locale: torch.Tensor
    emoji: list[str]
    styles: list[str]

    def __len__(self) -> int:
        return len(self.relation)


def load_scenes(path: Path) -> SceneTable:
    if not path.is_file():
        raise TrainingError(f"{path}: no table of scenes there; make it with: chashka data scenes")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = {f.name for f in fields(SceneTable)} & set(file.keys())
        columns = {name: file.get_tensor(name).long() for name in names}
    return SceneTable(**columns, emoji=json.loads(metadata["emoji"]), styles=json.loads(metadata["styles"]))


class Composer:
    """Makes pictures of scenes. ``pictures``: the drawings at full size; those held out are never used."""

    def __init__(self, scenes: SceneTable, pictures: Pictures, device: str) -> None:
        self.scenes, self.pixels, self.device = scenes, pictures.pixels.to(device), device
        if scenes.styles != pictures.styles:
            raise TrainingError("the table of scenes belongs to other shards; make it again with: chashka data scenes")
        self.side = pictures.pixels.shape[-1]
        self.boxes, self.crowns = boxes(pictures.pixels)
        number = {name: i for i, name in enumerate(pictures.concepts)}
        concept = torch.tensor([number.get(f"emoji:{code}", -1) for code in scenes.emoji])
        self.styles = len(pictures.styles)
        rows = pictures.rows(False)
        key = pictures.concept[rows] * self.styles + pictures.style[rows]
        order = torch.argsort(key, stable=True)
        self.rows = rows[order]
        size = torch.bincount(key, minlength=len(pictures.concepts) * self.styles)
        start = size.cumsum(0) - size
        known = concept.clamp(min=0)[:, None] * self.styles + torch.arange(self.styles)
        self.size, self.start = size[known] * (concept >= 0)[:, None], start[known]

    def __call__(self, rows: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """Scenes (B,) → premultiplied RGBA float32 (B, 4, H, W) in [-1, 1]. ``rows`` and ``chance`` on the CPU."""
        return self.compose(rows, chance).picture

    def compose(self, rows: torch.Tensor, chance: torch.Generator, spoil: Spoil | None = None) -> Composed:
        """The same with what is visible of every thing. ``spoil`` changes drawings before they are placed."""
        s = self.scenes
        noun = s.noun[rows]
        drawing = self._choose(noun, s.style[rows], chance)
        place = self._layout(noun, s.relation[rows], s.size[rows], drawing, chance).to(self.device)
        there = (noun >= 0).to(self.device)
        spoilt = torch.zeros_like(there)
        layers = []
        for slot in range(noun.shape[1]):
            filled = torch.nonzero(there[:, slot]).squeeze(1)
            if not len(filled):
                break
            chosen = drawing[filled.cpu(), slot]
            colour = s.colour[rows[filled.cpu()], slot].to(self.device)
            pixels = recolour(self.pixels[chosen.to(self.device)].float() / 255, colour)
            if spoil is not None:
                pixels, spoilt[filled, slot] = spoil(pixels, chance)
            layers.append(pixels.new_zeros(len(rows), 4, self.side, self.side))
            layers[-1][filled] = self._laid(pixels, chosen, place[filled, slot])
        ground, colour = s.ground[rows].to(self.device), s.ground_colour[rows].to(self.device)
        scene = paint(ground, colour, self.side, chance)
        whole = torch.stack([layer[:, 3].sum((1, 2)) for layer in layers], 1)
        picture, visible = self._over(scene, layers, s.relation[rows].to(self.device), place, drawing)
        return Composed(picture * 2 - 1, visible, whole, spoilt[:, : len(layers)])

    def _choose(self, noun: torch.Tensor, style: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
        """A drawing for every slot (B, O): all of a scene in one style where there is one that has them all."""
        there, size = noun >= 0, self.size[noun.clamp(min=0)]  # (B, O), (B, O, S)
        common = ((size > 0) | ~there[..., None]).all(1).float()
        said = F.one_hot(style.clamp(min=0), self.styles).float() * (style >= 0)[:, None]
        wish = common * torch.where((style >= 0)[:, None], said, torch.ones_like(said))
        wish = torch.where(wish.sum(1, keepdim=True) > 0, wish, common)
        wish = torch.where(wish.sum(1, keepdim=True) > 0, wish, torch.ones_like(wish))
        one = torch.multinomial(wish, 1, generator=chance)[:, :1].expand(-1, noun.shape[1])
        has = size.gather(2, one[..., None]).squeeze(2) > 0
        other = torch.multinomial((size > 0).float().flatten(0, 1) + 1e-9, 1, generator=chance).reshape(noun.shape)
        key = torch.where(has, one, other)[..., None]
        count, start = (self._of(table, noun).gather(2, key).squeeze(2) for table in (self.size, self.start))
        u = torch.rand(noun.shape, generator=chance)
        # All slots of a count show the same drawing.
        same = (noun == noun[:, :1]) & there
        u = torch.where(same, u[:, :1], u)
        index = start + (u * count.clamp(min=1)).long().clamp(max=len(self.rows) - 1)
        return self.rows[torch.where(there, index, 0).clamp(max=len(self.rows) - 1)]

    @staticmethod
    def _of(table: torch.Tensor, noun: torch.Tensor) -> torch.Tensor:
        return table[noun.clamp(min=0)]

    def _layout(
        self,
        noun: torch.Tensor,
        relation: torch.Tensor,
        size: torch.Tensor,
        drawing: torch.Tensor,
        chance: torch.Generator,
    ) -> torch.Tensor:
        """(B, O, 3): centre x, centre y and longest side of every thing's box."""
        b, slots = noun.shape
        count = (noun >= 0).sum(1)
        place = torch.zeros(b, slots, 3)
        for n, spots in TOGETHER.items():
            chosen = torch.nonzero(count == n).squeeze(1)
            if len(chosen):
                table = torch.tensor(spots)
                turn = torch.argsort(torch.rand(len(chosen), n, generator=chance), 1)
                place[chosen, :n] = table[turn]
        factor = torch.ones(b, slots)
        for i, value in enumerate(SIZES):
            factor = torch.where(size == i, value, factor)
        jitter = torch.rand(b, slots, 3, generator=chance)
        place[..., :2] += (jitter[..., :2] - 0.5) * 0.05
        place[..., 2] *= (0.93 + 0.10 * jitter[..., 2]) * factor
        width, height = self._extent(drawing)
        for number in range(9):
            chosen = torch.nonzero(relation == number).squeeze(1)
            if len(chosen):
                shape = torch.stack([width[chosen, :2], height[chosen, :2]], -1)
                crown = self.crowns[drawing[chosen, 0]]
                place[chosen, :2] = related(number, shape, factor[chosen, :2], crown, jitter[chosen, 0])
        half = 0.5 * place[..., 2:]
        place[..., :2] = place[..., :2].clamp(min=half.clamp(max=0.5), max=1 - half.clamp(max=0.5))
        return place

    def _extent(self, drawing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Width and height of the boxes, the longer one 1."""
        box = self.boxes[drawing]
        width, height = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
        longest = torch.maximum(width, height)
        return width / longest, height / longest

    def _laid(self, pixels: torch.Tensor, drawing: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """The drawings moved and scaled so that their boxes stand at their places."""
        box = self.boxes[drawing].to(self.device)
        longest = torch.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
        scale = (longest / place[:, 2].clamp(min=0.05)).clamp(max=8.0)
        centre = 0.5 * (box[:, :2] + box[:, 2:])
        theta = torch.zeros(len(pixels), 2, 3, device=self.device)
        theta[:, 0, 0] = theta[:, 1, 1] = scale
        theta[:, :, 2] = (2 * centre - 1) - scale[:, None] * (2 * place[:, :2] - 1)
        grid = F.affine_grid(theta, [len(pixels), 4, self.side, self.side], align_corners=False)
        out = torch.empty_like(pixels)
        for smaller in (False, True):
            rows = torch.nonzero((scale > 1.6) == smaller).squeeze(1)
            # Averaged first where it is made smaller, so that thin lines do not break up.
            source = F.avg_pool2d(pixels[rows], 2) if smaller else pixels[rows]
            if len(rows):
                out[rows] = F.grid_sample(source, grid[rows], mode="bilinear", align_corners=False)
        return out

    def _over(
        self,
        scene: torch.Tensor,
        layers: list[torch.Tensor],
        relation: torch.Tensor,
        place: torch.Tensor,
        drawing: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Layers over the ground, the later in front; a holder stands behind what it holds, its lower part before it.

        The picture, and what is visible of every thing.
        """
        visible = torch.stack([torch.zeros_like(layer[:, 3]) for layer in layers], 1)
        owners = [torch.full_like(relation, i) for i in range(len(layers))]
        if len(layers) > 1:
            inside = (relation == INSIDE)[:, None, None, None]
            below = (relation == UNDER)[:, None, None, None]
            first = torch.where(inside | below, layers[1], layers[0])
            second = torch.where(inside | below, layers[0], layers[1])
            _, height = self._extent(drawing[:, 1])
            top = place[:, 1, 1] - 0.5 * height.to(self.device) * place[:, 1, 2]
            line = top + OPENING * height.to(self.device) * place[:, 1, 2]
            rows = (torch.arange(self.side, device=self.device) + 0.5) / self.side
            front = layers[1] * ((rows[None] > line[:, None]).float()[:, None, :, None] * inside)
            layers = [first, second, front, *layers[2:]]
            behind = (inside | below).reshape(-1).long()
            owners = [behind, 1 - behind, owners[1], *owners[2:]]
        for layer, owner in zip(layers, owners, strict=True):
            scene = layer + scene * (1 - layer[:, 3:])
            visible = visible * (1 - layer[:, 3:])
            visible[torch.arange(len(owner), device=owner.device), owner] += layer[:, 3]
        return scene.clamp(0, 1), visible


def related(
    relation: int, shape: torch.Tensor, factor: torch.Tensor, crown: torch.Tensor, jitter: torch.Tensor
) -> torch.Tensor:
    """Places (B, 2, 3) of two things in a relation. ``shape`` (B, 2, 2): width and height, the longer 1; ``factor`` (B, 2):
    sizes; ``crown`` (B,): where across its box the first thing is highest; ``jitter`` (B, 3) in [0, 1]."""
    side = torch.tensor(SIDES.get(relation, (0.46, 0.46))) * factor * (0.94 + 0.1 * jitter[:, 2:])
    (wa, ha), (_, hb) = ((shape[:, i] * side[:, i : i + 1]).unbind(1) for i in range(2))
    x = 0.5 + 0.12 * (jitter[:, 0] - 0.5)
    away = torch.where(jitter[:, 1] < 0.5, -1.0, 1.0)
    half = torch.full_like(x, 0.5)
    if relation in (LEFT, RIGHT, BESIDE):
        way = {LEFT: -1.0, RIGHT: 1.0}.get(relation, away)
        ax, bx, ay, by = half + way * 0.25, half - way * 0.25, half, half + 0.05 * (jitter[:, 0] - 0.5)
    elif relation in (ON, ABOVE, UNDER):
        gap = {ON: -0.03, ABOVE: 0.06, UNDER: 0.02}[relation]
        upper, lower = (hb, ha) if relation == UNDER else (ha, hb)
        top = 0.5 - 0.5 * (upper + gap + lower)
        high, low = top + 0.5 * upper, top + upper + gap + 0.5 * lower
        ax, bx = x, 1 - x
        ay, by = (low, high) if relation == UNDER else (high, low)
    elif relation == BEHIND:
        ax, ay, bx, by = half - 0.10 * away, half - 0.08, half + 0.12 * away, 0.92 - 0.5 * hb
    elif relation == INSIDE:
        bx, by = half, 0.95 - 0.5 * hb
        ax, ay = x, by - 0.5 * hb + 0.42 * hb - 0.5 * ha
    else:
        ax, ay = half, 0.97 - 0.5 * ha
        bx, by = ax + (crown - 0.5) * wa, ay - 0.5 * ha + 0.22 * hb - 0.5 * hb
    return torch.stack([torch.stack([ax, ay, side[:, 0]], 1), torch.stack([bx, by, side[:, 1]], 1)], 1)


def boxes(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 (N, 4, H, W) → opaque boxes (N, 4) as x0, y0, x1, y1 in [0, 1], and where across its box each is highest (N,)."""
    found, crowns = [], []
    for part in pixels.split(256):
        opaque = part[:, 3] > OPAQUE
        side = opaque.shape[-1]
        columns, rows = opaque.any(1).float(), opaque.any(2).float()
        edges = [columns.argmax(1), rows.argmax(1), side - columns.flip(1).argmax(1), side - rows.flip(1).argmax(1)]
        box = torch.stack(edges, 1).float() / side
        empty = ~opaque.flatten(1).any(1)
        box[empty] = torch.tensor([0.0, 0.0, 1.0, 1.0])
        # the middle of what is opaque in the topmost eighth of the box
        y = torch.arange(side) / side
        band = (y[None] < (box[:, 1] + 0.125 * (box[:, 3] - box[:, 1]))[:, None])[:, :, None] & opaque
        weight = band.sum(1).float()
        middle = (weight * (torch.arange(side) + 0.5) / side).sum(1) / weight.sum(1).clamp(min=1)
        crowns.append(((middle - box[:, 0]) / (box[:, 2] - box[:, 0])).clamp(0.1, 0.9))
        found.append(box)
    return torch.cat(found), torch.cat(crowns)
