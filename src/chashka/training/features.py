"""What the frozen networks say, computed once: latents of pictures and text features of captions, in flat files.

Latents are the autoencoder's alone: beside another text encoder they may be taken along into a new run's folder.

features/latents.safetensors   latents f16 (V, N, C, h, w), already times ``latent_scale``; labels of the N pictures
features/scenes.safetensors    latents f16 (K, C, h, w) of composed scenes (composed.py)
features/said.safetensors      the text features of their captions: tokens, pooled texts and ``offsets`` as below, ``first``
                               i64 (K + 1,) where each scene's captions begin
features/text.safetensors      tokens1 f16 (T, D1), tokens2 f16 (T, D2), pooled1 f16 (R, D1), offsets i64 (R + 1,); labels.
                               Row 0 is the empty text.
features/canvas-HxW.safetensors  of pictures and scenes on canvases that are not square: latents f16 (P, C, h, w) and which of the N
                               pictures they are, ``rows`` i64 (P,); ``scenes`` f16 (M, C, h, w), the first M of the scenes
features/picture.safetensors   pooled f16 (K, N, D) of copies of the same N pictures, if the recipe shows pictures, and
features/composed.safetensors  pooled f16 (S, D) of the composed scenes (composed.py)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from chashka.errors import TrainingError
from chashka.training.arithmetic import autocast
from chashka.training.captions import KEYWORD, NAME, STYLED, VARIANT, Captions, Draw, ragged
from chashka.training.contrastive import name_centres
from chashka.training.loop import generator
from chashka.training.pictures import Pictures, jitter, on_canvas, shrink, to_network
from chashka.training.recipes import UNetRecipe
from chashka.training.scenes import Composer, SceneTable

EMPTY_TEXT = (1, 2)
"""bos, eos: the unconditional text (docs/networks.md)."""
CLIP_QUANTILE = 0.995
EMBEDDED = 64
"""The side of pictures as the picture encoder sees them."""
WORTH = 0.1
"""Pictures of at most this weight (skin tones, clock faces, people in every pose) are not encoded."""
KIND_WEIGHT = {NAME: 1.0, KEYWORD: 0.4, VARIANT: 0.5, STYLED: 1.0}


@dataclass(slots=True)
class Latents:
    """Pictures as the frozen autoencoder sees them, with their labels, on one device."""

    latents: torch.Tensor
    concept: torch.Tensor
    style: torch.Tensor
    group: torch.Tensor
    weight: torch.Tensor
    held_out: torch.Tensor
    latent_scale: float
    groups: list[str]
    concepts: list[str]


@dataclass(slots=True)
class Canvas:
    """Latents of one shape that is not square; see the file ``canvas-HxW``. ``share``: of the steps."""

    share: float
    latents: torch.Tensor
    rows: torch.Tensor
    scenes: torch.Tensor


@dataclass(slots=True)
class Features(Latents):
    """Everything the U-Net's training reads, on one device."""

    tokens1: torch.Tensor
    tokens2: torch.Tensor
    pooled1: torch.Tensor
    offsets: torch.Tensor
    row_concept: torch.Tensor
    row_style: torch.Tensor
    row_weight: torch.Tensor
    row_source: torch.Tensor
    scene_latents: torch.Tensor
    scene_first: torch.Tensor
    picture_pooled: torch.Tensor | None = None
    """(K, N + S, D): embeddings of the pictures, and of the composed scenes behind them where there are any."""
    canvases: tuple[Canvas, ...] = ()


@torch.no_grad()
def write_latents(path: Path, encoder: nn.Module, pictures: Pictures, recipe: UNetRecipe, device: str) -> None:
    """Encode every picture worth learning from ``recipe.variants`` times and scale by the 99.5th percentile."""
    rows = torch.nonzero(pictures.weight > WORTH).squeeze(1)
    kept = []
    for variant in range(recipe.variants):
        chance = generator(recipe.run.seed + 77, variant, device)
        parts = []
        for part in rows.split(at_once(32, device)):
            pixels = to_network(pictures.pixels[part].to(device))
            pixels = pixels if variant == 0 else jitter(pixels, chance)
            with autocast(device):
                parts.append(encoder(pixels).float().chunk(2, 1)[0].cpu())
        kept.append(torch.cat(parts))
    latents = torch.stack(kept)
    sample = latents[0].abs().flatten()
    sample = sample[torch.randint(len(sample), (2_000_000,), generator=torch.Generator().manual_seed(0))]
    scale = 1.0 / float(torch.quantile(sample[:1_000_000], CLIP_QUANTILE))
    labels = {n: getattr(pictures, n)[rows].contiguous() for n in ("concept", "style", "group", "weight")}
    labels["held_out"] = pictures.held_out[rows].to(torch.uint8)
    metadata = {
        "latent_scale": repr(scale),
        "groups": json.dumps(pictures.groups),
        "concepts": json.dumps(pictures.concepts),
    }
    save_file({"latents": (latents * scale).half(), **labels}, path, metadata)


