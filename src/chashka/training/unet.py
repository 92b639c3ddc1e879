"""Stage four: the U-Net and its text head on frozen latents and frozen text features (recipe: ``UNetRecipe``)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from chashka.diffusion.denoiser import Conditioning, Denoiser
from chashka.diffusion.guidance import cfg, mask_channels
from chashka.diffusion.schedule import Flow, NoiseSchedule, Table
from chashka.diffusion.straight import samplers_along
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from chashka.training import swift
from chashka.training.arithmetic import autocast
from chashka.training.captions import Draw
from chashka.training.features import Canvas, Features, presence
from chashka.training.masks import random_masks
from chashka.training.pictures import sheet
from chashka.training.places import Lesson, Places
from chashka.training.recipes import UNetRecipe

LOOK_CONCEPTS = [
    "1f34e",
    "1f408",
    "1f415",
    "1f697",
    "1f3e0",
    "1f333",
    "1f3b8",
    "1f427",
    "1f680",
    "2602",
    "1f41f",
    "1f344",
    "2615",
    "1f355",
    "1f419",
    "1f98b",
    "1f33b",
    "26f5",
    "1f30d",
    "1f382",
    "1f4d6",
    "1f511",
    "26c4",
    "1f34c",
    "1f451",
    "1f388",
    "1f98a",
    "1f319",
    "1f335",
    "1f418",
    "1f989",
    "1f353",
]


class Conditioned(nn.Module):
    """U-Net after its text head, if it has one, so that one call goes from text features to a prediction.

    swiftly: shapes of x for which the U-Net goes by swift.py. Few, since each costs a minute of compiling.
    """

    def __init__(self, unet: UNet, head: KandinskyTextHead | None, swiftly: Collection[tuple[int, ...]] = ()) -> None:
        super().__init__()
        self.unet, self.text_head, self.swiftly = unet, head, swiftly

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, tokens1: torch.Tensor, pooled1: torch.Tensor, tokens2: torch.Tensor
    ) -> torch.Tensor:
        whole = pooled1 if self.unet.cfg.pooled else None
        tokens, added = (tokens1, whole) if self.text_head is None else self.text_head(tokens1, pooled1, tokens2)
        if tuple(x.shape) in self.swiftly:
            return swift.forward(self.unet, x, t, tokens, added)
        out: torch.Tensor = self.unet(x, t, tokens, added)
        return out


class UNetTask:
    modules: Mapping[str, nn.Module]

    def __init__(
        self, recipe: UNetRecipe, features: Features, decoder: nn.Module, device: str, places: Places | None = None
    ) -> None:
        """places: who is where in the composed scenes, for a recipe that shows or reads it (``related``, ``reading``)."""
        self.recipe, self.features, self.device, self.places = recipe, features, device, places
        self._first_scenes: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        torch.manual_seed(recipe.run.seed)
        self.unet = UNet(recipe.network).to(device)
        self.head = None if recipe.head is None else KandinskyTextHead(recipe.head).to(device)
        self.modules = {"unet": self.unet} | ({} if self.head is None else {"text_head": self.head})
        if recipe.reading and recipe.head is not None and places is not None:
            self.lesson = Lesson(recipe.head.context, int(places.thing.max()) + 1, int(places.colour.max()) + 1)
            self.modules = {**self.modules, "lesson": self.lesson.to(device)}
        self.decoder = decoder.to(device).eval().requires_grad_(False)
        swiftly = swift.worth(recipe.run) and not recipe.compile and swift.usable(self.unet, device)
        square = (recipe.network.in_channels, *features.latents.shape[3:])
        shapes = [(rows, *square) for rows in self.batches(recipe)] if swiftly else []
        self.network = Conditioned(self.unet, self.head, shapes)
        self.compiled = torch.compile(self.network, fullgraph=True, dynamic=False) if recipe.compile else self.network
        self.denoiser = self._denoiser(schedule_of(recipe, 1.0))
        self.rows = torch.nonzero(features.held_out == 0).squeeze(1)
        self.held = torch.nonzero(features.held_out == 1).squeeze(1)[:256]
        self.draw_picture = Draw(presence(recipe, features)[self.rows])
        self._index_captions()

    @staticmethod
    def batches(recipe: UNetRecipe) -> tuple[int, ...]:
        """How many rows the network's usual calls have."""
        return (recipe.run.batch,)

    def loss(self, generator: torch.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe, b = self.recipe, self.recipe.run.batch
        if share < recipe.reading_first:
            return self._reading_alone(generator)
        x0, rows, seen, scene = self._batch(generator)
        said = self._text(rows)
        text = self._differently(said, rows, seen, generator)
        normal = torch.randn(b, generator=generator, device=x0.device)
        t = torch.sigmoid(recipe.time_mean + recipe.time_std * normal).clamp(1e-3, 0.999)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        value, direction = self._flow_loss(x0, t, noise, text | self._known(x0, generator))
        loss = value.mean() + recipe.cosine * direction.mean()
        figures = {}
        if recipe.reading:
            figures["reading"] = self._reading(said, torch.where(rows > 0, scene, -1))
            loss = loss + recipe.reading * figures["reading"]
        with torch.no_grad():
            low = (value * (t < 0.2)).sum() / (t < 0.2).sum().clamp(min=1)
            high = (value * (t > 0.5)).sum() / (t > 0.5).sum().clamp(min=1)
        return loss, {"low": low, "high": high} | {name: figure.detach() for name, figure in figures.items()}

    def _reading_alone(self, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The lesson by itself: a step of it costs a hundredth of the U-Net's, which then begins with places that read."""
        u = torch.rand(2, self.recipe.run.batch, generator=generator, device=self.device)
        scene = self._chosen(u[0], len(self.features.scene_latents), generator)
        value = self._reading(self._text(self._said(scene, u[1])), scene)
        return value, {"reading": value.detach()}

    def _reading(self, text: Conditioning, scene: torch.Tensor) -> torch.Tensor:
        """How badly the head's places tell what stands where. scene: -1 where there is none, or no text."""
        assert self.head is not None and self.places is not None
        tokens, _ = self.head(**text)
        count = self.places.thing.shape[1]
        labels = (table[scene.clamp(min=0)] for table in (self.places.thing, self.places.colour))
        # of all rows, and those without left out of the mean: a GPU would have to be waited for to know which they are
        each, known = self.lesson(tokens[:, :count], *labels), (scene >= 0).float()
        loss: torch.Tensor = (each * known).sum() / known.sum().clamp(min=1)
        return loss

    def _batch(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (B, C, h, w), the rows of their captions, where their embeddings are (-1: a scene that has none), and which
        composed square scenes they are (-1: none)."""
        recipe, f = self.recipe, self.features
        canvas = self._canvas(generator)
        if canvas is None:
            seen = self.rows[self.draw_picture(recipe.run.batch, generator)]
            variant = torch.randint(len(f.latents), (len(seen),), generator=generator, device=seen.device)
            x0, scenes = f.latents[variant, seen].float(), f.scene_latents
        else:
            size = (recipe.run.batch,)
            pick = torch.randint(len(canvas.rows), size, generator=generator, device=canvas.rows.device)
            x0, seen, scenes = canvas.latents[pick].float(), canvas.rows[pick], canvas.scenes
        rows = self._captions(seen, generator)
        if not recipe.scenes:
            return x0, rows, seen, torch.full_like(rows, -1)
        x0, rows, scene = self._with_scenes(x0, rows, scenes, generator)
        behind, embedded = f.latents.shape[1], f.picture_pooled
        known = embedded is not None and embedded.shape[1] > behind
        square = scene if canvas is None else torch.full_like(scene, -1)
        return x0, rows, torch.where(scene < 0, seen, scene + behind if known else -1), square

    def _canvas(self, generator: torch.Generator) -> Canvas | None:
        """The shape of this step's pictures, one for all; None: a square."""
        if not self.features.canvases:
            return None
        # by a generator of its own on the CPU: a GPU would have to be waited for
        u = float(torch.rand((), generator=torch.Generator().manual_seed(generator.initial_seed())))
        for canvas in self.features.canvases:
            if u < canvas.share:
                return canvas
            u -= canvas.share
        return None

    def look(self, folder: Path, step: int) -> dict[str, float]:
        """Held-out flow loss on fixed times and noise, and a grid of fixed captions drawn with 20 guided steps."""
        chance = torch.Generator(self.device).manual_seed(5)
        figures: dict[str, float] = {}
        for t in (0.1, 0.25, 0.4, 0.7):
            values = []
            for rows in self.held.split(64):
                x0 = self.features.latents[0, rows].float()
                noise = torch.randn(x0.shape, generator=chance, device=x0.device)
                times = torch.full((len(rows),), t, device=x0.device)
                captions = self._captions(rows, chance, drop=0.0)
                values.append(self._flow_loss(x0, times, noise, self._text(captions) | self._known(x0))[0])
            figures[f"held_{t}"] = float(torch.cat(values).mean())
        square = tuple(self.features.latents.shape[3:])
        sheet(self._draw(self._look_rows(), square, chance), 8, folder / f"look-{step:07d}.png")
        for canvas in self.features.canvases[:2]:
            h, w = canvas.latents.shape[2:]
            sheet(self._draw(self._look_rows()[:8], (h, w), chance), 4, folder / f"look-{step:07d}-{h}x{w}.png")
        return figures

    def _flow_loss(
        self, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, text: Conditioning
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Per picture: mean squared error of what the network says, and 1 - cosine of its direction."""
        sigma = (t / (1 - t)).clamp(self.denoiser.schedule.min_sigma, self.denoiser.schedule.max_sigma)
        out = self.denoiser.output(x0 + sigma.reshape(-1, 1, 1, 1) * noise, sigma, text)
        target = self.denoiser.target(x0, noise, sigma)
        value = (out - target).square().mean((1, 2, 3))
        return value, 1 - F.cosine_similarity(out.flatten(1), target.flatten(1), dim=1)

    def _denoiser(self, schedule: NoiseSchedule) -> Denoiser:
        return Denoiser(self._predict, schedule, self.recipe.prediction, data_std=self.recipe.data_std)

    def _predict(self, x: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        # Compiled for each of the shapes that steps have, which takes minutes; what is drawn and looked at goes without.
        usual = self.unet.training and torch.is_grad_enabled() and x.shape[0] == self.recipe.run.batch
        if usual and self.recipe.compile:
            x = x.contiguous(memory_format=torch.channels_last)
        with autocast(self.device):
            out: torch.Tensor = (self.compiled if usual else self.network)(x, t, **cond).float()
        return out

    def _index_captions(self) -> None:
        """Rows sorted by concept (plain) and by concept and style (styled), with the range of each."""
        f, count = self.features, len(self.features.concepts)
        styles = int(f.style.max()) + 1
        plain = torch.nonzero((f.row_concept >= 0) & (f.row_style < 0)).squeeze(1)
        styled = torch.nonzero(f.row_style >= 0).squeeze(1)
        self.plain = Ranges(plain, f.row_concept[plain], count, f.row_weight)
        key = f.row_concept[styled] * styles + f.row_style[styled]
        self.styled, self.styles = Ranges(styled, key, count * styles, f.row_weight), styles

    def _captions(self, pictures: torch.Tensor, generator: torch.Generator, drop: float | None = None) -> torch.Tensor:
        """One caption row for each picture; row 0, the empty text, for dropped ones."""
        f, recipe = self.features, self.recipe
        concept, style = f.concept[pictures], f.style[pictures]
        rows, known = self.plain(concept, generator)
        styled_rows, has_style = self.styled(concept * self.styles + style, generator)
        u = torch.rand(2, len(pictures), generator=generator, device=pictures.device)
        rows = torch.where(has_style & ((u[0] < recipe.match_style) | ~known), styled_rows, rows)
        keep = (known | has_style) & (u[1] >= (recipe.drop_text if drop is None else drop))
        return torch.where(keep, rows, torch.zeros_like(rows))

    def _with_scenes(
        self, x0: torch.Tensor, rows: torch.Tensor, scenes: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Composed scenes (latents, the first of all) with one of their captions in place of ``recipe.scenes`` of the batch, and
        which scene each row is (-1: none)."""
        device = x0.device
        u = torch.rand(3, len(x0), generator=generator, device=device)
        scene = self._chosen(u[0], len(scenes), generator)
        said = self._said(scene, u[1])
        said = torch.where(u[2] < self.recipe.drop_text, torch.zeros_like(said), said)
        composed = torch.rand(len(x0), generator=generator, device=device) < self.recipe.scenes
        mixed = torch.where(composed[:, None, None, None], scenes[scene].float(), x0)
        return mixed, torch.where(composed, said, rows), torch.where(composed, scene, -1)

    def _said(self, scene: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """The row of one caption of each scene (B,), by chances u (B,) in [0, 1)."""
        first, last = self.features.scene_first[scene], self.features.scene_first[scene + 1]
        return first + (u * (last - first)).long()

    def _chosen(self, u: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        """Scenes by chances u (B,) in [0, 1), of the first ``count``; where it is known who is where, those that say it."""
        if self.places is None:
            return (u * count).long()
        every, related = self._first(count)
        pairs = torch.rand(len(u), generator=generator, device=u.device) < (
            self.recipe.related if len(related) else 0.0
        )
        picked = related[(u * len(related)).long()] if len(related) else torch.zeros_like(u, dtype=torch.int64)
        return torch.where(pairs, picked, every[(u * len(every)).long()])

    def _first(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the first ``count`` scenes those that are kept, and those among them of two things or more."""
        assert self.places is not None
        if count not in self._first_scenes:
            kept, related = (rows[rows < count] for rows in (self.places.kept, self.places.related))
            self._first_scenes[count] = kept, related
        return self._first_scenes[count]

    def _differently(
        self, text: Conditioning, rows: torch.Tensor, seen: torch.Tensor, generator: torch.Generator
    ) -> Conditioning:
        """In ``picture_share`` of the rows with a text, the embedding of the picture (or a mixture of it with the pooled text)
        and the empty text's tokens; in ``words_share`` of them the tokens and the empty text's vector. Rows without a text stay
        without, so that guidance has what it needs."""
        recipe, embedded = self.recipe, self.features.picture_pooled
        pictures = recipe.picture_share if embedded is not None else 0.0
        if not pictures and not recipe.words_share:
            return text
        u = torch.rand(4, len(rows), generator=generator, device=rows.device)
        empty = self._text(torch.zeros_like(rows))
        silent = ((u[0] > 1 - recipe.words_share) & (rows > 0))[:, None]
        text = text | {"pooled1": torch.where(silent, empty["pooled1"], text["pooled1"])}
        if not pictures or embedded is None:
            return text
        shown = ((u[0] < pictures) & (rows > 0) & (seen >= 0))[:, None]
        copy = (u[1] * len(embedded)).long()
        weight = torch.where(u[2] < recipe.picture_mix, u[3], 1.0)[:, None]
        pooled = torch.lerp(text["pooled1"], embedded[copy, seen.clamp(min=0)].float(), weight)
        pooled = F.normalize(pooled, dim=-1) * math.sqrt(pooled.shape[1])
        tokens = {k: torch.where(shown[..., None], empty[k], text[k]) for k in ("tokens1", "tokens2")}
        return tokens | {"pooled1": torch.where(shown, pooled, text["pooled1"])}

    def _text(self, rows: torch.Tensor) -> Conditioning:
        f = self.features
        place = torch.arange(self.recipe.text_block, device=rows.device)
        start, count = f.offsets[rows], f.offsets[rows + 1] - f.offsets[rows]
        index = (start[:, None] + place).clamp(max=len(f.tokens1) - 1)
        inside = (place[None] < count[:, None])[..., None]
        return {
            "tokens1": f.tokens1[index].float() * inside,
            "pooled1": f.pooled1[rows].float(),
            "tokens2": f.tokens2[index].float() * inside,
        }

    def _known(self, x0: torch.Tensor, generator: torch.Generator | None = None) -> Conditioning:
        """The mask and what is kept of x0, if the network takes them: with a generator for a share of the rows, else nothing."""
        if not self.recipe.masked:
            return {}
        mask = torch.ones_like(x0[:, :1])
        if generator is not None and self.recipe.mask_share:
            mask = random_masks(x0, self.recipe.mask_share, generator)
        return {"concat": mask_channels(x0, mask)}

    def _look_rows(self) -> torch.Tensor:
        wanted = [f"emoji:{code}" for code in LOOK_CONCEPTS]
        number = {name: i for i, name in enumerate(self.features.concepts)}
        concepts = torch.tensor([number[w] for w in wanted if w in number], device=self.rows.device)
        chance = torch.Generator(self.device).manual_seed(3)
        return self.plain(concepts, chance)[0]

    def _draw(self, rows: torch.Tensor, size: tuple[int, ...], chance: torch.Generator) -> torch.Tensor:
        """Captions as a user would draw them: at the recipe's own number of steps, guidance and sampler. ``size``: h, w."""
        recipe = self.recipe
        schedule = schedule_of(recipe, recipe.shift)
        shape = (len(rows), self.features.latents.shape[2], *size)
        nothing = self._known(torch.zeros(shape, device=rows.device))
        cond, uncond = self._text(rows) | nothing, self._text(torch.zeros_like(rows)) | nothing
        denoise = cfg(self._denoiser(schedule), cond, uncond, recipe.draw_guidance)
        sigmas = schedule.spaced(recipe.draw_steps, recipe.spacing)
        x = schedule.start(torch.randn(shape, generator=chance, device=rows.device), sigmas[0])

        def noise(step: int, draw: int = 0) -> torch.Tensor:
            return torch.randn(shape, generator=chance, device=rows.device)

        for step in samplers_along(schedule)[recipe.draw_sampler](denoise, x, sigmas, noise=noise):
            x = step.x
        with autocast(self.device):
            parts = [self.decoder(part / self.features.latent_scale).float() for part in x.split(8)]
        return torch.cat(parts).clamp(-1, 1)


def schedule_of(recipe: UNetRecipe, shift: float) -> NoiseSchedule:
    """The recipe's schedule; ``shift`` is how the straight path's runs are spaced, and nothing to a table."""
    return Flow(shift=shift) if recipe.schedule == "flow" else Table.scaled_linear()


class Ranges:
    """Rows grouped by a key: draws one row of a key, in proportion to the rows' weights."""

    def __init__(self, rows: torch.Tensor, key: torch.Tensor, keys: int, weight: torch.Tensor) -> None:
        order = torch.argsort(key, stable=True)
        self.rows = rows[order]
        self.size = torch.bincount(key, minlength=keys)
        self.start = self.size.cumsum(0) - self.size
        self.draw = Draw(weight[self.rows])

    def __call__(self, key: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One row for each key, and whether the key has any (where not, the row means nothing)."""
        there = self.size[key] > 0
        start = torch.where(there, self.start[key], 0)
        end = start + self.size[key].clamp(min=1)
        return self.rows[self.draw.within(start, end, generator)], there
