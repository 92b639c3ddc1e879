"""What the judge learns from: composed scenes with boxes that come free, and drawings spoilt on purpose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from chashka.training.arithmetic import autocast
from chashka.training.loop import generator
from chashka.training.pictures import Pictures, shrink, to_bytes, to_network
from chashka.training.scenes import Composed

LEAST = 0.25
"""A thing of which less than this share is visible is nobody's: it is not asked for, and is no mistake."""
VISIBLE = 0.4
NOISY = (0.4, 0.9)
"""Share of the latents kept and of noise added (in their own deviation) in what is decoded as spoilt."""


@dataclass(slots=True)
class Boxes:
    """Things of B scenes, at most O each: ``label`` int64 (B, O), -1 for none; ``box`` (B, O, 4) as x0, y0, x1, y1 in shares."""

    label: torch.Tensor
    box: torch.Tensor

    @property
    def centre(self) -> torch.Tensor:
        """(B, O, 2)."""
        return (self.box[..., :2] + self.box[..., 2:]) / 2

    @property
    def extent(self) -> torch.Tensor:
        """Width and height, (B, O, 2)."""
        return self.box[..., 2:] - self.box[..., :2]


def boxes_of(noun: torch.Tensor, visible: torch.Tensor, whole: torch.Tensor, spoilt: torch.Tensor, none: int) -> Boxes:
    """Boxes around what is visible, (B, O, H, W). Spoilt things get the label ``none``; hidden ones -1."""
    seen = visible > VISIBLE
    side = visible.shape[-1]
    columns, rows = seen.any(2).float(), seen.any(3).float()
    edges = (columns.argmax(2), rows.argmax(2), side - columns.flip(2).argmax(2), side - rows.flip(2).argmax(2))
    box = torch.stack(edges, -1).float() / side
    there = (noun >= 0) & (seen.sum((2, 3)) >= torch.clamp(LEAST * whole, min=12))
    label = torch.where(spoilt, torch.full_like(noun, none), noun)
    return Boxes(torch.where(there, label, -1), box)


@dataclass(slots=True)
class Targets:
    """``centre`` (B, 1, G, G), 1 at centres; near them (``near``, (B, G, G) bool) count ``kind`` (B, G, G) and ``place`` (B, 4,
    G, G); ``covered`` (B, G, G) and there ``way`` (B, 2, G, G), to the centre of what covers a place."""

    centre: torch.Tensor
    kind: torch.Tensor
    place: torch.Tensor
    near: torch.Tensor
    covered: torch.Tensor
    way: torch.Tensor


