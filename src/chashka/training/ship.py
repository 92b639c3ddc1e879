"""From finished runs to the package: averaged weights as components (one safetensors and one graph each).

Needs the extra [torch] and OpenVINO; a bare training machine only leaves ``average.safetensors`` files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from chashka.checkpoints.safetensors_file import sha256
from chashka.engines.components import OWN, configuration
from chashka.engines.export import export_change, export_component
from chashka.errors import TrainingError
from chashka.families.teacups import FAST
from chashka.nets.autoencoder import Decoder, Encoder
from chashka.nets.configs import TextHeadConfig
from chashka.nets.image_tower import ImageTower
from chashka.nets.kandinsky_text import KandinskyTextHead
from chashka.nets.multilingual import ContrastiveTextEncoder, T5TextEncoder
from chashka.nets.unet import UNet
from chashka.nets.upscaler import Upscaler
from chashka.training.components import load_component, metadata_of, recipe_of
from chashka.training.low_rank import LowRank
from chashka.training.origin import KEYS, weight_files
from chashka.training.picture import anchor
from chashka.training.recipes import (
    AutoencoderRecipe,
    ContrastiveRecipe,
    DistilRecipe,
    PictureRecipe,
    T5Recipe,
    UNetRecipe,
    UpscaleRecipe,
)

SETTINGS = ("steps", "guidance_scale", "sampler")
SAME = 0.99
"""Cosine of one text's pooled vectors above which two text encoders are the same one, stored with other roundings."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The weights of the stages: an ``average.safetensors`` or a folder of exported components each.

    ``t5``: None for a U-Net that reads the contrastive encoder's tokens. ``latents``: those of the U-Net's run, for their scale; an
    exported autoencoder brings its own scale. ``picture``, ``upscaler``, ``fast``: of what a model may have or not.
    ``guide_without``, ``sampler``, ``guidance``: blocks, the usual sampler and guidance scale in place of those that the U-Net's
    recipe names.
    """

    autoencoder: Path
    clip: Path
    t5: Path | None
    unet: Path
    latents: Path | None = None
    picture: Path | None = None
    upscaler: Path | None = None
    guide_without: tuple[str, ...] | None = None
    fast: Path | None = None
    sampler: str | None = None
    guidance: float | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """One component to be written. ``metadata``: what a run's weights need beside their provenance. ``source``: where they lie.
    ``drawn``: how is usually drawn, where the export says it and neither the recipe nor an exported component.
    """

    module: nn.Module
    name: str
    inputs: dict[str, torch.Tensor]
    outputs: list[str]
    metadata: dict[str, str]
    source: Path
    drawn: Mapping[str, Any] = field(default_factory=dict)


def ship(runs: Finished, out: Path, precision: Mapping[str, str] | None = None) -> list[Path]:
    """Write a teacup's components into ``out``: Kandinsky's six or Stable Diffusion's four, ``picture``, ``upscaler`` and ``fast``
    if given. Returns the files of the weights.

    The same runs give the same bytes. precision: "fp16" or "int8" by component; one that is not named keeps the precision of
    the exported file it comes from, and a run's weights become fp16.
    """
    parts = _parts(runs)
    sources = {part.name: part.source for part in parts} | ({} if runs.fast is None else {FAST: runs.fast})
    chosen = precisions(sources, precision or {})
    if runs.fast is not None:
        check_change(runs.fast, runs.unet)
    written = [
        export_component(
            part.module,
            part.name,
            part.inputs,
            list(part.inputs),
            part.outputs,
            out,
            told(part),
            precision=chosen[part.name],
        ).weights
        for part in parts
    ]
    if runs.fast is not None:
        written.append(_ship_change(runs.fast, out, chosen[FAST]))
    return written


def check_change(fast: Path, unet: Path) -> None:
    """Raises TrainingError unless the change was learnt beside this U-Net."""
    if not isinstance(recipe_of(fast, FAST), DistilRecipe):
        raise TrainingError(f"{fast}: not of the stage distil")
    metadata = metadata_of(fast, FAST)
    known = [*json.loads(metadata.get("parents", "[]")), metadata.get("base_sha256")]
    (file,) = weight_files(unet, ("unet",))
    if sha256(file) not in known:
        raise TrainingError(f"{fast}: learnt beside another U-Net than {file}; train it again: chashka train distil")


def _ship_change(fast: Path, out: Path, precision: str) -> Path:
    """Write what drafts are drawn with beside the U-Net that it changes."""
    recipe = recipe_of(fast, FAST)
    assert isinstance(recipe, DistilRecipe)
    unet = UNet(recipe.network)
    change = load_component(LowRank(unet, recipe.rank), fast, FAST)
    metadata = {"fast": _settings(recipe)} | (carried(fast, FAST) or provenance(fast, FAST))
    return export_change(change.state_dict(), out / "unet.safetensors", FAST, metadata, precision)


def _parts(runs: Finished) -> list[_Part]:
    clip, unet = recipe_of(runs.clip, "text_contrastive"), recipe_of(runs.unet, "unet")
    if not (isinstance(clip, ContrastiveRecipe) and isinstance(unet, UNetRecipe)):
        raise TrainingError("the files given are not of the stages autoencoder, clip, t5 and unet, in this order")
    text = ready(ContrastiveTextEncoder, clip.text, runs.clip, "text_contrastive")
    ids = {"ids": torch.ones(2, 16, dtype=torch.int64), "mask": torch.ones(2, 16)}
    parts = [*_codec(runs), _Part(text, "text_contrastive", ids, ["tokens", "pooled"], {}, runs.clip)]
    parts += _reading_tokens(runs, unet) if unet.head is None else _with_head(runs, unet, unet.head, ids)
    if runs.picture is not None:
        if unet.head is None:
            raise TrainingError("picture: a network without a text head takes no picture's embedding; leave it out")
        parts.append(picture_part(runs.picture, text))
    if runs.upscaler is not None:
        parts.append(upscaler_part(runs.upscaler))
    return parts


def _codec(runs: Finished) -> list[_Part]:
    """Encoder and decoder."""
    recipe = recipe_of(runs.autoencoder, "encoder")
    if not isinstance(recipe, AutoencoderRecipe):
        raise TrainingError(f"{runs.autoencoder}: not of the stage autoencoder")
    encoder = ready(Encoder, recipe.network, runs.autoencoder, "encoder")
    decoder = ready(Decoder, recipe.network, runs.autoencoder, "decoder")
    codec, preview = codec_metadata(runs, decoder)
    latent = {"latents": torch.zeros(2, recipe.network.z_channels, 16, 16)}
    pixels = {"pixels": torch.zeros(2, recipe.network.in_channels, 256, 256)}
    return [
        _Part(encoder, "encoder", pixels, ["moments"], codec, runs.autoencoder),
        _Part(decoder, "decoder", latent, ["pixels"], codec | preview, runs.autoencoder),
    ]


def _with_head(runs: Finished, unet: UNetRecipe, cfg: TextHeadConfig, ids: dict[str, torch.Tensor]) -> list[_Part]:
    """Kandinsky's: the second text encoder, the head, the U-Net."""
    t5 = None if runs.t5 is None else recipe_of(runs.t5, "text_t5")
    if runs.t5 is None or not isinstance(t5, T5Recipe):
        raise TrainingError(f"{runs.t5}: not of the stage t5, whose encoder this U-Net's text head reads")
    other = ready(T5TextEncoder, t5.text, runs.t5, "text_t5")
    head = ready(KandinskyTextHead, cfg, runs.unet, "text_head")
    said = {
        "tokens1": torch.zeros(2, 16, cfg.tokens1),
        "pooled1": torch.zeros(2, cfg.pooled1),
        "tokens2": torch.zeros(2, 16, cfg.tokens2),
    }
    given = {"tokens": torch.zeros(2, 32, cfg.context), "added": torch.zeros(2, cfg.added)}
    return [
        _Part(other, "text_t5", ids, ["tokens"], {}, runs.t5),
        _Part(head, "text_head", said, ["tokens", "added"], {"text_block": str(unet.text_block)}, runs.unet),
        _unet(runs, unet, given, {"kind": "flow", "shift": unet.shift}, {}),
    ]


