"""One function per stage: files in, a run folder out. The command line and the bare GPU machine call these."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from chashka.errors import TrainingError
from chashka.nets.autoencoder import Decoder
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.unet import UNet
from chashka.training import places
from chashka.training.appearance import Appearance, appearance
from chashka.training.arithmetic import prepare
from chashka.training.autoencoder import AutoencoderTask
from chashka.training.captions import Captions, load_captions
from chashka.training.components import components, load_component, load_weights, recipe_of
from chashka.training.contrastive import ContrastiveTask, concept_weights
from chashka.training.distil import DistilTask
from chashka.training.features import load_features, load_latents
from chashka.training.judge import JudgeTask
from chashka.training.judge_scenes import decoded
from chashka.training.loop import Slice, Task, Trainer
from chashka.training.masks import with_mask_channels
from chashka.training.material import Material, network_of
from chashka.training.origin import begin, origin, tables_of
from chashka.training.picture import PictureTask, prototypes
from chashka.training.pictures import Pictures, load_pictures
from chashka.training.recipes import (
    AutoencoderRecipe,
    ContrastiveRecipe,
    DistilRecipe,
    JudgeRecipe,
    PictureRecipe,
    Recipe,
    T5Recipe,
    UNetRecipe,
    UpscaleRecipe,
)
from chashka.training.scenes import load_scenes
from chashka.training.sentences import Sentences, Translations
from chashka.training.stopping import listening
from chashka.training.t5 import T5Task
from chashka.training.tokens import TokensTask
from chashka.training.unet import UNetTask
from chashka.training.upscale import UpscaleTask, decoded_halves

AVERAGE = "average.safetensors"
"""A finished slice leaves its averaged weights here, keys ``component/key``, the recipe in the metadata."""


def train(
    recipe: Recipe,
    shards: Path,
    run: Path,
    *,
    minutes: float | None = None,
    device: str = "cpu",
    start: Path | None = None,
    frozen: dict[str, Path] | None = None,
) -> bool:
    """Train a stage for ``minutes`` (or to its end) in the folder ``run``; calling it again goes on where it stopped.

    False if it was stopped by SIGTERM or SIGINT: they end it after a step, once the data are read.

    ``start``: the weights whose components the new run begins with. ``frozen``: the weights of earlier stages, for the U-Net
    'autoencoder', 'clip' and 't5'. Weights are an ``average.safetensors``, or a folder of exported components (the
    package's own ``teacup/kandinsky``, say). Raises TrainingError for what does not fit.
    """
    prepare(device)
    fresh = not (run / "manifest.json").exists()
    task = _task(recipe, shards, run, device, frozen or {})
    if fresh:
        # a change of a network comes from that, and from the change that it goes on from
        starts: list[tuple[Path, tuple[str, ...]]] = []
        starts += [((frozen or {})["unet"], ("unet",))] if isinstance(task, DistilTask) else []
        starts += [] if start is None else [(start, tuple(task.modules))]
        if isinstance(task, TokensTask) and start is None:
            raise TrainingError("this recipe keeps an encoder's vector (kept): give the encoder with --start")
        begin(run, shards, starts, device, tables_of(recipe), frozen)
        if start is not None:
            _begin_with(task, start)
    with listening() as stop:
        trainer = Trainer(task, recipe, run, device)
        ended = trainer.train(Slice(minutes), stop=stop)
    write_average(trainer, run)
    return ended


def write_average(trainer: Trainer, run: Path) -> None:
    parts = trainer.averaged()
    tensors = {
        f"{part}/{key}": v.detach().contiguous().cpu() for part, keys in parts.items() for key, v in keys.items()
    }
    metadata = {"recipe": (run / "recipe.json").read_text(encoding="utf-8"), "step": str(trainer.progress.step)}
    metadata |= origin(run, trainer.progress.seconds)
    if isinstance(trainer.task, JudgeTask):
        metadata |= trainer.task.labels
    temporary = run / (AVERAGE + ".part")
    save_file(tensors, temporary, metadata)
    temporary.replace(run / AVERAGE)


def _task(recipe: Recipe, shards: Path, run: Path, device: str, frozen: dict[str, Path]) -> Task:
    match recipe:
        case AutoencoderRecipe():
            return AutoencoderTask(recipe, load_pictures(shards), device)
        case ContrastiveRecipe() if recipe.kept:
            captions, weights = _captions(shards)
            said = Translations(load_scenes(shards / "scenes.safetensors"), device)
            return TokensTask(recipe, captions, weights, device, said)
        case ContrastiveRecipe():
            return _contrastive_task(recipe, shards, run, device, frozen)
        case T5Recipe():
            captions, weights = _captions(shards)
            read = Translations(load_scenes(shards / "scenes.safetensors"), device) if recipe.sentences else None
            return T5Task(recipe, captions, weights, device, read)
        case PictureRecipe():
            return _picture_task(recipe, shards, run, device, frozen)
        case UpscaleRecipe():
            return _upscale_task(recipe, shards, run, device, frozen)
        case UNetRecipe():
            return _unet_task(recipe, shards, run, device, frozen)
        case JudgeRecipe():
            return _judge_task(recipe, shards, run, device, frozen)


def _captions(shards: Path) -> tuple[Captions, torch.Tensor]:
    """The names of all concepts, and how often each concept comes."""
    captions = load_captions(shards / "captions.safetensors")
    return captions, concept_weights(load_pictures(shards, 16), len(captions.concepts))


def _judge_task(recipe: JudgeRecipe, shards: Path, run: Path, device: str, frozen: dict[str, Path]) -> JudgeTask:
    scenes = load_scenes(shards / "scenes.safetensors")
    if len(scenes.emoji) != recipe.network.classes:
        raise TrainingError(
            f"the grammar has {len(scenes.emoji)} things, the recipe's network {recipe.network.classes} classes"
        )
    nouns = {f"emoji:{code}" for code in scenes.emoji}

    def drawings(own: bool, size: int | None, every: bool = False) -> Pictures:
        found = load_pictures(
            shards,
            size,
            lambda shard, i: (
                (shard.sources[i] in recipe.sources) == own and (every or shard.concepts[shard.concept[i]] in nouns)
            ),
        )
        # sources decide what a judge is shown; the generator's held-out pictures are as good as any other
        return dataclasses.replace(found, held_out=torch.zeros_like(found.held_out))

    extra: dict[str, torch.Tensor] = {}
    if "autoencoder" in frozen and (recipe.decoded or recipe.blurred):
        both = _autoencoder(frozen["autoencoder"], device)
        path, seed = run / "features" / "decoded.safetensors", recipe.run.seed
        extra = decoded(path, drawings(True, None), both, recipe.network.side, recipe.blurred, seed, device)
    side = recipe.network.side
    every = drawings(True, side // 2, True) if recipe.named else None  # as large as things are in scenes
    return JudgeTask(recipe, scenes, drawings(True, side), drawings(False, side), device, extra, every)


def _autoencoder(path: Path, device: str) -> tuple[nn.Module, nn.Module]:
    """A trained encoder and its decoder, for use."""
    found = recipe_of(path, "encoder")
    assert isinstance(found, AutoencoderRecipe)
    return network_of("encoder", path, device), load_component(Decoder(found.network), path, "decoder").to(
        device
    ).eval()


def _upscale_task(recipe: UpscaleRecipe, shards: Path, run: Path, device: str, frozen: dict[str, Path]) -> UpscaleTask:
    pictures, worn = load_pictures(shards), None
    if "autoencoder" in frozen and recipe.decoded:
        path, both = run / "features" / "decoded.safetensors", _autoencoder(frozen["autoencoder"], device)
        worn = decoded_halves(path, pictures, both, recipe.decoded, recipe.run.seed, device)
    return UpscaleTask(recipe, pictures, device, worn)


def _contrastive_task(
    recipe: ContrastiveRecipe, shards: Path, run: Path, device: str, frozen: dict[str, Path]
) -> ContrastiveTask:
    captions = load_captions(shards / "captions.safetensors")
    pictures, looks = load_pictures(shards, 64), None
    if recipe.appearance:
        if "autoencoder" not in frozen:
            raise TrainingError("this recipe's texts learn what things look like: give --frozen autoencoder=WEIGHTS")
        shape = len(captions.concepts), len(pictures.styles)
        looks = _looks(
            run / "features", frozen["autoencoder"], shards, captions.concepts, shape, recipe.appearance, device
        )
    sentences = None
    if recipe.sentences:
        table = load_scenes(shards / "scenes.safetensors")
        sentences = Sentences(table, table.locales.index("en"), device)
    return ContrastiveTask(recipe, pictures, captions, device, looks, sentences)


def _looks(
    folder: Path,
    autoencoder: Path,
    shards: Path,
    concepts: list[str],
    shape: tuple[int, int],
    size: int,
    device: str,
) -> Appearance:
    """What the concepts look like, computed once: another machine's linear algebra may turn every axis round."""
    file = folder / "looks.safetensors"
    if not file.exists():
        Material(folder, shards, UNetRecipe(variants=1), {"autoencoder": autoencoder}, device).write_latents()
        seen = load_latents(folder, device)
        if seen.concepts != concepts:
            raise TrainingError(f"{shards}: captions and pictures are not of one build; make the captions again")
        found = appearance(seen.latents[0], seen.concept, seen.style, seen.weight, shape, size)
        save_file(
            {"concept": found.concept.contiguous(), "styled": found.styled.contiguous()}, file.with_suffix(".part")
        )
        file.with_suffix(".part").replace(file)
    return Appearance(**load_file(file))


def _picture_task(recipe: PictureRecipe, shards: Path, run: Path, device: str, frozen: dict[str, Path]) -> PictureTask:
    if "clip" not in frozen:
        raise TrainingError("the picture encoder learns what the text encoder says: give --frozen clip=WEIGHTS")
    clip = recipe_of(frozen["clip"], "text_contrastive")
    assert isinstance(clip, ContrastiveRecipe)
    if clip.text.pooled != recipe.network.pooled:
        raise TrainingError(f"network.pooled is {recipe.network.pooled}; the text encoder's is {clip.text.pooled}")
    pictures, file = load_pictures(shards, 64), run / "features" / "prototypes.safetensors"
    if not file.exists():
        captions = load_captions(shards / "captions.safetensors")
        text = network_of("text_contrastive", frozen["clip"], device)
        known = {k: v.cpu() for k, v in prototypes(text, captions.to(device), len(pictures.styles)).items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(known, file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    return PictureTask(recipe, pictures, load_file(file), device)


def _unet_task(recipe: UNetRecipe, shards: Path, run: Path, device: str, frozen: dict[str, Path]) -> UNetTask:
    needs = ["autoencoder", "clip"] + ["t5"] * (recipe.head is not None) + ["unet"] * isinstance(recipe, DistilRecipe)
    missing = [stage for stage in needs if stage not in frozen]
    if missing:
        raise TrainingError(f"the U-Net needs the weights of: {', '.join(missing)} (--frozen STAGE=WEIGHTS)")
    autoencoder = recipe_of(frozen["autoencoder"], "encoder")
    clip = recipe_of(frozen["clip"], "text_contrastive")
    assert isinstance(autoencoder, AutoencoderRecipe)
    assert isinstance(clip, ContrastiveRecipe)
    if recipe.head is None and recipe.network.context != clip.text.width:
        raise TrainingError(
            f"network.context is {recipe.network.context}; the text encoder's tokens have {clip.text.width}"
        )
    if recipe.network.pooled not in (None, clip.text.pooled):
        raise TrainingError(
            f"network.pooled is {recipe.network.pooled}; the text encoder's vector has {clip.text.pooled}"
        )
    folder = run / "features"
    material = Material(folder, shards, recipe, frozen, device)
    material.write()
    decoder = load_component(Decoder(autoencoder.network), frozen["autoencoder"], "decoder")
    features = load_features(folder, device, recipe.canvases)
    if not isinstance(recipe, DistilRecipe):
        return UNetTask(recipe, features, decoder, device, material.places())
    unet = load_component(UNet(recipe.network), frozen["unet"], "unet")
    head = None
    if recipe.head is not None:
        head = load_component(KandinskyTextHead(recipe.head), frozen["unet"], "text_head")
    return DistilTask(recipe, features, decoder, device, (unet, head), folder)


def _begin_with(task: Task, start: Path) -> None:
    parts = components(start, *task.modules)
    if not parts.keys() & task.modules.keys():
        raise TrainingError(f"{start}: holds none of {', '.join(task.modules)}; give weights of this stage")
    if isinstance(task, UNetTask) and task.recipe.masked and "unet" in parts:
        parts["unet"] = with_mask_channels(parts["unet"], task.recipe.network)
    if isinstance(task, PictureTask):
        parts.pop("prototypes", None)  # what the old text encoder said; this run's own is frozen beside it
    for name, module in task.modules.items():
        if name in parts:
            parts[name] = places.with_places(parts[name], module) if isinstance(task, UNetTask) else parts[name]
            load_weights(module, parts[name], start, name)
    if isinstance(task, ContrastiveTask) and "prototypes" not in parts:
        task.prototypes_from_names()
    if isinstance(task, TokensTask) and "kept" not in parts:
        task.keep()
