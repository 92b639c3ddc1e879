"""Opens the checkpoints of Kandinsky 2.0 in the layout in which they were published (docs/kandinsky.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chashka.checkpoints import several_files
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.diffusion import Denoiser, Table
from chashka.engines import Blueprint, Engine, Graph, GraphNetwork, open_engine
from chashka.errors import WeightsError
from chashka.families.kandinsky.encoders import LENGTH, WEIGHTS, require_transformers
from chashka.families.latents import LatentCodec, by_mapping
from chashka.nets.configs import AutoencoderConfig, TextHeadConfig, UNetConfig
from chashka.nets.kandinsky_presets import AUTOENCODER_20, SCALE_20, TEXT_HEAD_20, UNET_20, UNET_20_INPAINTING

if TYPE_CHECKING:
    from chashka.families.family import Bundle, EngineChoice, Preset

FIRST, SECOND = "text_encoder1", "text_encoder2"
VAE = ("vae.ckpt", "vae.safetensors")
TEXT = ("Kandinsky-2-0.pt", "Kandinsky-2-0.safetensors")
INPAINTING = ("Kandinsky-2-0-inpainting.pt", "Kandinsky-2-0-inpainting.safetensors")
SHARED: tuple[str | tuple[str, ...], ...] = (
    VAE,
    f"{FIRST}/config.json",
    tuple(f"{FIRST}/{name}" for name in WEIGHTS),
    (f"{FIRST}/tokenizer.json", f"{FIRST}/sentencepiece.bpe.model"),
    f"{SECOND}/config.json",
    tuple(f"{SECOND}/{name}" for name in WEIGHTS),
    (f"{SECOND}/spiece.model", f"{SECOND}/tokenizer.json"),
)
"""What every task needs besides its U-Net."""
HEAD = ("to_model_dim.", "to_model_dim2.", "proj.", "proj2.", "ln_model1.", "ln_model2.", "ln_model3.")
"""Beginnings of the keys that are the text head's; all others of the file are the U-Net's."""
DEFAULTS = {
    "steps": 75,
    "guidance_scale": 10.0,
    "sampler": "ddim",
    "denoised_type": "dynamic_threshold",
}
"""Of the original's documentation; its functions' own defaults are 100 steps and a guidance of 7."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The networks of a folder; the defaults are the published ones."""

    unet: UNetConfig = UNET_20
    head: TextHeadConfig = TEXT_HEAD_20
    autoencoder: AutoencoderConfig = AUTOENCODER_20


def open_text(preset: Preset, choice: EngineChoice, sizes: Sizes | None = None) -> Bundle:
    """Text to picture, picture to picture. Raises WeightsError, MissingExtraError, EngineError."""
    return _open(preset, choice, sizes or Sizes(), TEXT)


def open_inpainting(preset: Preset, choice: EngineChoice, sizes: Sizes | None = None) -> Bundle:
    """The network that takes mask and picture as channels."""
    return _open(preset, choice, sizes or Sizes(unet=UNET_20_INPAINTING), INPAINTING)


def _open(preset: Preset, choice: EngineChoice, sizes: Sizes, names: tuple[str, ...]) -> Bundle:
    from chashka.families.family import Bundle
    from chashka.families.kandinsky import FAMILY
    from chashka.families.kandinsky.compat import conventions
    from chashka.families.kandinsky.published_sampling import denoise, own_samplers
    from chashka.families.kandinsky.published_text import Place, PublishedText, contrastive, t5

    require_transformers(f"the model kandinsky-{preset.name}")
    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    folder = preset.place
    weights = found(folder, names)
    head, unet = _unet(engine, weights, sizes)
    encoder, decoder = _autoencoder(engine, found(folder, VAE), sizes.autoencoder)
    latents = sizes.autoencoder.z_channels
    device, dtype = engine.beside
    first, second = (
        Place(folder / name, found(folder, tuple(f"{name}/{file}" for file in WEIGHTS)), device, dtype)
        for name in (FIRST, SECOND)
    )
    text = PublishedText(
        contrastive(first, (sizes.head.tokens1, sizes.head.pooled1)), t5(second, sizes.head.tokens2), by_mapping(head)
    )
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(GraphNetwork(unet), Table.linear(), "eps"),
        codec=LatentCodec(encoder, decoder, SCALE_20, latents, factor=sizes.autoencoder.factor, alpha=False),
        text=text,
        denoise=denoise,
        defaults=DEFAULTS,
        engine=engine.name,
        masked=sizes.unet.in_channels != latents,
        samplers=own_samplers(),
        conventions=conventions,
        weights=weights,
    )