def _reading_tokens(runs: Finished, unet: UNetRecipe) -> list[_Part]:
    """Stable Diffusion's: the U-Net alone."""
    given = {"tokens": torch.zeros(2, unet.text_block, unet.network.context or 0)}
    if unet.network.pooled:
        given["added"] = torch.zeros(2, unet.network.pooled)
    return [_unet(runs, unet, given, {"kind": unet.schedule}, {"text_block": str(unet.text_block)})]


def _unet(
    runs: Finished, recipe: UNetRecipe, given: dict[str, torch.Tensor], schedule: dict[str, Any], more: dict[str, str]
) -> _Part:
    body = ready(UNet, recipe.network, runs.unet, "unet")
    body = guided(body, runs.guide_without if runs.guide_without is not None else recipe.guide_without)
    inputs = {"x": torch.zeros(2, recipe.network.in_channels, 16, 16), "t": torch.full((2,), 500.0)} | given
    if body.cfg.dropped:
        inputs["keep"] = torch.ones(2)
    usual = (recipe.draw_steps, recipe.draw_guidance, recipe.draw_sampler)
    chosen = zip(SETTINGS, (None, runs.guidance, runs.sampler), strict=True)
    sampling = {
        "prediction": recipe.prediction,
        "data_std": repr(recipe.data_std),
        "schedule": json.dumps(schedule),
        "defaults": json.dumps(dict(zip(SETTINGS, usual, strict=True))),
        "fast": _settings(recipe),
    }
    drawn = {name: value for name, value in chosen if value is not None}
    return _Part(body, "unet", inputs, ["out"], sampling | more, runs.unet, drawn)


