"""Opens the checkpoints of Kandinsky 2.1 in the layout in which they were published (docs/kandinsky.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.torch_file import read_checkpoint, read_torch
from chashka.diffusion import Denoiser, Table
from chashka.engines import Blueprint, Engine, Graph, GraphNetwork, open_engine
from chashka.errors import WeightsError
from chashka.families.kandinsky.encoders import WEIGHTS, require_transformers
from chashka.families.kandinsky.prior import Opened, PicturePrior
from chashka.families.kandinsky.published import check_channels, found, unet_blueprint
from chashka.families.latents import LatentCodec, by_mapping
from chashka.nets.clip_presets import CLIP_PRESETS
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, CLIPVisionConfig, UNetConfig
from chashka.nets.kandinsky_presets import (
    HEAD_21,
    MOVQ,
    PRIOR_21,
    UNET_21,
    UNET_21_INPAINTING,
    PictureTextHeadConfig,
    PriorConfig,
)
from chashka.prompts import clip_words

if TYPE_CHECKING:
    from chashka.families.family import Bundle, EngineChoice, Preset

ENCODER = "text_encoder"
DECODER = ("decoder_fp16.ckpt", "decoder_fp16.safetensors")
INPAINTING = ("inpainting_fp16.ckpt", "inpainting_fp16.safetensors")
PRIOR = ("prior_fp16.ckpt", "prior_fp16.safetensors")
MOVQ_FILE = ("movq_final.ckpt", "movq_final.safetensors")
STATISTICS = ("ViT-L-14_stats.th",)
CLIP = ("ViT-L-14.pt", "ViT-L-14.safetensors")
SHARED: tuple[str | tuple[str, ...], ...] = (
    PRIOR,
    MOVQ_FILE,
    STATISTICS,
    CLIP,
    f"{ENCODER}/config.json",
    tuple(f"{ENCODER}/{name}" for name in WEIGHTS),
    (f"{ENCODER}/tokenizer.json", f"{ENCODER}/sentencepiece.bpe.model"),
)
"""What every task needs besides its U-Net. CLIP's file is OpenAI's own, which the original fetches by itself."""
HEAD = ("clip_to_seq.", "to_model_dim_n.", "proj_n.", "ln_model_n.", "img_layer.")
"""Beginnings of the keys that are the head's."""
NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's archives hold besides weights."""
DEFAULTS = {"steps": 100, "guidance_scale": 7.0, "sampler": "ddim", "prior_steps": 25, "prior_guidance_scale": 4.0}


@dataclass(frozen=True, slots=True)
class Sizes:
    """The networks of a folder; the defaults are the published ones."""

    unet: UNetConfig = UNET_21
    head: PictureTextHeadConfig = HEAD_21
    prior: PriorConfig = PRIOR_21
    movq: AutoencoderConfig = MOVQ
    clip: tuple[CLIPTextConfig, CLIPVisionConfig] = CLIP_PRESETS["ViT-L/14"]


def open_text(preset: Preset, choice: EngineChoice, sizes: Sizes | None = None) -> Bundle:
    """Text and pictures to picture. Raises WeightsError, MissingExtraError, EngineError."""
    return _open(preset, choice, sizes or Sizes(), DECODER)


def open_inpainting(preset: Preset, choice: EngineChoice, sizes: Sizes | None = None) -> Bundle:
    """The decoder that takes mask and picture as channels."""
    return _open(preset, choice, sizes or Sizes(unet=UNET_21_INPAINTING), INPAINTING)


def _open(preset: Preset, choice: EngineChoice, sizes: Sizes, names: Sequence[str]) -> Bundle:
    from chashka.families.family import Bundle
    from chashka.families.kandinsky import FAMILY
    from chashka.families.kandinsky.compat import conventions_21
    from chashka.families.kandinsky.published_sampling import own_samplers
    from chashka.families.kandinsky.published_text import Place, contrastive
    from chashka.families.kandinsky.unclip import EncodedText, Unclip, denoise

    require_transformers(f"the model kandinsky-{preset.name}")
    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    folder = preset.place
    source = found(folder, names)
    head, unet = _decoder(engine, source, sizes)
    encoder, decoder = movq(engine, found(folder, MOVQ_FILE), sizes.movq)
    weights = found(folder, tuple(f"{ENCODER}/{name}" for name in WEIGHTS))
    text = contrastive(Place(folder / ENCODER, weights, *engine.beside), (sizes.head.tokens1, sizes.head.pooled1))
    unclip = Unclip(_prior(engine, folder, sizes), by_mapping(head), text)
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(GraphNetwork(unet), Table.linear(0.00085, 0.012), "eps"),
        codec=LatentCodec(encoder, decoder, 1.0, sizes.movq.z_channels, factor=sizes.movq.factor, alpha=False),
        text=EncodedText(text),
        denoise=partial(denoise, unclip=unclip),
        defaults=DEFAULTS,
        engine=engine.name,
        masked=sizes.unet.in_channels != sizes.movq.z_channels,
        samplers=own_samplers(),
        conventions=conventions_21,
        weights=source,
    )


