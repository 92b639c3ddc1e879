"""Stage five: few steps. What a trained U-Net draws in many guided steps, learned as a few jumps (recipe: ``DistilRecipe``).

The teacher's drawings are computed once and kept in ``features/`` of the run, a file for each batch of them:

features/path-NNNNN.safetensors  x f16 (S, B, C, h, w), where each of the S segments begins, in network space; denoised f16 of the
                                 same shape, what has to be said there to arrive where the segment ends
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call

from chashka.diffusion.arrays import as_rows
from chashka.diffusion.denoiser import Conditioning, Denoiser
from chashka.diffusion.guidance import cfg
from chashka.diffusion.samplers import euler
from chashka.diffusion.straight import samplers_along
from chashka.training.arithmetic import autocast
from chashka.training.features import Features
from chashka.training.loop import generator
from chashka.training.low_rank import LowRank
from chashka.training.pictures import sheet
from chashka.training.recipes import DistilRecipe, UNetRecipe
from chashka.training.unet import UNetTask, schedule_of

HELD = 1
"""The first so many batches of drawings are not learned from."""


class DistilTask(UNetTask):
    """The teacher's weights stay; what is learned is a ``LowRank`` change of its U-Net (component ``fast``).

    In sigma space one Euler step from σ to σ' = r·σ that says D arrives at D + r·(x - D). So at the beginning of a segment the
    student shall say (x' - r·x)/(1 - r), x' being where the teacher was at its end. Progressive distillation (arXiv 2202.00512)
    to the end at once, with guidance in it (2210.03142).
    """

    recipe: DistilRecipe

    def __init__(
        self,
        recipe: DistilRecipe,
        features: Features,
        decoder: nn.Module,
        device: str,
        teacher: tuple[nn.Module, nn.Module | None],
        folder: Path,
    ) -> None:
        """folder: of the teacher's drawings; those that are missing are made now."""
        super().__init__(recipe, features, decoder, device)
        self.unet.load_state_dict(teacher[0].state_dict())
        if teacher[1] is not None:
            self.modules["text_head"].load_state_dict(teacher[1].state_dict())
        self.network.eval().requires_grad_(False)
        self.change = LowRank(self.unet, recipe.rank).to(device)
        self.modules = {"fast": self.change}
        self.schedule = schedule_of(recipe, recipe.shift)
        self.sigmas = self.schedule.spaced(recipe.segments, recipe.spacing)
        self.levels = torch.tensor(self.sigmas[:-1], device=device)
        self.paths = [self._path(folder, number) for number in range(recipe.paths)]

    @staticmethod
    def batches(recipe: UNetRecipe) -> tuple[int, ...]:
        """The student's, and the teacher's guided ones."""
        return recipe.run.batch, 2 * recipe.run.batch

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device = self.levels.device
        number = int(torch.randint(HELD, len(self.paths), (), generator=generator, device=device))
        path = self.paths[number]
        rows = path["x"].shape[1]
        segment = torch.randint(self.recipe.segments, (rows,), generator=generator, device=device)
        value = self._jump_loss(path, number, segment)
        first = (value * (segment == 0)).sum() / (segment == 0).sum().clamp(min=1)
        return value.mean(), {"first": first.detach()}

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Of drawings never learned from: the loss of each jump, and how far the student's own end is from the teacher's, as a
        share of what the teacher's drawings deviate; and the usual sheet."""
        figures, path = {}, self.paths[0]
        for segment in range(self.recipe.segments):
            everywhere = torch.full((path["x"].shape[1],), segment, device=self.levels.device)
            figures[f"held_{segment}"] = float(self._jump_loss(path, 0, everywhere).mean())
        cond, _, _ = self._shown(0)
        x = path["x"][0].float() / self.schedule.scale(self.sigmas[0])
        for each in euler(lambda x, sigma: self.denoiser(x, sigma, cond), x, self.sigmas):
            x = each.x
        end = path["denoised"][-1].float()
        figures["end"] = float((x - end).square().mean().sqrt() / (end - end.mean(0)).square().mean().sqrt())
        chance = torch.Generator(self.device).manual_seed(5)
        square = tuple(self.features.latents.shape[3:])
        sheet(self._draw(self._look_rows(), square, chance), 8, folder / f"look-{step:07d}.png")
        return figures

    def _jump_loss(self, path: dict[str, torch.Tensor], number: int, segment: torch.Tensor) -> torch.Tensor:
        """Per picture: the mean squared error of what the network says at the beginning of its ``segment`` (B,)."""
        cond, _, _ = self._shown(number)
        rows = torch.arange(len(segment), device=segment.device)
        sigma = self.levels[segment]
        x = path["x"][segment, rows].float() / as_rows(self.schedule.scale(sigma), path["x"][0])
        c_skip, c_out, _ = self.denoiser.scalings(sigma)
        wanted = path["denoised"][segment, rows].float() - as_rows(c_skip, x) * x
        out = self.denoiser.output(x, sigma, cond)
        value: torch.Tensor = (out - wanted / as_rows(c_out, x)).square().mean((1, 2, 3))
        return value

    def _shown(self, number: int) -> tuple[Conditioning, Conditioning, torch.Tensor]:
        """What batch ``number`` is drawn from: its conditioning, the empty one, and the noise (B, C, h, w)."""
        chance = generator(self.recipe.run.seed + 82, number, self.device)
        x0, rows, seen, _ = self._batch(chance)
        text = self._differently(self._text(rows), rows, seen, chance)
        known = self._known(x0, chance)
        noise = torch.randn(x0.shape, generator=chance, device=x0.device)
        return text | known, self._text(torch.zeros_like(rows)) | known, noise

    def _path(self, folder: Path, number: int) -> dict[str, torch.Tensor]:
        """The teacher's drawings of batch ``number``, from the folder or drawn now."""
        file = folder / f"path-{number:05d}.safetensors"
        if not file.exists():
            save_file(self._drawn(number), file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
        return load_file(file, device=self.device)

    @torch.no_grad()
    def _drawn(self, number: int) -> dict[str, torch.Tensor]:
        recipe = self.recipe
        cond, empty, noise = self._shown(number)
        low, high = (t / (1 - t) if t < 1 else self.schedule.max_sigma for t in recipe.interval)
        teacher = Denoiser(self._teach, self.schedule, recipe.prediction, data_std=recipe.data_std)
        sigmas = self.schedule.spaced(recipe.teacher_steps, recipe.spacing)
        points = [self.schedule.start(noise, sigmas[0])]
        denoise = cfg(teacher, cond, empty, recipe.guidance, (low, high) if low < high else None)
        points += [step.x for step in samplers_along(self.schedule)[recipe.teacher_sampler](denoise, points[0], sigmas)]
        every = recipe.teacher_steps // recipe.segments
        kept, levels = points[::every], sigmas[::every]
        starts, said = [], []
        for i in range(recipe.segments):
            ratio = levels[i + 1] / levels[i]
            starts.append(kept[i] * self.schedule.scale(levels[i]))
            said.append((kept[i + 1] - ratio * kept[i]) / (1 - ratio))
        return {"x": torch.stack(starts).half().contiguous(), "denoised": torch.stack(said).half().contiguous()}

    def _teach(self, x: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        with autocast(self.device):
            out: torch.Tensor = self.network(x, t, **cond).float()
        return out

    def _predict(self, x: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        weights = {f"unet.{name}": value for name, value in self.change.changed(self.unet).items()}
        with autocast(self.device):
            out: torch.Tensor = functional_call(self.network, weights, (x, t), cond).float()
        return out
