"""Pictures of a shard folder in memory, as training sees them: premultiplied RGBA bytes and the labels beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from chashka.data.shards import Shard
from chashka.errors import TrainingError


@dataclass(slots=True)
class Pictures:
    """``pixels`` uint8 (N, 4, H, W), premultiplied; int64 labels (N,); ``held_out`` bool (N,); names of the labels."""

    pixels: torch.Tensor
    concept: torch.Tensor
    style: torch.Tensor
    group: torch.Tensor
    weight: torch.Tensor
    held_out: torch.Tensor
    concepts: list[str]
    styles: list[str]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.pixels)

    def rows(self, held_out: bool) -> torch.Tensor:
        """Indices of the training pictures, or of the held-out ones."""
        return torch.nonzero(self.held_out if held_out else ~self.held_out).squeeze(1)


def load_pictures(folder: Path, size: int | None = None, keep: Callable[[Shard, int], bool] | None = None) -> Pictures:
    """Pictures of ``folder/pictures-*.safetensors``, all or those that ``keep`` (shard, number in it) says yes to.

    ``size`` halves them (by area) to size×size when it is smaller. Raises TrainingError where there are none.
    """
    paths = sorted(folder.glob("pictures-*.safetensors"))
    if not paths:
        raise TrainingError(
            f"{folder}: no pictures-*.safetensors there; build them with: chashka data build --out {folder}"
        )
    shards = [Shard(path) for path in paths]
    kept = [[i for i in range(len(shard)) if keep is None or keep(shard, i)] for shard in shards]
    if not any(kept):
        raise TrainingError(f"{folder}: no pictures of the sources asked for; there are {', '.join(sources(shards))}")
    pixels = []
    for shard, rows in zip(shards, kept, strict=True):
        for i in rows:
            picture = torch.from_numpy(np.ascontiguousarray(shard.picture(i).transpose(2, 0, 1)))
            pixels.append(picture if size is None else shrink(picture[None], size)[0].clone())

    def column(name: str) -> torch.Tensor:
        return torch.from_numpy(
            np.concatenate([np.asarray(getattr(s, name))[rows] for s, rows in zip(shards, kept, strict=True)])
        )

    first = shards[0]
    return Pictures(
        torch.stack(pixels),
        column("concept").long(),
        column("style").long(),
        column("group").long(),
        column("weight").float(),
        column("held_out").bool(),
        list(first.concepts),
        list(first.styles),
        list(first.groups),
    )


def sources(shards: list[Shard]) -> list[str]:
    """The names of the packages that the pictures came from."""
    return sorted({name for shard in shards for name in shard.sources})


def without(names: tuple[str, ...]) -> Callable[[Shard, int], bool] | None:
    """For ``load_pictures``: everything but the pictures of these sources; None where all stay."""
    return (lambda shard, i: shard.sources[i] not in names) if names else None


def shrink(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (B, 4, H, W) → uint8 (B, 4, size, size) by averaging; H is a multiple of size."""
    factor = pixels.shape[-1] // size
    return F.avg_pool2d(pixels.float(), factor).round().to(torch.uint8)


def to_network(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 premultiplied → float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_bytes(network: torch.Tensor) -> torch.Tensor:
    """float (B, 4, H, W), about [-1, 1] → uint8 premultiplied: within range, no colour brighter than its alpha."""
    unit = network.clamp(-1, 1) * 0.5 + 0.5
    unit[:, :3] = torch.minimum(unit[:, :3], unit[:, 3:])
    return (unit * 255).round().to(torch.uint8)


def on_colour(network: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Composite premultiplied RGBA in [-1, 1] (B, 4, H, W) over ``colour`` (B, 3, 1, 1) in [0, 1] → RGB in [0, 1]."""
    unit = network * 0.5 + 0.5
    return unit[:, :3] + colour * (1 - unit[:, 3:])


def jitter(pixels: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Mirror half of float pictures (B, C, H, W) in [-1, 1], shift by up to 6 % and scale by 0.85 to 1.05; empty is -1."""
    b, device = len(pixels), pixels.device
    draw = torch.rand(4, b, generator=chance, device=device)
    scale = 1 / (0.85 + 0.20 * draw[0])
    mirror = torch.where(draw[1] < 0.5, -1.0, 1.0)
    theta = torch.zeros(b, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, 0, 2], theta[:, 1, 2] = (draw[2] - 0.5) * 0.24, (draw[3] - 0.5) * 0.24
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1


def on_canvas(pixels: torch.Tensor, canvas: tuple[int, int], chance: torch.Generator) -> torch.Tensor:
    """Square pictures (B, C, S, S) in [-1, 1] on empty canvases (B, C, H, W): as large as the shorter side, or a little
    less, mostly near the middle; half of them mirrored."""
    b, device, short = len(pixels), pixels.device, min(canvas)
    u = torch.rand(5, b, generator=chance, device=device)
    side = 0.9 + 0.1 * u[0]
    reach = torch.tensor([canvas[1] / short, canvas[0] / short], device=device)
    # the sum of two uniform numbers is near its middle more often than not
    along = 0.45 * (u[2] + u[3] - 1) * (reach[:, None] - 1)
    centre = torch.where(reach[:, None] > 1, along, 0.1 * (u[4] - 0.5))  # in shorter sides, from the middle
    theta = torch.zeros(b, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = torch.where(u[1] < 0.5, -1.0, 1.0) * reach[0] / side, reach[1] / side
    theta[:, 0, 2], theta[:, 1, 2] = 2 * centre[0] / side, 2 * centre[1] / side
    grid = F.affine_grid(theta, [b, pixels.shape[1], *canvas], align_corners=False)
    return F.grid_sample(pixels + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1


def sheet(pictures: torch.Tensor, columns: int, path: Path) -> None:
    """Write premultiplied RGBA pictures (B, 4, H, W) in [-1, 1] on light grey as one grid.

    PNG where Pillow is installed, else a binary PPM beside it (a bare training machine has no Pillow).
    """
    rgb = on_colour(pictures.float().cpu(), torch.full((1, 3, 1, 1), 0.93)).clamp(0, 1)
    b, c, h, w = rgb.shape
    rows = -(-b // columns)
    rgb = torch.cat([rgb, torch.ones(rows * columns - b, c, h, w)])
    grid = rgb.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    data = (grid * 255).round().to(torch.uint8).numpy()
    try:
        from PIL import Image
    except ImportError:
        path.with_suffix(".ppm").write_bytes(b"P6 %d %d 255\n" % (columns * w, rows * h) + data.tobytes())
    else:
        Image.fromarray(data).save(path)
