"""The upscaler: drawings at half their size back to the whole (recipe: ``UpscaleRecipe``).

Inputs are renders averaged over 2×2 pixels. A share of them is worse than that, so that the network sharpens what a model draws and
not only what is sharp already: the autoencoder's version of the half-sized drawing, or a slightly blurred one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from chashka.errors import TrainingError
from chashka.nets.upscaler import Upscaler
from chashka.training.arithmetic import autocast
from chashka.training.autoencoder import charbonnier, edge_weight, gradient_loss, scores
from chashka.training.loop import generator as chance_of
from chashka.training.picture import grounded
from chashka.training.pictures import Pictures, sheet, shrink, to_bytes, to_network
from chashka.training.recipes import UpscaleRecipe

LOOKED_AT = 48
"""Held-out pictures that a look measures."""
NOISE = 0.05
"""Share of the latents' deviation that is added before they are decoded: a sampler's latents are never exact ones."""
BLUR = 0.7
"""The strongest blur: so much of the mean of 3×3 pixels."""


class UpscaleTask:
    """Crops of renders; ``worn``: see :func:`decoded_halves`."""

    modules: Mapping[str, nn.Module]

    def __init__(
        self, recipe: UpscaleRecipe, pictures: Pictures, device: str, worn: dict[str, torch.Tensor] | None = None
    ) -> None:
        half = pictures.pixels.shape[-1] // 2
        if recipe.crop > half:
            raise TrainingError(f"crop is {recipe.crop}; pictures at half their size have {half} pixels a side")
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.run.seed)
        self.net = Upscaler(recipe.network).to(device)
        self.modules = {"upscaler": self.net}
        self.pixels = pictures.pixels.to(device)
        self.place = torch.full((len(pictures),), -1)  # of each picture among the worn ones
        self.worn = torch.zeros(0, 4, half, half, dtype=torch.uint8)
        if worn is not None:
            self.place[worn["rows"]] = torch.arange(len(worn["rows"]))
            self.worn = worn["pixels"].to(device)
        self.train_rows = pictures.rows(False)
        self.chance_of_row = pictures.weight[self.train_rows].clamp(min=0.05)
        self.held_rows = looked_at(pictures)

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        seen, picture = self._crops(generator)
        drawn = self.net(seen).float()
        parts = {
            "pixels": charbonnier(drawn - picture, edge_weight(picture)),
            "alpha": charbonnier(drawn[:, 3:] - picture[:, 3:]),
            "gradient": gradient_loss(drawn, picture),
        }
        return parts["pixels"] + recipe.alpha * parts["alpha"] + recipe.gradient * parts["gradient"], parts

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """PSNR on white of the network, and beside it of enlarging by bicubic and Lanczos interpolation alone.

        With the autoencoder also ``decoded_…``: of drawings as it gives them back, against the drawing itself.
        """
        figures: dict[str, list[torch.Tensor]] = {}
        shown: list[torch.Tensor] = []
        for rows in self.held_rows.split(8):
            picture = to_network(self.pixels[rows.to(self.pixels.device)])
            small = {"": F.avg_pool2d(picture, 2)}
            kept = self.place[rows]
            if bool((kept >= 0).all()):
                small["decoded_"] = to_network(self.worn[kept.to(self.worn.device)])
            for name, seen in small.items():
                ways = {"network": self._enlarged(seen), "bicubic": bicubic(seen), "lanczos": lanczos(seen)}
                for way, enlarged in ways.items():
                    found = scores(enlarged.clamp(-1, 1), picture)
                    figures.setdefault(f"{name}{way}_psnr_white", []).append(found["psnr_white"])
                    if way == "network":
                        figures.setdefault(f"{name}alpha_iou", []).append(found["alpha_iou"])
                shown.append(torch.stack([ways["bicubic"], ways["network"].clamp(-1, 1), picture], 1).flatten(0, 1))
        if shown:
            sheet(torch.cat(shown)[:48], 6, folder / f"look-{step:07d}.png")
        return {key: float(torch.cat(values).mean()) for key, values in figures.items()}

    def _enlarged(self, pixels: torch.Tensor) -> torch.Tensor:
        with autocast(self.device):
            out: torch.Tensor = self.net(pixels)
        return out.float()

    def _crops(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network sees (B, 4, crop, crop) and what it shall say (B, 4, 2·crop, 2·crop)."""
        recipe, device = self.recipe, generator.device
        b, crop = recipe.run.batch, recipe.crop
        weights = self.chance_of_row.to(device)
        rows = self.train_rows.to(device)[torch.multinomial(weights, b, replacement=True, generator=generator)].tolist()
        room = self.pixels.shape[-1] // 2 - crop + 1
        corners = torch.randint(0, room, (b, 2), generator=generator, device=device).tolist()
        blur = torch.rand(b, generator=generator, device=device).tolist()
        degraded = (torch.rand(b, generator=generator, device=device) < recipe.degraded).tolist()
        small, large = [], []
        for i, (row, (y, x)) in enumerate(zip(rows, corners, strict=True)):
            picture = to_network(self.pixels[row, :, 2 * y : 2 * (y + crop), 2 * x : 2 * (x + crop)])
            half, kept = F.avg_pool2d(picture, 2), int(self.place[row])
            if degraded[i] and kept >= 0:
                half = to_network(self.worn[kept, :, y : y + crop, x : x + crop])
            elif degraded[i]:
                half = blurred(half, BLUR * blur[i])
            small.append(half)
            large.append(picture)
        both = torch.stack(small), torch.stack(large)
        # the same chance twice, so that both get the same colour behind them
        seed = int(torch.randint(0, 2**31, (), generator=generator, device=device))
        seen, picture = (grounded(p, recipe.ground, chance_of(seed, 0, self.device)) for p in both)
        for axis in (-1, -2):
            flip = torch.rand(b, 1, 1, 1, generator=generator, device=device) < 0.5
            seen, picture = (torch.where(flip, p.flip(axis), p) for p in (seen, picture))
        return seen, picture


