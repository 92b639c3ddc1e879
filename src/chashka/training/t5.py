"""Stage three: the T5-style encoder (recipe: ``T5Recipe``), trained text to text.

Any caption of a concept goes in, the concept's English name (with its style, if the caption said it) comes out of a small
decoder that is thrown away afterwards (the text-to-text objective of T5, arXiv 1910.10683, on our own captions). Sentences about
composed scenes, if the recipe has them, are translated into English the same way (``sentences.py``).
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
from chashka.training.sentences import Translations

KIND_WEIGHT = {NAME: 1.0, KEYWORD: 0.1, VARIANT: 0.35, STYLED: 0.6}


class T5Task:
    modules: Mapping[str, nn.Module]

    def __init__(
        self,
        recipe: T5Recipe,
        captions: Captions,
        of_concept: torch.Tensor,
        device: str,
        sentences: Translations | None = None,
    ) -> None:
        """``of_concept``: how often each concept comes; ``sentences``: None if the recipe has none."""
        self.recipe, self.device, self.sentences = recipe, device, sentences
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
        # The decoder only chooses among pieces of what is said in English: a tenth of the vocabulary, most of its time saved.
        rows = self.target[self.target >= 0].unique()
        ids, mask = self.captions.batch(rows)
        pieces = [ids[mask > 0]] + ([] if sentences is None else [sentences.pieces])
        self.pieces = torch.cat(pieces).unique()

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        rows = self.captions.by_length(self.draw(recipe.run.batch, generator))
        loss, right = self._noisily([self._named(part) for part in rows], generator)
        figures = {"right": right}
        if self.sentences is not None:
            sentences = self.sentences.draw(recipe.sentence_captions, generator)
            figures["sentences"], figures["sentence_right"] = self._noisily(sentences, generator)
            loss = loss + recipe.sentences * figures["sentences"]
        return loss, figures

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Share of captions whose whole English name (of held-out scenes': whose whole English sentence) is predicted piece by
        piece, teacher forced."""
        chance = torch.Generator(self.device).manual_seed(1)
        names = [self._named(part) for part in self.draw(1024, chance).split(256)]
        figures = {"whole_name": self._whole(names)}
        if self.sentences is not None:
            figures["whole_sentence"] = self._whole(self.sentences.draw(1024, chance, held=True))
        return figures

    def _named(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Captions of concepts and what English calls these: ids, mask (B, L), ids, mask (B, M)."""
        style = self.captions.style[rows]
        target = self.target[self.captions.concept[rows], style]  # style -1 is the last column: the plain name
        return (*self.captions.batch(rows), *self.captions.batch(target))

    def _noisily(
        self, batches: list[tuple[torch.Tensor, ...]], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss of captions with slips of the pen in them, and which share is predicted whole."""
        losses, rights = [], []
        for ids, mask, said, said_mask in batches:
            slipped = noisy(ids, mask, self.recipe.token_noise, self.recipe.text.vocab, generator)
            loss, right = self._score(slipped, mask, said, said_mask)
            losses.append(loss)
            rights.append(right)
        return torch.stack(losses).mean(), torch.cat(rights).float().mean()

    def _whole(self, batches: list[tuple[torch.Tensor, ...]]) -> float:
        return float(torch.cat([self._score(*batch)[1] for batch in batches]).float().mean())

    def _score(
        self, ids: torch.Tensor, mask: torch.Tensor, said: torch.Tensor, said_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return spoken(self.decoder, self.pieces, self.encoder(ids, mask), mask, said, said_mask)


def spoken(
    decoder: nn.Module,
    pieces: torch.Tensor,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    said: torch.Tensor,
    said_mask: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a decoder makes of an encoder's ``tokens`` (B, L, D): the loss of saying ``said`` (B, M), all of whose pieces are among
    the sorted ``pieces``, and of each row whether every one is predicted (teacher forced)."""
    logits = decoder(said[:, :-1], tokens, mask, pieces).float()
    wanted = torch.where(said_mask[:, 1:] > 0, torch.searchsorted(pieces, said[:, 1:].contiguous()), -100)
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