@torch.no_grad()
def write_embeddings(path: Path, tower: nn.Module, pictures: Pictures, recipe: UNetRecipe, device: str) -> None:
    """Embed ``pictures`` (halved to 64×64) that are worth learning from, ``recipe.picture_copies`` times."""
    rows, copies = torch.nonzero(pictures.weight > WORTH).squeeze(1), []
    for copy in range(recipe.picture_copies):
        chance, parts = generator(recipe.run.seed + 80, copy, device), []
        for part in rows.split(at_once(128, device)):
            pixels = to_network(shrink(pictures.pixels[part].to(device), EMBEDDED))
            parts.append(tower(pixels if copy == 0 else jitter(pixels, chance)).half().cpu())
        copies.append(torch.cat(parts))
    save_file({"pooled": torch.stack(copies)}, path)


@torch.no_grad()
def write_text(
    path: Path, contrastive: nn.Module, t5: nn.Module | None, captions: Captions, recipe: UNetRecipe, device: str
) -> None:
    """Encode up to ``captions_per_concept`` rows of every concept (drawn by language), and the empty text as row 0.

    A row's weight is that of its language and kind, times how clear it is to the encoder (``clarity``).
    """
    rows = choose_rows(captions, recipe.captions_per_concept, recipe.main_boost, recipe.run.seed)
    chosen = rows[torch.argsort(captions.offsets[rows + 1] - captions.offsets[rows], stable=True)]
    empty = torch.tensor([EMPTY_TEXT])
    batches = [(empty, torch.ones(empty.shape)), *map(captions.batch, chosen.split(at_once(256, device)))]
    tokens1, tokens2, pooled, offsets = _encode_all(contrastive, t5, batches, device)
    weight = captions.weight(recipe.main_boost) * torch.tensor([KIND_WEIGHT[k] for k in range(4)])[captions.kind]
    if recipe.clarity:
        centres = name_centres(contrastive, captions.to(device)).cpu()
        weight[chosen] *= clarity(pooled[1:].float(), captions.concept[chosen], centres, recipe.clarity)
    blank = torch.full((1,), -1)
    tensors = {
        "tokens1": tokens1,
        "tokens2": tokens2,
        "pooled1": pooled,
        "offsets": offsets,
        "row_concept": torch.cat([blank, captions.concept[chosen]]),
        "row_style": torch.cat([blank, captions.style[chosen]]),
        "row_weight": torch.cat([torch.zeros(1), weight[chosen]]),
        "row_source": torch.cat([blank, chosen]),
    }
    save_file(tensors, path)


@torch.no_grad()
def write_said(
    path: Path, contrastive: nn.Module, t5: nn.Module | None, table: SceneTable, recipe: UNetRecipe, device: str
) -> None:
    """Encode the captions of the first ``recipe.scene_pool`` scenes."""
    count = min(recipe.scene_pool, len(table))
    first = torch.searchsorted(table.scene, torch.arange(count + 1))
    captions = torch.arange(int(first[-1]))
    batches = (ragged(table.ids, table.offsets, part) for part in captions.split(at_once(256, device)))
    tokens1, tokens2, pooled, offsets = _encode_all(contrastive, t5, batches, device)
    tensors = {"tokens1": tokens1, "tokens2": tokens2, "pooled1": pooled, "offsets": offsets, "first": first}
    save_file(tensors, path)


