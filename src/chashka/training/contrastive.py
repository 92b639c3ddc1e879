"""Stage two: the contrastive text encoder (recipe: ``ContrastiveRecipe``).

Every concept has one prototype: half what its pictures look like, half learned. A name in any language is pulled to its
concept's prototype and pushed from all others: multi-positive InfoNCE with every concept as a
negative and the texts' common prototype in place of pairwise terms (compare Reimers and Gurevych, arXiv 2004.09813). A
keyword of several concepts spreads over them. Sentences, if the recipe has them, are pulled to what says the same in other
languages (``sentences.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.multilingual import ContrastiveTextEncoder
from chashka.training.appearance import Appearance
from chashka.training.captions import KEYWORD, NAME, STYLED, VARIANT, Captions, Draw, balanced
from chashka.training.pictures import Pictures
from chashka.training.recipes import ContrastiveRecipe
from chashka.training.sentences import Sentences

KIND_WEIGHT = {NAME: 1.0, KEYWORD: 0.25, VARIANT: 0.35, STYLED: 0.35}


class Prototypes(nn.Module):
    """One direction per concept, and a style head over pooled embeddings whose last class is 'not said'.

    A direction is half what the concept looks like (``codes`` (C, E), fixed) and half a learned code (C, width - E).
    """

    def __init__(self, codes: torch.Tensor, styles: int, width: int) -> None:
        super().__init__()
        self.codes: torch.Tensor
        self.register_buffer("codes", codes)
        self.concept = nn.Parameter(torch.randn(len(codes), width - codes.shape[1]))
        self.style = nn.Linear(width, styles + 1)

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled (B, D) → cosines to every concept (B, C) and style logits (B, S + 1)."""
        directions = torch.cat([self.codes, F.normalize(self.concept, dim=-1)], 1)
        return F.normalize(pooled, dim=-1) @ F.normalize(directions, dim=-1).T, self.style(pooled / 16)