def found(folder: Path, names: Sequence[str]) -> Path:
    """The first of ``names`` that is a file in ``folder``; of indices one that has some of its files, before one that has none.

    Raises WeightsError, also for weights in several files of which one is missing or damaged.
    """
    there = [folder / name for name in names if (folder / name).is_file()]
    if not there:
        raise WeightsError(f"{folder}: {' or '.join(names)} not found")
    source = next((file for file in there if several_files.there(file)), there[0])
    if several_files.is_index(source):
        several_files.check(source)
    return source


def _unet(engine: Engine, source: Path, sizes: Sizes) -> tuple[Graph, Graph]:
    """Text head and U-Net of one file."""
    tensors = read_checkpoint(source)
    check_channels(tensors, source, sizes.unet.in_channels)
    if any(name.startswith("clip_to_seq.") for name in tensors):
        raise WeightsError(f"{source} is a decoder of Kandinsky 2.1, not the U-Net of 2.0")
    cfg, head = sizes.unet, sizes.head
    blueprints = (
        Blueprint(
            "text_head",
            "nets.kandinsky_text:KandinskyTextHead",
            head,
            {"tokens1": (2, 4, head.tokens1), "pooled1": (2, head.pooled1), "tokens2": (2, 4, head.tokens2)},
            ("tokens", "added"),
        ),
        unet_blueprint(cfg, head.added, 2 * LENGTH),
    )
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, value in tensors.items():
        parts[0 if name.startswith(HEAD) else 1][name] = value
    first, second = (engine.build(b, part, source) for b, part in zip(blueprints, parts, strict=True))
    return first, second


def unet_blueprint(cfg: UNetConfig, added: int, length: int) -> Blueprint:
    """A U-Net of the family. added: the width of what joins the time embedding; length: the usual number of tokens."""
    tokens = (2, length, cfg.context or 0)
    inputs = {"x": (2, cfg.in_channels, 16, 16), "t": (2,), "tokens": tokens, "added": (2, added)}
    return Blueprint("unet", "nets.unet:UNet", cfg, inputs, ("out",))


def check_channels(tensors: Mapping[str, Any], source: Path, wanted: int) -> None:
    """Files of a sister model fail here, and not with a list of keys."""
    begin = tensors.get("input_blocks.0.0.weight")
    channels = 0 if begin is None else begin.shape[1]
    if channels != wanted and channels in (4, 9):
        kinds = {4: "text to picture", 9: "inpainting"}
        raise WeightsError(
            f"{source} is the network for {kinds[channels]} ({channels} channels); for {kinds.get(wanted, 'this')} "
            f"one of {wanted} channels is needed"
        )


def _autoencoder(engine: Engine, source: Path, cfg: AutoencoderConfig) -> tuple[Graph, Graph]:
    """Encoder and decoder; what trained them (``loss.*``) is left out."""
    tensors = {name: value for name, value in read_checkpoint(source).items() if not name.startswith("loss.")}
    side = 4 * cfg.factor
    encoder = Blueprint(
        "encoder", "nets.autoencoder:EncoderKL", cfg, {"pixels": (1, cfg.in_channels, side, side)}, ("moments",)
    )
    decoder = Blueprint(
        "decoder", "nets.autoencoder:DecoderKL", cfg, {"latents": (1, cfg.z_channels, 4, 4)}, ("pixels",)
    )
    first = {name: value for name, value in tensors.items() if name.startswith(("encoder.", "quant_conv."))}
    rest = {name: value for name, value in tensors.items() if name not in first}
    return engine.build(encoder, first, source), engine.build(decoder, rest, source)