@torch.no_grad()
def write_canvas(
    path: Path,
    encoder: nn.Module,
    pictures: Pictures,
    composer: Composer | None,
    scale: float,
    recipe: UNetRecipe,
    canvas: tuple[int, int],
) -> None:
    """Encode ``recipe.canvas_pictures`` of the pictures, likely ones first, and ``canvas_scenes`` scenes, on a canvas (H, W)."""
    device = str(next(encoder.parameters()).device)
    worth = torch.nonzero(pictures.weight > WORTH).squeeze(1)  # what the other files' rows stand for
    chance = generator(recipe.run.seed + 81, canvas[0] * 65_537 + canvas[1])
    weight = presence(recipe, pictures, worth)
    count = min(recipe.canvas_pictures, int((weight > 0).sum()))
    rows = torch.multinomial(weight, count, generator=chance).sort().values
    shown = (
        on_canvas(to_network(pictures.pixels[worth[part]]), canvas, chance) for part in rows.split(at_once(32, device))
    )
    latents = _encoded(encoder, shown, scale, device)
    scenes = latents[:0]
    if composer is not None and recipe.scenes:
        numbers = torch.arange(min(recipe.canvas_scenes, recipe.scene_pool, len(composer.scenes)))
        composed = (composer(part, chance, canvas) for part in numbers.split(at_once(64, device)))
        scenes = _encoded(encoder, composed, scale, device)
    save_file({"latents": latents, "rows": rows, "scenes": scenes}, path)


def presence(recipe: UNetRecipe, seen: Pictures | Latents, rows: torch.Tensor | None = None) -> torch.Tensor:
    """How often each picture is shown, float64 (N,): a group by its share in the recipe, concepts of a group alike,
    drawings of a concept by their own weight; held-out ones and what is ``composed_only`` never. ``rows``: of these only."""
    rows = torch.arange(len(seen.concept), device=seen.concept.device) if rows is None else rows
    share, concept = dict(recipe.groups), seen.concept[rows]
    of_group = torch.tensor([share.get(name, 0.1) for name in seen.groups], device=concept.device)
    alone = torch.tensor([name not in recipe.composed_only for name in seen.concepts], device=concept.device)
    weight = seen.weight[rows].double() * of_group[seen.group[rows]] * (seen.held_out[rows] == 0) * alone[concept]
    total = torch.zeros(len(seen.concepts), dtype=torch.float64, device=weight.device)
    total = total.index_add_(0, concept, weight)
    # A concept that is drawn once counts half as much as one that is drawn four times: sqrt of its total weight.
    return weight / total[concept].clamp(min=1e-9).sqrt()


def _encoded(encoder: nn.Module, parts: Iterable[torch.Tensor], scale: float, device: str) -> torch.Tensor:
    """Pictures in [-1, 1], part by part → the means of their latents times ``scale``, f16."""
    return torch.cat([latents_of(encoder, pixels.to(device), scale) for pixels in parts])


def latents_of(encoder: nn.Module, pixels: torch.Tensor, scale: float) -> torch.Tensor:
    """Pictures in [-1, 1] on the encoder's device → the means of their latents times ``scale``, f16 on the CPU."""
    with autocast(pixels.device.type):
        means: torch.Tensor = encoder(pixels).float().chunk(2, 1)[0]
    return means.mul(scale).half().cpu()


def at_once(usual: int, device: str) -> int:
    """How many rows the frozen networks are shown together: a GPU would spend its time on beginning small ones."""
    return usual if device == "cpu" else 8 * usual


def canvas_file(canvas: tuple[int, int]) -> str:
    return f"canvas-{canvas[0]}x{canvas[1]}.safetensors"


def clarity(pooled: torch.Tensor, concept: torch.Tensor, centres: torch.Tensor, temperature: float) -> torch.Tensor:
    """(R,) in [0.01, 1]: the chance that the encoder gives each row its own concept among the concepts' ``centres``.

    "Red" is a keyword of thirty things, and of some languages the encoder knows little: what it cannot tell apart teaches the
    U-Net only to ignore the text.
    """
    parts = []
    for rows, own in zip(pooled.split(1024), concept.split(1024), strict=True):
        chances = torch.softmax(temperature * F.normalize(rows, dim=-1) @ centres.T, dim=-1)
        parts.append(chances.gather(1, own[:, None]).squeeze(1))
    return torch.cat(parts).clamp(0.01, 1.0)


