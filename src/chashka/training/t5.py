"""Stage three: the T5-style encoder (recipe: ``T5Recipe``), trained text to text.

Any caption of a concept goes in, the concept's English name (with its style, if the caption said it) comes out of a small
decoder that is thrown away afterwards (the text-to-text objective of T5, arXiv 1910.10683, on our own captions).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from chashka.errors import TrainingError
from chashka.nets.multilingual import T5Decoder, T5TextEncoder
from chashka.training.captions import KEYWORD, NAME, STYLED, VARIANT, Captions, Draw, balanced
from chashka.training.contrastive import noisy
from chashka.training.recipes import T5Recipe

KIND_WEIGHT = {NAME: 1.0, KEYWORD: 0.1, VARIANT: 0.35, STYLED: 0.6}


class T5Task:
    modules: Mapping[str, nn.Module]

    def __init__(self, recipe: T5Recipe, captions: Captions, of_concept: torch.Tensor, device: str) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.run.seed)
        self.encoder = T5TextEncoder(recipe.text).to(device)
        self.decoder = T5Decoder(recipe.text, recipe.decoder_layers).to(device)
        self.modules = {"text_t5": self.encoder, "t5_decoder": self.decoder}
        self.captions = captions.to(device)
        kinds = torch.tensor([KIND_WEIGHT[k] for k in range(4)])[captions.kind]
        count = len(captions.concepts)
        self.target = english_rows(captions)
        # A concept without an English name has nothing to be said: it is not drawn.
        known = (self.target[:, -1] >= 0).float()
        weights = balanced(captions.concept, count, kinds * captions.weight(recipe.main_boost), of_concept * known)
        self.draw = Draw(weights.to(device))
        self.target = self.target.to(device)
        # The decoder only chooses among pieces of English names: a tenth of the vocabulary, most of its time saved.
        rows = self.target[self.target >= 0].unique()
        ids, mask = self.captions.batch(rows)
        self.pieces = ids[mask > 0].unique()

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        losses, rights = [], []
        for rows in self.captions.by_length(self.draw(self.recipe.run.batch, generator)):
            ids, mask = self.captions.batch(rows)
            ids = noisy(ids, mask, self.recipe.token_noise, self.recipe.text.vocab, generator)
            loss, right = self._score(rows, self.encoder(ids, mask), mask)
            losses.append(loss)
            rights.append(right)
        return torch.stack(losses).mean(), {"right": torch.cat(rights).float().mean()}

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Share of captions whose whole English name is predicted piece by piece (teacher forced)."""
        chance = torch.Generator(self.device).manual_seed(1)
        rows = self.draw(1024, chance)
        hits = []
        for part in rows.split(256):
            ids, mask = self.captions.batch(part)
            hits.append(self._score(part, self.encoder(ids, mask), mask)[1])
        return {"whole_name": float(torch.cat(hits).float().mean())}

    def _score(self, rows: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        style = self.captions.style[rows]
        target_rows = self.target[self.captions.concept[rows], style]  # style -1 is the last column: the plain name
        said, said_mask = self.captions.batch(target_rows)
        logits = self.decoder(said[:, :-1], tokens, mask, self.pieces).float()
        wanted = torch.where(said_mask[:, 1:] > 0, torch.searchsorted(self.pieces, said[:, 1:].contiguous()), -100)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)
        right = ((logits.argmax(-1) == wanted) | (wanted < 0)).all(1)
        return loss, right


def english_rows(captions: Captions) -> torch.Tensor:
    """(C, S + 1): the row of each concept's English name in each style; the last column is the plain name; -1 where none.

    Where a style has no English row the plain name stands in for it.
    """
    if "en" not in captions.locales:
        raise TrainingError("the caption table has no English: rebuild it with: chashka data build")
    english = captions.locale == captions.locales.index("en")
    styles = int(captions.style.max()) + 1
    table = torch.full((len(captions.concepts), styles + 1), -1)
    for kind in (STYLED, NAME):
        rows = torch.nonzero(english & (captions.kind == kind)).squeeze(1).flip(0)  # the first row of each wins
        table[captions.concept[rows], captions.style[rows]] = rows
    return torch.where(table < 0, table[:, -1:], table)
