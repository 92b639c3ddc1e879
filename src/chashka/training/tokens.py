"""Stage two, once more: the contrastive encoder's tokens learn who stands where, its vector stays (``ContrastiveRecipe.kept``).

What is learned from names, and from sentences as single points, leaves tokens that hardly tell the order of things. Here captions
of composed scenes are translated into English from the tokens (``sentences.py``), by a decoder that is thrown away afterwards, and
the vector of names and sentences is held to what the encoder said when the run began: what reads that vector reads on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.configs import T5Config
from chashka.nets.multilingual import ContrastiveTextEncoder, T5Decoder
from chashka.training.captions import Captions, Draw, balanced
from chashka.training.contrastive import KIND_WEIGHT, noisy
from chashka.training.recipes import ContrastiveRecipe
from chashka.training.sentences import Translations
from chashka.training.t5 import spoken


class TokensTask:
    modules: Mapping[str, nn.Module]

    def __init__(
        self,
        recipe: ContrastiveRecipe,
        captions: Captions,
        of_concept: torch.Tensor,
        device: str,
        sentences: Translations,
    ) -> None:
        """``of_concept``: how often each concept comes. ``keep`` must be called when the encoder has its first weights."""
        self.recipe, self.device, self.sentences = recipe, device, sentences
        torch.manual_seed(recipe.run.seed)
        text = recipe.text
        self.text = ContrastiveTextEncoder(text).to(device)
        self.kept = ContrastiveTextEncoder(text).to(device).requires_grad_(False)
        around = T5Config(vocab=text.vocab, embed=text.embed, width=text.width, heads=text.heads, ff=2 * text.width)
        self.decoder = T5Decoder(around).to(device)
        self.modules = {"text_contrastive": self.text, "kept": self.kept, "t5_decoder": self.decoder}
        self.captions = captions.to(device)
        kinds = torch.tensor([KIND_WEIGHT[k] for k in range(4)])[captions.kind]
        within = kinds * captions.weight(recipe.main_boost, recipe.often)
        self.draw = Draw(balanced(captions.concept, len(captions.concepts), within, of_concept).to(device))
        self.pieces = sentences.pieces

    def keep(self) -> None:
        """Hold the vector to what the encoder says now."""
        self.kept.load_state_dict(self.text.state_dict())

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        moved, translated, right = [], [], []
        for rows in self.captions.by_length(self.draw(recipe.run.batch, generator)):
            ids, mask = self.captions.batch(rows)
            moved.append(self._read(self._slipped(ids, mask, generator), mask)[1])
        for ids, mask, said, said_mask in self.sentences.draw(recipe.translated, generator):
            tokens, away = self._read(self._slipped(ids, mask, generator), mask)
            loss, whole = spoken(self.decoder, self.pieces, tokens, mask, said, said_mask)
            moved.append(away)
            translated.append(loss)
            right.append(whole)
        figures = {"translated": torch.stack(translated).mean(), "moved": torch.cat(moved).mean()}
        loss = figures["translated"] + recipe.kept * figures["moved"]
        return loss, figures | {"right": torch.cat(right).float().mean()}

    @torch.no_grad()
    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Of 1,024 captions of held-out scenes: the share whose whole English sentence is predicted (teacher forced); and how
        far vectors have moved there and of as many names, 1 - cosine."""
        chance = torch.Generator(self.device).manual_seed(1)
        whole, away = [], []
        for ids, mask, said, said_mask in self.sentences.draw(1024, chance, held=True):
            tokens, moved = self._read(ids, mask)
            whole.append(spoken(self.decoder, self.pieces, tokens, mask, said, said_mask)[1])
            away.append(moved)
        names = [self._read(*self.captions.batch(part))[1] for part in self.draw(1024, chance).split(256)]
        return {
            "whole_sentence": float(torch.cat(whole).float().mean()),
            "moved": float(torch.cat(away).mean()),
            "moved_names": float(torch.cat(names).mean()),
        }

    def _slipped(self, ids: torch.Tensor, mask: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return noisy(ids, mask, self.recipe.token_noise, self.recipe.text.vocab, generator)

    def _read(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, L, width), and 1 - cosine of the vector and the one that is kept, (B,)."""
        tokens, pooled = self.text(ids, mask)
        with torch.no_grad():
            before = self.kept(ids, mask)[1]
        return tokens, 1 - F.cosine_similarity(pooled.float(), before.float(), dim=-1)
