"""Stage one: the autoencoder that every teacup shares (recipe: ``AutoencoderRecipe``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from chashka.nets.autoencoder import Decoder, Encoder
from chashka.training.arithmetic import autocast
from chashka.training.pictures import Pictures, on_colour, sheet, to_network
from chashka.training.recipes import AutoencoderRecipe


class AutoencoderTask:
    """Random crops, half of them of the whole picture at half size, reconstructed from a sampled latent."""

    modules: Mapping[str, nn.Module]

    def __init__(self, recipe: AutoencoderRecipe, pictures: Pictures, device: str) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.run.seed)
        self.encoder, self.decoder = Encoder(recipe.network).to(device), Decoder(recipe.network).to(device)
        if recipe.freeze_encoder:
            self.encoder.requires_grad_(False)
        self.modules = {"encoder": self.encoder, "decoder": self.decoder}
        self.pixels = pictures.pixels.to(device) if device != "cpu" else pictures.pixels
        self.train_rows, held = pictures.rows(False), pictures.rows(True)
        # Drawings before skin tones and flags: the weight says how much a picture teaches.
        self.chance_of_row = pictures.weight[self.train_rows].clamp(min=0.05)
        self.held_rows = held[torch.randperm(len(held), generator=torch.Generator().manual_seed(0))][:96]

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        picture = self._crops(generator)
        mean, logvar = self.encoder(picture).float().chunk(2, 1)
        logvar = logvar.clamp(-20, 6)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        spread = torch.exp(0.5 * logvar)
        latents = mean + spread * noise
        if recipe.latent_noise:
            level = torch.rand(len(mean), 1, 1, 1, generator=generator, device=mean.device)
            latents = latents + recipe.latent_noise * level * mean.detach().std() * disturbance(mean.shape, generator)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        chosen = float(torch.rand((), generator=generator, device=mean.device))
        if chosen < recipe.equivariance:  # EQ-VAE: a smaller latent is the latent of the smaller picture
            scale = 0.5 if chosen < recipe.equivariance / 2 else 0.75
            latents = F.interpolate(latents, scale_factor=scale, mode="bilinear", antialias=True)
            picture = F.interpolate(picture, scale_factor=scale, mode="bilinear", antialias=True)
        drawn = self.decoder(latents).float()
        colour = torch.rand(len(drawn), 3, 1, 1, generator=generator, device=drawn.device)
        parts = {
            "pixels": charbonnier(drawn - picture, edge_weight(picture)),
            "composite": charbonnier(2 * (on_colour(drawn, colour) - on_colour(picture, colour))),
            "alpha": charbonnier(drawn[:, 3:] - picture[:, 3:]),
            "gradient": gradient_loss(drawn, picture),
        }
        loss = parts["pixels"] + recipe.composite * parts["composite"] + recipe.alpha * parts["alpha"]
        loss = loss + recipe.gradient * parts["gradient"] + recipe.kl * kl
        return loss, parts | {"kl": kl, "std": mean.std(), "spread": spread.mean()}

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Held-out pictures there and back; where noise is trained, also from latents that are disturbed half as much at most."""
        figures, shown, chance = [], [], torch.Generator(self.device).manual_seed(4)
        for rows in self.held_rows.split(16):
            picture = to_network(self.pixels[rows]).to(self.device)
            with autocast(self.device):
                mean = self.encoder(picture).float().chunk(2, 1)[0]
                drawn = self.decoder(mean).float().clamp(-1, 1)
                found = scores(drawn, picture)
                if self.recipe.latent_noise:
                    noisy = mean + 0.5 * self.recipe.latent_noise * mean.std() * disturbance(mean.shape, chance)
                    drawn = self.decoder(noisy).float().clamp(-1, 1)
                    found["psnr_disturbed"] = scores(drawn, picture)["psnr_white"]
            figures.append(found)
            shown.append(torch.stack([picture, drawn], 1).flatten(0, 1))
        sheet(torch.cat(shown)[:64], 8, folder / f"look-{step:07d}.png")
        return {key: sum(float(f[key].sum()) for f in figures) / len(self.held_rows) for key in figures[0]}

    def _crops(self, generator: torch.Generator) -> torch.Tensor:
        b, crop, device = self.recipe.run.batch, self.recipe.crop, generator.device
        weights = self.chance_of_row.to(device)
        rows = self.train_rows.to(device)[torch.multinomial(weights, b, replacement=True, generator=generator)]
        size = self.pixels.shape[-1]
        corner = torch.randint(0, size - crop + 1, (b, 2), generator=generator, device=device).tolist()
        whole = (torch.rand(b, generator=generator, device=device) < 0.35).tolist()
        crops = []
        for row, (y, x), small in zip(rows.tolist(), corner, whole, strict=True):
            picture = to_network(self.pixels[row])
            shrunk = F.avg_pool2d(picture, size // crop) if small else picture[:, y : y + crop, x : x + crop]
            crops.append(shrunk)
        out = torch.stack(crops).to(self.device)
        flip = torch.rand(b, 1, 1, 1, generator=generator, device=device).to(out.device) < 0.5
        return torch.where(flip, out.flip(-1), out)


def disturbance(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Noise of deviation 1, white or over 3×3 places, each picture somewhere between: what a sampler gets wrong is both."""
    white, wide = torch.randn(2, *shape, generator=generator, device=generator.device)
    wide = 3 * F.avg_pool2d(wide, 3, 1, 1)
    turn = 0.5 * math.pi * torch.rand(shape[0], 1, 1, 1, generator=generator, device=generator.device)
    mixed: torch.Tensor = turn.cos() * white + turn.sin() * wide
    return mixed


def charbonnier(difference: torch.Tensor, weight: torch.Tensor | None = None, eps: float = 0.01) -> torch.Tensor:
    """Mean of sqrt(d^2 + eps^2) - eps: absolute value with a round corner."""
    value = torch.sqrt(difference.square() + eps * eps) - eps
    return value.mean() if weight is None else (value * weight).mean()


def edge_weight(picture: torch.Tensor, strength: float = 3.0) -> torch.Tensor:
    """1 + strength within a pixel or two of an edge of alpha or colour, (B, 1, H, W): flat art lives in its edges."""
    dx = F.pad((picture[..., 1:] - picture[..., :-1]).abs().amax(1, keepdim=True), (0, 1))
    dy = F.pad((picture[..., 1:, :] - picture[..., :-1, :]).abs().amax(1, keepdim=True), (0, 0, 0, 1))
    near = F.max_pool2d(torch.maximum(dx, dy), 3, stride=1, padding=1)
    return 1 + strength * (near > 0.2).float()


def gradient_loss(drawn: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of finite differences at three scales."""
    total = drawn.new_zeros(())
    for _ in range(3):
        difference = drawn - picture
        total = total + (difference[..., 1:] - difference[..., :-1]).abs().mean()
        total = total + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        drawn, picture = F.avg_pool2d(drawn, 2), F.avg_pool2d(picture, 2)
    return total


def scores(drawn: torch.Tensor, picture: torch.Tensor) -> dict[str, torch.Tensor]:
    """PSNR on white (dB, of each picture), PSNR over all four channels, and IoU of alpha > 0.5; tensors (B,)."""
    white = torch.ones(1, 3, 1, 1, device=drawn.device)
    on_white = (on_colour(drawn, white) - on_colour(picture, white)).square().mean((1, 2, 3))
    all_four = ((drawn - picture) / 2).square().mean((1, 2, 3))
    a, b = drawn[:, 3] > 0, picture[:, 3] > 0
    iou = (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)
    return {
        "psnr_white": -10 / math.log(10) * torch.log(on_white + 1e-8),
        "psnr": -10 / math.log(10) * torch.log(all_four + 1e-8),
        "alpha_iou": iou,
    }
