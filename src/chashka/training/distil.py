"""Stage five: few steps. A trained U-Net is tuned so that one call jumps to the end of a segment (recipe: ``DistilRecipe``)."""

from __future__ import annotations

import torch
from torch import nn

from chashka.diffusion.denoiser import Conditioning, Denoiser
from chashka.diffusion.schedule import Flow
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from chashka.training.arithmetic import autocast
from chashka.training.features import Features
from chashka.training.recipes import DistilRecipe
from chashka.training.unet import Conditioned, UNetTask

LAST = 0.999
"""The noisiest time of a Flow."""


class DistilTask(UNetTask):
    recipe: DistilRecipe

    def __init__(
        self,
        recipe: DistilRecipe,
        features: Features,
        decoder: nn.Module,
        device: str,
        teacher: tuple[UNet, KandinskyTextHead],
    ) -> None:
        """The student begins as the ``teacher``."""
        super().__init__(recipe, features, decoder, device)
        self.unet.load_state_dict(teacher[0].state_dict())
        self.modules["text_head"].load_state_dict(teacher[1].state_dict())
        self.teacher = Conditioned(*teacher).to(device).eval().requires_grad_(False)
        schedule = Flow(shift=recipe.shift)
        times = [min(schedule.shifted(i / recipe.segments), LAST) for i in range(recipe.segments + 1)]
        self.bounds = torch.tensor(times, device=device)

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe = self.recipe
        x0, rows, seen = self._batch(generator)
        shown = self._with_pictures(self._text(rows), rows, seen, generator)
        known = self._known(x0, generator)
        text, empty = shown | known, self._text(torch.zeros_like(rows)) | known
        b, device = len(x0), x0.device
        u = torch.rand(2, b, generator=generator, device=device)
        segment = (u[0] * recipe.segments).long()
        low, high = self.bounds[segment], self.bounds[segment + 1]
        t = low + (high - low) * (1 - u[1])
        length = (high - low) / (recipe.first_steps * 2 ** min(int(share * 4), 3))
        r = torch.maximum(low, t - length)
        noise = torch.randn(x0.shape, generator=generator, device=device)
        z = rows_of(1 - t) * x0 + rows_of(t) * noise
        with torch.no_grad():
            after = z - rows_of(t - r) * self._guided(z, t, text, empty)
            target = after - rows_of(r - low) * velocity(self.denoiser, after, r.clamp(min=1e-3), text)
        jumped = z - rows_of(t - low) * velocity(self.denoiser, z, t, text)
        scale = recipe.robust + 0.1 * (1 - share)
        error = (jumped - target).square().mean((1, 2, 3))
        consistent = (torch.log1p(error / scale**2) * scale**2 / (t - r).clamp(min=1e-3)).mean()
        value, _ = self._flow_loss(x0, t, noise, text)
        loss = consistent + recipe.plain * value.mean()
        return loss, {"jump": error.detach().mean().sqrt(), "plain": value.detach().mean()}

    def _guided(self, z: torch.Tensor, t: torch.Tensor, text: Conditioning, empty: Conditioning) -> torch.Tensor:
        """The teacher's velocity under guidance inside the interval."""
        low, high = self.recipe.interval
        scale = torch.where((t >= low) & (t <= high), self.recipe.guidance, 1.0)
        teacher = Denoiser(self._teach, Flow(), self.recipe.prediction, data_std=self.recipe.data_std)
        cond, uncond = velocity(teacher, z, t, text), velocity(teacher, z, t, empty)
        return uncond + rows_of(scale) * (cond - uncond)

    def _teach(self, x: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        with autocast(self.device):
            out: torch.Tensor = self.teacher(x, t, **cond).float()
        return out


def velocity(denoiser: Denoiser, z: torch.Tensor, t: torch.Tensor, text: Conditioning) -> torch.Tensor:
    """dz/dt of the straight path at z = (1 - t)·data + t·noise (B, C, h, w), t (B,) in (0, 1): (z - denoised)/t."""
    denoised = denoiser(z / rows_of(1 - t), t / (1 - t), text)
    out: torch.Tensor = (z - denoised) / rows_of(t)
    return out


def rows_of(values: torch.Tensor) -> torch.Tensor:
    """(B,) → (B, 1, 1, 1)."""
    return values[:, None, None, None]