def _decoder(engine: Engine, source: Path, sizes: Sizes) -> tuple[Graph, Graph]:
    """Head and U-Net of one file."""
    tensors = read_checkpoint(source)
    check_channels(tensors, source, sizes.unet.in_channels)
    if not any(name.startswith("clip_to_seq.") for name in tensors):
        raise WeightsError(f"{source} is no decoder of Kandinsky 2.1: it has no clip_to_seq")
    cfg = sizes.head
    inputs = {"tokens1": (2, 4, cfg.tokens1), "pooled1": (2, cfg.pooled1), "picture": (2, cfg.picture)}
    head = Blueprint("text_head", "nets.kandinsky_text:PictureTextHead", cfg, inputs, ("tokens", "added"))
    own = {name: value for name, value in tensors.items() if name.startswith(HEAD)}
    rest = {name: value for name, value in tensors.items() if name not in own}
    unet = unet_blueprint(sizes.unet, cfg.added, cfg.pictures + clip_words.LENGTH)
    return engine.build(head, own, source), engine.build(unet, rest, source)


def movq(
    engine: Engine, source: Path, cfg: AutoencoderConfig, tensors: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """Encoder and decoder of MoVQ, as functions of mappings; the codebook is not used. tensors: instead of the file's own."""
    given = read_checkpoint(source) if tensors is None else tensors
    weights = {name: value for name, value in given.items() if not name.startswith(("quantize.", "loss."))}
    side = 4 * cfg.factor
    pixels, latents = {"pixels": (1, cfg.in_channels, side, side)}, {"latents": (1, cfg.z_channels, 4, 4)}
    encoder = Blueprint("encoder", "nets.autoencoder:EncoderKL", cfg, pixels, ("moments",))
    decoder = Blueprint("decoder", "nets.movq:DecoderMoVQ", cfg, latents, ("pixels",))
    first = {name: value for name, value in weights.items() if name.startswith(("encoder.", "quant_conv."))}
    rest = {name: value for name, value in weights.items() if name not in first}
    return engine.build(encoder, first, source), engine.build(decoder, rest, source)


def _prior(engine: Engine, folder: Path, sizes: Sizes) -> PicturePrior:
    source, clip, statistics = found(folder, PRIOR), found(folder, CLIP), found(folder, STATISTICS)
    mean, std = _statistics(statistics, sizes.prior.picture)

    def network() -> dict[str, Any]:
        state = read_checkpoint(source)
        return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}

    def towers(vision: bool) -> dict[str, Any]:
        state = {name: value for name, value in read_checkpoint(clip).items() if name not in NUMBERS}
        return {n.removeprefix("visual."): v for n, v in state.items() if n.startswith("visual.") == vision}

    return PicturePrior(
        *towers_and_network(
            engine,
            sizes.clip,
            sizes.prior,
            (clip, partial(towers, False)),
            (clip, partial(towers, True)),
            (source, network),
        ),
        Table.squared_cosine(),
        mean,
        std,
        sizes.clip[1].resolution,
    )


def towers_and_network(
    engine: Engine, clip: tuple[CLIPTextConfig, CLIPVisionConfig], prior: PriorConfig, *parts: tuple[Path, Any]
) -> tuple[Opened, Opened, Opened]:
    """CLIP's text tower, its vision tower and the prior, each opened when it is first called. parts: (source, weights) of each."""
    text, vision = clip
    side = vision.resolution
    noisy = {"x": (2, prior.picture), "t": (2,), "tokens": (2, prior.context, prior.text)}
    blueprints = (
        Blueprint("clip_text", "nets.clip:TextTower", text, {"ids": (2, text.context)}, ("tokens", "pooled")),
        Blueprint("clip_vision", "nets.clip:VisionTransformer", vision, {"pixels": (1, 3, side, side)}, ("pooled",)),
        Blueprint(
            "prior",
            "nets.prior:PriorTransformer",
            prior,
            noisy | {"pooled": (2, prior.picture), "mask": (2, prior.context)},
            ("out",),
        ),
    )

    def opened(blueprint: Blueprint, source: Path, weights: Callable[[], dict[str, Any]]) -> Opened:
        return Opened(lambda: engine.build(blueprint, weights(), source))

    first, second, third = (opened(blueprint, *part) for blueprint, part in zip(blueprints, parts, strict=True))
    return first, second, third


def _statistics(path: Path, width: int) -> tuple[Any, Any]:
    """Mean and deviation of embeddings: two vectors."""
    said = read_torch(path)
    pair = [np.asarray(v) for v in said] if isinstance(said, list | tuple) and len(said) == 2 else []
    values = [np.asarray(computable(v), np.float32) for v in pair]
    if [value.shape for value in values] != [(width,), (width,)]:
        raise WeightsError(f"{path}: expected two vectors of {width} numbers, the mean and the deviation of embeddings")
    return values[0], values[1]