def _settings(recipe: UNetRecipe) -> str:
    """The settings of drafts, as they are stored."""
    quick = (recipe.fast_steps, recipe.fast_guidance, recipe.fast_sampler)
    spaced = {} if recipe.spacing is None else {"spacing": recipe.spacing}
    return json.dumps(dict(zip(SETTINGS, quick, strict=True)) | spaced)


def precisions(sources: Mapping[str, Path], wanted: Mapping[str, str]) -> dict[str, str]:
    """The precision of every component: the one that is wanted, or else that of the file it comes from."""
    unknown = sorted(wanted.keys() - sources.keys())
    if unknown:
        raise TrainingError(f"precision: there is no component {unknown[0]!r}; the components are {', '.join(sources)}")
    return {name: stored_precision(source, name) for name, source in sources.items()} | dict(wanted)


def told(part: _Part) -> dict[str, str]:
    """The metadata of a component: what an exported one says stays true, and what it did not know yet is the recipe's."""
    known = carried(part.source, part.name)
    metadata = part.metadata | (known or provenance(part.source, part.name))
    if part.drawn:
        metadata["defaults"] = json.dumps(json.loads(metadata["defaults"]) | dict(part.drawn))
    return metadata


def guided(body: nn.Module, without: tuple[str, ...]) -> Any:
    """The U-Net with an input that takes the blocks ``without`` away; an exported one keeps its own where none are named."""
    assert isinstance(body, UNet)
    if not without or without == body.cfg.dropped:
        return body
    other = UNet(dataclasses.replace(body.cfg, dropped=without))
    other.load_state_dict(body.state_dict())
    return other.eval().requires_grad_(False)


def ready(network: Any, config: Any, path: Path, part: str) -> nn.Module:
    """The network with its weights; an exported component has its own configuration, which an older recipe may not tell."""
    metadata = metadata_of(path, part)
    chosen = configuration(metadata, path) if "config" in metadata else config
    module: nn.Module = load_component(network(chosen), path, part)
    return module.eval().requires_grad_(False)


def carried(path: Path, part: str) -> dict[str, str]:
    """What an exported component says beside what every export says anew: it stays true. Empty for a run's weights."""
    metadata = metadata_of(path, part)
    return {key: value for key, value in metadata.items() if key not in OWN} if "config" in metadata else {}