def looked_at(pictures: Pictures) -> torch.Tensor:
    """The held-out pictures that looks measure, always the same."""
    held = pictures.rows(True)
    return held[torch.randperm(len(held), generator=torch.Generator().manual_seed(0))][:LOOKED_AT]


@torch.no_grad()
def decoded_halves(
    path: Path, pictures: Pictures, networks: tuple[nn.Module, nn.Module], share: float, seed: int, device: str
) -> dict[str, torch.Tensor]:
    """A ``share`` of the pictures at half their size as the autoencoder gives them back, and all that looks measure.

    ``pixels`` uint8 (M, 4, H/2, W/2) of the pictures ``rows`` (M,); computed once and kept in ``path``. networks: encoder
    and decoder.
    """
    if path.is_file():
        return load_file(path)
    encoder, decoder = networks
    chosen = torch.rand(len(pictures), generator=chance_of(seed + 7, 0)) < share
    chosen[looked_at(pictures)] = True
    rows = torch.nonzero(chosen).squeeze(1)
    half, out = pictures.pixels.shape[-1] // 2, []
    for i, part in enumerate(rows.split(16)):
        pixels = to_network(shrink(pictures.pixels[part], half)).to(device)
        with autocast(device):
            latents = encoder(pixels).float().chunk(2, 1)[0]
            noise = torch.randn(latents.shape, generator=chance_of(seed + 7, i + 1)).to(device)
            decoded = decoder(latents + NOISE * latents.std() * noise)
        out.append(to_bytes(decoded.float()).cpu())
    tensors = {"rows": rows, "pixels": torch.cat(out)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return tensors


def blurred(pixels: torch.Tensor, strength: float) -> torch.Tensor:
    """(C, H, W), so far on the way to the mean of 3×3 pixels; at the border of those that are there."""
    return torch.lerp(pixels, F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False), strength)


def bicubic(pixels: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) → (B, C, 2H, 2W)."""
    return F.interpolate(pixels, scale_factor=2.0, mode="bicubic", align_corners=False)


def lanczos(pixels: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) → (B, C, 2H, 2W) by Lanczos' kernel of three lobes, as Pillow has it (which a bare machine lacks)."""
    rows, columns = (_lanczos(extent).to(pixels) for extent in pixels.shape[-2:])
    return rows @ pixels @ columns.T


def _lanczos(extent: int) -> torch.Tensor:
    """(2·extent, extent): weights of every pixel in every new one; beyond the border nothing counts."""
    new = (torch.arange(2 * extent, dtype=torch.float64) + 0.5) / 2 - 0.5
    away = new[:, None] - torch.arange(extent, dtype=torch.float64)
    weights = torch.sinc(away) * torch.sinc(away / 3) * (away.abs() < 3)
    return weights / weights.sum(1, keepdim=True)