def targets(boxes: Boxes, visible: torch.Tensor, grid: int) -> Targets:
    """What the network shall say of scenes (CenterNet's Gaussians around centres, as wide as a tenth of the thing)."""
    there = (boxes.label >= 0)[..., None, None]
    cell = (boxes.centre * grid).long().clamp(0, grid - 1)
    ticks = torch.arange(grid, device=visible.device)
    across, down = ticks[None, None, None, :] - cell[..., :1, None], ticks[None, None, :, None] - cell[..., 1:, None]
    sigma = (boxes.extent.amax(-1) * grid / 10).clamp(min=0.7)[..., None, None]
    bell = torch.exp(-(across.square() + down.square()) / (2 * sigma.square())) * there
    middle = (ticks + 0.5) / grid
    here = torch.stack(torch.meshgrid(middle, middle, indexing="xy"))[None, None]
    offset = boxes.centre[..., None, None] - here
    size = boxes.extent[..., None, None].expand(-1, -1, -1, grid, grid)
    best, owner = bell.max(1)
    place = _of_owner(torch.cat([offset, size], 2), owner)
    kind = boxes.label.clamp(min=0).gather(1, owner.flatten(1)).reshape(owner.shape)
    cover = F.avg_pool2d(visible, visible.shape[-1] // grid) * there
    most, nearest = cover.max(1)
    way = _of_owner(offset, nearest)
    return Targets(best[:, None], kind, place, best > 0.4, (most > VISIBLE).float(), way)


def _of_owner(values: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """(B, O, C, G, G) and the slot of every place (B, G, G) → (B, C, G, G)."""
    index = owner[:, None, None].expand(-1, -1, values.shape[2], -1, -1)
    return values.gather(1, index).squeeze(1)


class Spoiler:
    """Spoils ``share`` of drawings: blobs, halves, pairs grown together, and ``worn`` ones, uint8 (M, 4, H, W)."""

    def __init__(self, pixels: torch.Tensor, worn: torch.Tensor, share: float) -> None:
        self.pixels, self.worn, self.share = pixels, worn, share

    def __call__(self, drawings: torch.Tensor, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``scenes.Spoil``."""
        n, side = len(drawings), drawings.shape[-1]
        chosen = torch.rand(n, generator=chance) < self.share
        kinds = torch.randint(4 if len(self.worn) else 3, (n,), generator=chance)
        cut = 0.25 + 0.2 * torch.rand(n, generator=chance)
        turn = torch.randint(4, (n,), generator=chance)
        other = torch.randint(2**31, (n,), generator=chance)
        out = drawings.clone()
        for i in torch.nonzero(chosen).squeeze(1).tolist():
            kind, own = int(kinds[i]), out[i : i + 1]
            if kind == 0:
                cells = int(3 + other[i] % 3)
                own = F.interpolate(F.adaptive_avg_pool2d(own, cells), (side, side), mode="bilinear")
            elif kind == 3:
                own = self.worn[other[i] % len(self.worn)][None].to(out).float() / 255
            else:
                rest = torch.zeros_like(own)
                if kind == 2:
                    rest = self.pixels[other[i] % len(self.pixels)][None].to(out).float() / 255
                own = _cut(own, rest, 0.5 if kind == 2 else float(cut[i]), int(turn[i]))
            out[i : i + 1] = own
        return out, chosen.to(out.device)


def _cut(own: torch.Tensor, rest: torch.Tensor, share: float, turn: int) -> torch.Tensor:
    """The first ``share`` of ``own`` along one side (``turn``: which), ``rest`` behind the cut."""
    side = own.shape[-1]
    kept = torch.arange(side, device=own.device) < round(side * (0.1 + 0.8 * share))
    kept = kept if turn < 2 else kept.flip(0)
    mask = kept[:, None] if turn % 2 else kept[None]
    return torch.where(mask, own, rest)


def augment(scene: Composed, opaque: float, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes and what is visible in them, mirrored, moved and scaled a little; colours, sharpness and ground changed.

    The picture stays premultiplied RGBA in [-1, 1].
    """
    b, device = len(scene.picture), scene.picture.device
    u = torch.rand(9, b, generator=chance).to(device)
    theta = torch.zeros(b, 2, 3, device=device)
    scale = 0.92 + 0.3 * u[0]
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(u[1] < 0.5, -scale, scale), scale
    theta[:, 0, 2], theta[:, 1, 2] = (u[2] - 0.5) * 0.16, (u[3] - 0.5) * 0.16
    both = torch.cat([scene.picture * 0.5 + 0.5, scene.visible], 1)
    grid = F.affine_grid(theta, list(both.shape), align_corners=False)
    ground = scene.picture[:, 3:].flatten(1).amin(1) > 0.99  # a drawn ground has no border of nothing
    moved = F.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    edged = F.grid_sample(both[:, :4], grid, mode="bilinear", padding_mode="border", align_corners=False)
    unit = torch.where(ground[:, None, None, None], edged, moved[:, :4])
    gain = (0.85 + 0.3 * torch.rand(b, 3, 1, 1, generator=chance)).to(device)
    colour = torch.minimum(unit[:, :3] * gain, unit[:, 3:])
    flat = torch.rand(b, 3, 1, 1, generator=chance).to(device)
    laid = (u[4] < opaque)[:, None, None, None]
    alpha = torch.where(laid, torch.ones_like(unit[:, 3:]), unit[:, 3:])
    unit = torch.cat([torch.where(laid, colour + flat * (1 - unit[:, 3:]), colour), alpha], 1)
    soft = (u[5] < 0.25)[:, None, None, None]
    unit = torch.where(soft, F.avg_pool2d(unit, 3, 1, 1, count_include_pad=False), unit)
    noise = torch.randn(unit.shape, generator=chance).to(device) * 0.03 * (u[6] < 0.3)[:, None, None, None]
    return (unit + noise).clamp(0, 1) * 2 - 1, moved[:, 4:]


@torch.no_grad()
def decoded(
    path: Path,
    pictures: Pictures,
    networks: tuple[nn.Module, nn.Module],
    size: int,
    blurred: int,
    seed: int,
    device: str,
) -> dict[str, torch.Tensor]:
    """``clean``: every picture through the autoencoder and back; ``worn``: ``blurred`` of them from noisy latents.

    uint8 (N, 4, size, size), computed once and kept in ``path``. ``networks``: encoder and decoder, on ``device``.
    """
    if path.is_file():
        return load_file(path)
    encoder, decoder = networks
    clean: list[torch.Tensor] = []
    worn: list[torch.Tensor] = []
    keep = max(len(pictures) // max(blurred, 1), 1)
    for i in range(len(pictures)):
        chance = generator(seed + 5, i)
        pixels = to_network(pictures.pixels[i : i + 1]).to(device)
        with autocast(device):
            latents = encoder(pixels).float().chunk(2, 1)[0]
            noise = torch.randn(latents.shape, generator=chance).to(device) * latents.std()
            rows = [latents + 0.05 * noise]
            if i % keep == 0 and len(worn) < blurred:
                rows.append(NOISY[0] * latents + NOISY[1] * noise)
            out = shrink(to_bytes(decoder(torch.cat(rows)).float()), size).cpu()
        clean.append(out[:1])
        worn.append(out[1:])
    tensors = {"clean": torch.cat(clean), "worn": torch.cat(worn)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)
    return tensors


def focal(logits: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """CornerNet's focal loss of a heat map (arXiv 1808.01244, eq. 1), by the number of centres."""
    p = torch.sigmoid(logits)
    positive = heat == 1
    hit = (1 - p).square() * F.logsigmoid(logits) * positive
    miss = (1 - heat).pow(4) * p.square() * F.logsigmoid(-logits) * ~positive
    return -(hit + miss).sum() / positive.sum().clamp(min=1)


def frames(
    pixels: torch.Tensor, found: list[list[tuple[float, float, float, float]]], colour: torch.Tensor
) -> torch.Tensor:
    """Pictures (B, 4, H, W) in [-1, 1] with opaque frames of ``colour`` (3,) in [-1, 1] around boxes given in shares."""
    out, side = pixels.clone(), pixels.shape[-1]
    ink = torch.cat([colour, torch.ones(1)])[:, None, None]
    for picture, boxes in zip(out, found, strict=True):
        for box in boxes:
            x0, y0, x1, y1 = (min(max(math.floor(v * side), 0), side - 1) for v in box)
            for rows, columns in (
                (slice(y0, y1 + 1), slice(x0, x0 + 1)),
                (slice(y0, y1 + 1), slice(x1, x1 + 1)),
                (slice(y0, y0 + 1), slice(x0, x1 + 1)),
                (slice(y1, y1 + 1), slice(x0, x1 + 1)),
            ):
                picture[:, rows, columns] = ink
    return out