def choose_rows(captions: Captions, per_concept: int, main_boost: float, seed: int) -> torch.Tensor:
    """Row numbers: for every concept at most ``per_concept`` draws by language and kind, duplicates removed, sorted."""
    kinds = torch.tensor([KIND_WEIGHT[k] for k in range(4)])[captions.kind]
    order = torch.argsort(captions.concept, stable=True)
    sizes = torch.bincount(captions.concept, minlength=len(captions.concepts))
    ends = sizes.cumsum(0)
    draw = Draw((captions.weight(main_boost) * kinds)[order])
    present = torch.nonzero(sizes > 0).squeeze(1)
    start, end = (ends - sizes)[present].repeat_interleave(per_concept), ends[present].repeat_interleave(per_concept)
    rows: torch.Tensor = torch.unique(order[draw.within(start, end, generator(seed + 78, 0))])
    return rows


def load_latents(folder: Path, device: str) -> Latents:
    with safe_open(folder / "latents.safetensors", framework="pt", device=device) as file:
        metadata = file.metadata()
        return Latents(
            **{key: file.get_tensor(key) for key in file.keys()},  # noqa: SIM118
            latent_scale=float(metadata["latent_scale"]),
            groups=json.loads(metadata["groups"]),
            concepts=json.loads(metadata["concepts"]),
        )


def load_features(folder: Path, device: str, canvases: tuple[tuple[int, int, float], ...] = ()) -> Features:
    """Everything in ``folder``; the captions of scenes, if there are any, stand behind those of single pictures.

    ``canvases``: the recipe's.
    """
    seen = load_latents(folder, device)
    texts: dict[str, Any] = _load(folder / "text.safetensors", device)
    scenes = _load(folder / "scenes.safetensors", device) | _load(folder / "said.safetensors", device)
    first, latents = torch.zeros(1, dtype=torch.int64, device=device), seen.latents[0, :0]
    if scenes:
        rows, latents = len(texts["row_concept"]), scenes["latents"]
        first = scenes["first"] + rows
        for name in ("tokens1", "tokens2", "pooled1"):
            texts[name] = torch.cat([texts[name], scenes[name]])
        texts["offsets"] = torch.cat([texts["offsets"], texts["offsets"][-1] + scenes["offsets"][1:]])
        for name in ("row_concept", "row_style", "row_source"):
            texts[name] = torch.cat([texts[name], texts[name].new_full((int(scenes["first"][-1]),), -1)])
        texts["row_weight"] = torch.cat([texts["row_weight"], texts["row_weight"].new_zeros(int(scenes["first"][-1]))])
    own: dict[str, Any] = {f.name: getattr(seen, f.name) for f in fields(Latents)}
    embedded = _load(folder / "picture.safetensors", device).get("pooled")
    if embedded is not None and embedded.shape[1] != seen.latents.shape[1]:
        raise TrainingError(
            f"{folder}: embeddings of {embedded.shape[1]} pictures, latents of {seen.latents.shape[1]}; remove the folder"
        )
    composed = _load(folder / "composed.safetensors", device).get("pooled")
    if embedded is not None and composed is not None:
        embedded = torch.cat([embedded, composed.expand(len(embedded), -1, -1)], 1)
    others = tuple(Canvas(share, **_load(folder / canvas_file((h, w)), device)) for h, w, share in canvases)
    return Features(**own, **texts, scene_latents=latents, scene_first=first, picture_pooled=embedded, canvases=others)


def _load(path: Path, device: str) -> dict[str, torch.Tensor]:
    if not path.exists():
        return {}
    with safe_open(path, framework="pt", device=device) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def _encode_all(
    contrastive: nn.Module, t5: nn.Module | None, batches: Batches, device: str
) -> tuple[torch.Tensor, ...]:
    """Batches of ids and masks → tokens of both encoders and pooled texts, half precision, and the rows' offsets.

    Without ``t5`` its tokens have no width.
    """
    parts, lengths = [], [0]
    for ids, mask in batches:
        lengths += mask.sum(1).long().tolist()
        tokens1, pooled = contrastive(ids.to(device), mask.to(device))
        inside = mask.to(tokens1.device).bool()
        tokens2 = tokens1[..., :0] if t5 is None else t5(ids.to(device), mask.to(device))
        parts.append(tuple(said.half().cpu() for said in (tokens1[inside], tokens2[inside], pooled)))
    return *(torch.cat(column) for column in zip(*parts, strict=True)), torch.tensor(lengths).cumsum(0)