class ContrastiveTask:
    modules: Mapping[str, nn.Module]

    def __init__(
        self,
        recipe: ContrastiveRecipe,
        pictures: Pictures,
        captions: Captions,
        device: str,
        looks: Appearance | None = None,
        sentences: Sentences | None = None,
    ) -> None:
        """``looks`` of the captions' concepts, ``recipe.appearance`` numbers each; ``sentences``: None if it has none."""
        self.recipe, self.device, self.sentences = recipe, device, sentences
        torch.manual_seed(recipe.run.seed)
        self.text = ContrastiveTextEncoder(recipe.text).to(device)
        shape = len(captions.concepts), len(pictures.styles)
        none = Appearance(torch.zeros(shape[0], 0), torch.zeros(*shape, 0))
        self.looks = Appearance(*((looks or none).concept.to(device), (looks or none).styled.to(device)))
        self.prototypes = Prototypes(self.looks.concept, shape[1], recipe.text.pooled).to(device)
        self.modules = {"text_contrastive": self.text, "prototypes": self.prototypes}
        self.captions, self.styles = captions.to(device), len(pictures.styles)
        kinds = torch.tensor([KIND_WEIGHT[k] for k in range(4)])[captions.kind]
        count = len(captions.concepts)
        of_concept = concept_weights(pictures, count)
        self.draw_caption = Draw(
            balanced(captions.concept, count, kinds * captions.weight(recipe.main_boost, recipe.often), of_concept).to(
                device
            )
        )

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        parts, pooled = self.captions.by_length(self.draw_caption(recipe.run.batch, generator)), []
        for part in parts:
            pooled.append(self._noisily(*self.captions.batch(part), generator))
        rows = torch.cat(parts)
        style = self.captions.style[rows]
        concept, said = self.captions.concept[rows], torch.cat(pooled)
        text = self._compare(said, concept, torch.where(style < 0, self.styles, style))
        loss, figures = text[0] + 0.2 * text[1], {"text": text[0], "text_style": text[1]}
        if recipe.appearance:
            figures["looks"] = self._looks(said, concept, style)
            loss = loss + recipe.looks * figures["looks"]
        if self.sentences is not None:
            encode = partial(self._noisily, generator=generator)
            figures["sentences"] = self.sentences.loss(encode, recipe.sentence_scenes, recipe.temperature, generator)
            loss = loss + recipe.sentences * figures["sentences"]
        return loss, figures

    def _noisily(self, ids: torch.Tensor, mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Pooled texts with slips of the pen in them."""
        recipe = self.recipe
        said: torch.Tensor = self.text(noisy(ids, mask, recipe.token_noise, recipe.text.vocab, generator), mask)[1]
        return said

    @torch.no_grad()
    def prototypes_from_names(self) -> None:
        """Put every concept's prototype where the text encoder has its names in the main languages now.

        For runs that begin with an exported text encoder: prototypes are not exported.
        """
        centres = name_centres(self.text, self.captions)[:, self.recipe.appearance :]
        found = centres.norm(dim=-1) > 0
        scaled = centres * self.prototypes.concept.norm(dim=-1, keepdim=True)
        self.prototypes.concept[found] = scaled[found]

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Accuracy of the nearest concept, by kind of caption and for the languages that come often."""
        chance = torch.Generator().manual_seed(1)
        captions, figures = self.captions, {}
        main = torch.tensor([name in captions.main for name in captions.locales])[captions.locale.cpu()]
        kinds = captions.kind.cpu()
        named = {"name": kinds == NAME, "name_main": (kinds == NAME) & main, "variant_main": (kinds == VARIANT) & main}
        for label, wanted in named.items():
            rows = torch.nonzero(wanted).squeeze(1)
            if not len(rows):
                continue
            rows = rows[torch.randint(len(rows), (2048,), generator=chance)].to(self.device)
            figures[label] = float(self._right(rows).float().mean())
        if self.sentences is not None:
            figures["sentence"] = self.sentences.found(lambda ids, mask: self.text(ids, mask)[1], chance)
        return figures

    def _right(self, rows: torch.Tensor) -> torch.Tensor:
        hits = []
        for part in rows.split(256):
            cosine = self.prototypes(self.text(*self.captions.batch(part))[1])[0]
            hits.append(cosine.argmax(1) == self.captions.concept[part])
        return torch.cat(hits)

    def _looks(self, pooled: torch.Tensor, concept: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """1 - cosine of the pooled text's first numbers to what it should look like, in the style that it names."""
        styled = self.looks.styled[concept, style.clamp(min=0)]
        drawn = (style >= 0) & (styled.abs().sum(-1) > 0)
        wanted = torch.where(drawn[:, None], styled, self.looks.concept[concept])
        return (1 - F.cosine_similarity(pooled[:, : self.recipe.appearance].float(), wanted, dim=-1)).mean()

    def _compare(
        self, pooled: torch.Tensor, concept: torch.Tensor, style: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cosine, styles = self.prototypes(pooled.float())
        return F.cross_entropy(cosine * self.recipe.temperature, concept), F.cross_entropy(styles, style)


def name_centres(encoder: nn.Module, captions: Captions, names: int = 16) -> torch.Tensor:
    """(C, D): the mean direction of at most ``names`` names of each concept in the main languages; 0 where it has none."""
    return _centres(encoder, captions, captions.kind == NAME, captions.concept, len(captions.concepts), names)


def styled_centres(encoder: nn.Module, captions: Captions, styles: int, names: int = 4) -> torch.Tensor:
    """(C, S, D): the same of the names with a style, for each concept and style."""
    shape = len(captions.concepts), styles
    key = captions.concept * styles + captions.style.clamp(min=0)
    styled = (captions.kind == STYLED) & (captions.style >= 0)
    centres = _centres(encoder, captions, styled, key, shape[0] * styles, names)
    return centres.reshape(*shape, -1)


@torch.no_grad()
def _centres(
    encoder: nn.Module, captions: Captions, wanted: torch.Tensor, key: torch.Tensor, keys: int, limit: int
) -> torch.Tensor:
    """(keys, D): the mean direction of at most ``limit`` wanted captions of each key in the main languages."""
    device = captions.concept.device
    often = torch.tensor([name in captions.main for name in captions.locales], device=device)
    rows = torch.nonzero(wanted & often[captions.locale]).squeeze(1)
    rows = rows[torch.argsort(key[rows], stable=True)]
    own = key[rows]
    first = torch.searchsorted(own, own)  # of each row's own key
    kept = torch.arange(len(rows), device=device) - first < limit
    rows, own = rows[kept], own[kept]
    pooled = torch.cat([encoder(*captions.batch(part))[1].float() for part in rows.split(256)])
    total = torch.zeros(keys, pooled.shape[1], device=device)
    return F.normalize(total.index_add(0, own, pooled), dim=-1)


def noisy(
    ids: torch.Tensor, mask: torch.Tensor, share: float, vocabulary: int, generator: torch.Generator
) -> torch.Tensor:
    """Replace a share of the pieces (never bos, eos or padding: ids below 3) by random ones: slips of the pen."""
    u = torch.rand(ids.shape, generator=generator, device=ids.device)
    other = torch.randint(260, vocabulary, ids.shape, generator=generator, device=ids.device)
    return torch.where((u < share) & (ids > 2) & (mask > 0), other, ids)


def concept_weights(pictures: Pictures, count: int) -> torch.Tensor:
    """The largest weight of a concept's pictures: flags and skin tones count little, drawings of things count fully."""
    weights = torch.zeros(count).scatter_reduce_(0, pictures.concept, pictures.weight, "amax")
    return weights.clamp(min=0.02)
