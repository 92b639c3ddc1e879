"""Both halves of an autoencoder as one module, with the keys of the original checkpoint."""

from __future__ import annotations

import torch
from torch import nn

from chashka.nets.autoencoder import DecoderKL, EncoderKL
from chashka.nets.configs import AutoencoderConfig


class AutoencoderKL(nn.Module):
    """The halves share their layers with this module, so that weights given to it are theirs."""

    def __init__(self, cfg: AutoencoderConfig) -> None:
        super().__init__()
        first, second = EncoderKL(cfg), DecoderKL(cfg)
        self.encoder, self.quant_conv = first.encoder, first.quant_conv
        self.decoder, self.post_quant_conv = second.decoder, second.post_quant_conv
        self.halves = [first, second]

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        moments: torch.Tensor = self.halves[0](pixels)
        return moments

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.halves[1](latents)
        return pixels
