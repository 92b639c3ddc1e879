"""Stage four: the picture encoder, into the space of the frozen text encoder's pooled vector (recipe: ``PictureRecipe``).

A picture is pulled to the direction of its concept's names and pushed from those of all other concepts, and regressed to
what a caption says of the concept in the picture's style. What a text network reads of words it then reads of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.image_tower import ImageTower
from chashka.training.captions import Captions, Draw, balanced
from chashka.training.contrastive import concept_weights, name_centres, styled_centres
from chashka.training.pictures import Pictures, jitter, to_network
from chashka.training.recipes import PictureRecipe

ANCHOR = tuple(range(1, 32))
"""Ids whose pooled vector is kept beside the encoder: it tells whether a text encoder is the one that it was trained with."""


class Said(nn.Module):
    """What the text encoder says, fixed: ``concept`` (C, D) and ``styled`` (C, S, D), unit vectors or 0; ``anchor`` (D,)."""

    def __init__(self, concepts: int, styles: int, width: int) -> None:
        super().__init__()
        self.concept: torch.Tensor
        self.styled: torch.Tensor
        self.anchor: torch.Tensor
        self.register_buffer("concept", torch.zeros(concepts, width))
        self.register_buffer("styled", torch.zeros(concepts, styles, width))
        self.register_buffer("anchor", torch.zeros(width))


def prototypes(text: nn.Module, captions: Captions, styles: int) -> dict[str, torch.Tensor]:
    """The state of :class:`Said` for a text encoder."""
    return {
        "concept": name_centres(text, captions),
        "styled": styled_centres(text, captions, styles),
        "anchor": anchor(text, captions.concept.device),
    }


@torch.no_grad()
def anchor(text: nn.Module, device: torch.device | str = "cpu") -> torch.Tensor:
    """The direction (D,) of ``ANCHOR``."""
    ids = torch.tensor([ANCHOR], device=device)
    return F.normalize(text(ids, torch.ones(ids.shape, device=device))[1][0].float(), dim=-1)


class PictureTask:
    modules: Mapping[str, nn.Module]

    def __init__(self, recipe: PictureRecipe, pictures: Pictures, known: dict[str, torch.Tensor], device: str) -> None:
        """``pictures`` at 64×64; ``known``: see :func:`prototypes`."""
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.run.seed)
        self.tower = ImageTower(recipe.network).to(device)
        self.prototypes = Said(*known["styled"].shape).to(device)
        self.prototypes.load_state_dict(known)
        self.modules = {"picture": self.tower, "prototypes": self.prototypes}
        count = len(known["concept"])
        named = known["concept"].cpu().norm(dim=-1)[pictures.concept] > 0
        rows, held = (torch.nonzero(named & (pictures.held_out == out)).squeeze(1) for out in (False, True))
        within, of_concept = pictures.weight[rows].clamp(min=0.02), concept_weights(pictures, count)
        self.draw = Draw(balanced(pictures.concept[rows], count, within, of_concept).to(device))
        self.rows, self.held = rows.to(device), held[:1024].to(device)
        self.pixels, self.concept, self.style = (
            v.to(device) for v in (pictures.pixels, pictures.concept, pictures.style)
        )

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        rows = self.rows[self.draw(recipe.run.batch, generator)]
        pixels = grounded(jitter(to_network(self.pixels[rows]), generator), recipe.ground, generator)
        direction = F.normalize(self.tower(pixels).float(), dim=-1)
        contrast = F.cross_entropy(self._cosines(direction) * recipe.temperature, self.concept[rows])
        away = (1 - (direction * self._captions(rows)).sum(-1)).mean()
        return contrast + recipe.regression * away, {"contrast": contrast, "away": away}

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """How often a held-out picture finds its concept among all, first and among five, and its cosine to its caption."""
        ranks, cosines = [], []
        for rows in self.held.split(128):
            direction = F.normalize(self.tower(to_network(self.pixels[rows])).float(), dim=-1)
            found = self._cosines(direction)
            ranks.append((found > found.gather(1, self.concept[rows][:, None])).sum(1))
            cosines.append((direction * self._captions(rows)).sum(-1))
        rank = torch.cat(ranks) if ranks else torch.zeros(1)
        cosine = torch.cat(cosines) if cosines else torch.zeros(1)
        first, five = (float((rank < best).float().mean()) for best in (1, 5))
        return {"found_first": first, "found_in_five": five, "cosine": float(cosine.mean())}

    def _cosines(self, direction: torch.Tensor) -> torch.Tensor:
        return direction @ self.prototypes.concept.T

    def _captions(self, rows: torch.Tensor) -> torch.Tensor:
        """What a caption says of each picture: of its style if there is one, else of its concept."""
        styled = self.prototypes.styled[self.concept[rows], self.style[rows]]
        said = styled.abs().sum(-1, keepdim=True) > 0
        return torch.where(said, styled, self.prototypes.concept[self.concept[rows]])


def grounded(pixels: torch.Tensor, share: float, chance: torch.Generator) -> torch.Tensor:
    """Premultiplied pictures (B, 4, H, W) in [-1, 1], a share of them on a plain colour, all a little lighter or darker."""
    u = torch.rand(5, len(pixels), 1, 1, 1, generator=chance, device=pixels.device)
    unit = pixels * 0.5 + 0.5
    ground = torch.cat([*u[:3].unbind(0), torch.ones_like(u[0])], 1)
    unit = torch.where(u[3] < share, unit + ground * (1 - unit[:, 3:]), unit)
    colour = (unit[:, :3] * (0.85 + 0.3 * u[4])).clamp(max=1.0).minimum(unit[:, 3:])
    return torch.cat([colour, unit[:, 3:]], 1) * 2 - 1
