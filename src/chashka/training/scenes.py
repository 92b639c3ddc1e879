"""Pictures of composed scenes, made of the shards' drawings on whatever device training runs on.

``data/scenes.py`` says what stands where, ``layout.py`` where that is; here drawings are chosen, coloured and laid over one
another by their opaque boxes.
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
from chashka.training.layout import INSIDE, OPENING, UNDER, layout
from chashka.training.pictures import Pictures
from chashka.training.recolour import recolour

OPAQUE = 8
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
    locales: list[str]

    def __len__(self) -> int:
        return len(self.relation)


def load_scenes(path: Path) -> SceneTable:
    if not path.is_file():
        raise TrainingError(f"{path}: no table of scenes there; make it with: chashka data scenes")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = {f.name for f in fields(SceneTable)} & set(file.keys())
        columns = {name: file.get_tensor(name).long() for name in names}
    lists = {name: json.loads(metadata[name]) for name in ("emoji", "styles", "locales")}
    return SceneTable(**columns, **lists)


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

    def __call__(
        self, rows: torch.Tensor, chance: torch.Generator, canvas: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """Scenes (B,) → premultiplied RGBA float32 (B, 4, H, W) in [-1, 1]. ``rows`` and ``chance`` on the CPU.

        ``canvas``: H and W; the drawings' own size if none is given.
        """
        return self.compose(rows, chance, canvas=canvas).picture

    def compose(
        self,
        rows: torch.Tensor,
        chance: torch.Generator,
        spoil: Spoil | None = None,
        canvas: tuple[int, int] | None = None,
    ) -> Composed:
        """The same with what is visible of every thing. ``spoil`` changes drawings before they are placed."""
        s = self.scenes
        canvas = canvas or (self.side, self.side)
        noun = s.noun[rows]
        drawing = self._choose(noun, s.style[rows], chance)
        shape, crown, reach = torch.stack(self._extent(drawing), -1), self.crowns[drawing[:, 0]], reach_of(canvas)
        count = (noun >= 0).sum(1)
        place = layout(count, s.relation[rows], s.size[rows], shape, crown, chance, reach).to(self.device)
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
            layers.append(pixels.new_zeros(len(rows), 4, *canvas))
            layers[-1][filled] = self._laid(pixels, chosen, place[filled, slot], canvas)
        ground, colour = s.ground[rows].to(self.device), s.ground_colour[rows].to(self.device)
        scene = paint(ground, colour, canvas, chance)
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

    def _extent(self, drawing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Width and height of the boxes, the longer one 1."""
        box = self.boxes[drawing]
        width, height = box[..., 2] - box[..., 0], box[..., 3] - box[..., 1]
        longest = torch.maximum(width, height)
        return width / longest, height / longest

    def _laid(
        self, pixels: torch.Tensor, drawing: torch.Tensor, place: torch.Tensor, canvas: tuple[int, int]
    ) -> torch.Tensor:
        """The drawings moved and scaled so that their boxes stand at their places."""
        box, reach = self.boxes[drawing].to(self.device), torch.tensor(reach_of(canvas), device=self.device)
        longest = torch.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
        scale = (longest / place[:, 2].clamp(min=0.05)).clamp(max=8.0)
        centre = 0.5 * (box[:, :2] + box[:, 2:])
        theta = torch.zeros(len(pixels), 2, 3, device=self.device)
        theta[:, 0, 0], theta[:, 1, 1] = scale * reach[0], scale * reach[1]
        theta[:, :, 2] = (2 * centre - 1) - scale[:, None] * reach * (2 * place[:, :2] - 1)
        grid = F.affine_grid(theta, [len(pixels), 4, *canvas], align_corners=False)
        out = pixels.new_empty(len(pixels), 4, *canvas)
        for smaller in (False, True):
            rows = torch.nonzero((scale * self.side / min(canvas) > 1.6) == smaller).squeeze(1)
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
            size = int(scene.shape[2]), int(scene.shape[3])
            height = self._extent(drawing[:, 1])[1].to(self.device) * place[:, 1, 2] / reach_of(size)[1]
            line = place[:, 1, 1] + (OPENING - 0.5) * height
            rows = (torch.arange(size[0], device=self.device) + 0.5) / size[0]
            front = layers[1] * ((rows[None] > line[:, None]).float()[:, None, :, None] * inside)
            layers = [first, second, front, *layers[2:]]
            behind = (inside | below).reshape(-1).long()
            owners = [behind, 1 - behind, owners[1], *owners[2:]]
        for layer, owner in zip(layers, owners, strict=True):
            scene = layer + scene * (1 - layer[:, 3:])
            visible = visible * (1 - layer[:, 3:])
            visible[torch.arange(len(owner), device=owner.device), owner] += layer[:, 3]
        return scene.clamp(0, 1), visible


def reach_of(canvas: tuple[int, int]) -> tuple[float, float]:
    """Height and width → width and height in the shorter side."""
    height, width = canvas
    return width / min(canvas), height / min(canvas)


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