def stored_precision(path: Path, part: str) -> str:
    """The precision of an exported component; fp16 for a run's weights, which have none of their own."""
    return metadata_of(path, part).get("precision", "fp16")


def picture_part(path: Path, text: nn.Module) -> _Part:
    """The picture encoder. Raises TrainingError where it was trained beside another text encoder."""
    recipe = recipe_of(path, "picture")
    if not isinstance(recipe, PictureRecipe):
        raise TrainingError(f"{path}: not of the stage picture")
    tower = ready(ImageTower, recipe.network, path, "picture")
    if path.is_dir():
        known = torch.tensor(json.loads(metadata_of(path, "picture")["anchor"]))
    else:
        with safe_open(path, framework="pt") as file:
            known = file.get_tensor("prototypes/anchor").float()
    if len(known) != recipe.network.pooled or float(known @ anchor(text)) < SAME:
        raise TrainingError(f"{path}: trained beside another text encoder; train it again: chashka train picture")
    small = {"pixels": torch.zeros(2, recipe.network.in_channels, 64, 64)}
    metadata = {"anchor": json.dumps([round(float(value), 5) for value in known])}
    return _Part(tower, "picture", small, ["pooled"], metadata, path)


def upscaler_part(path: Path) -> _Part:
    """The upscaler, which knows no other component. Raises TrainingError for weights of another stage."""
    recipe = recipe_of(path, "upscaler")
    if not isinstance(recipe, UpscaleRecipe):
        raise TrainingError(f"{path}: not of the stage upscale")
    net = ready(Upscaler, recipe.network, path, "upscaler")
    return _Part(net, "upscaler", {"pixels": torch.zeros(2, 4, 32, 32)}, ["enlarged"], {}, path)


def provenance(path: Path, part: str) -> dict[str, str]:
    """The recipe, the number of steps and where the weights came from, as the run stored them."""
    metadata = metadata_of(path, part)
    recipe = json.dumps(json.loads(metadata["recipe"]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    steps = metadata.get("step", metadata.get("steps", "0"))
    known = {key: metadata[key] for key in KEYS if key in metadata}
    return {"recipe": recipe, "steps": steps, "licence": "Apache-2.0"} | known


def codec_metadata(runs: Finished, decoder: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """``latent_scale`` of the encoder and the decoder, and the decoder's ``preview``: computed, or those it was exported with."""
    if runs.latents is not None:
        scale, sample = latents_of(runs.latents)
        return {"latent_scale": repr(scale)}, {"preview": json.dumps(preview_map(decoder, sample, scale))}
    metadata = metadata_of(runs.autoencoder, "decoder")
    if not {"latent_scale", "preview"} <= metadata.keys():
        raise TrainingError(f"{runs.autoencoder}: no scale of latents in it; give features/latents.safetensors too")
    return {"latent_scale": metadata["latent_scale"]}, {"preview": metadata["preview"]}


def latents_of(path: Path) -> tuple[float, torch.Tensor]:
    """(latent_scale, 64 scaled latents)."""
    with safe_open(path, framework="pt") as file:
        part = file.get_slice("latents")
        count = part.get_shape()[1]
        rows = [part[0, i].float() for i in range(0, count, max(count // 64, 1))][:64]
        return float(file.metadata()["latent_scale"]), torch.stack(rows)


@torch.no_grad()
def preview_map(decoder: nn.Module, latents: torch.Tensor, scale: float) -> list[list[float]]:
    """The affine map (4 rows of C + 1) from scaled latents to the mean colour of the pixels under each, by least squares."""
    pixels = torch.cat([decoder(part / scale) for part in latents.split(8)])
    cells = F.avg_pool2d(pixels, pixels.shape[-1] // latents.shape[-1]).permute(0, 2, 3, 1).flatten(0, 2)
    known = torch.cat([latents, torch.ones_like(latents[:, :1])], 1).permute(0, 2, 3, 1).flatten(0, 2)
    solved = torch.linalg.lstsq(known.double(), cells.double()).solution.T
    return [[round(float(v), 5) for v in row] for row in solved]
