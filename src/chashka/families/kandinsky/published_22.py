"""Opens Kandinsky 2.2 from folders in diffusers' layout: ``prior`` and ``decoder`` (docs/kandinsky.md).

Every part says its own size in its ``config.json``; of it only the numbers that are named here are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chashka.checkpoints import diffusers_names
from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.configurations import checked, read_json
from chashka.checkpoints.several_files import read_weights
from chashka.diffusion import Denoiser, Table
from chashka.engines import Blueprint, Engine, Graph, GraphNetwork, open_engine
from chashka.errors import WeightsError
from chashka.families.kandinsky.prior import PicturePrior
from chashka.families.kandinsky.published import check_channels, found, unet_blueprint
from chashka.families.kandinsky.published_21 import movq, towers_and_network
from chashka.families.latents import LatentCodec, by_mapping
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, CLIPVisionConfig, UNetConfig
from chashka.nets.kandinsky_presets import PictureTextHeadConfig, PriorConfig

if TYPE_CHECKING:
    from chashka.families.family import Bundle, EngineChoice, Preset
    from chashka.families.kandinsky.unclip import Threshold

PRIOR = ("prior", "kandinsky-2-2-prior")
DECODER = ("decoder", "kandinsky-2-2-decoder")
INPAINTING = ("decoder-inpaint", "kandinsky-2-2-decoder-inpaint")
"""What the folders may be called."""
INDICES = ("safetensors.index.json", "safetensors.index.fp16.json", "bin.index.json", "bin.index.fp16.json")
"""What those of weights in several files end in; single files are taken before them."""
WEIGHTS = tuple(
    f"diffusion_pytorch_model.{kind}" for kind in ("safetensors", "fp16.safetensors", "bin", "fp16.bin", *INDICES)
)
TOWER = (
    *("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin"),
    *(f"{'pytorch_model' if kind.startswith('bin') else 'model'}.{kind}" for kind in INDICES),
)
CONFIG = "config.json"
HEAD = ("encoder_hid_proj.", "add_embedding.")
DEFAULTS = {"steps": 50, "guidance_scale": 4.0, "sampler": "p_sampler", "prior_steps": 25, "prior_guidance_scale": 4.0}


def files(decoder: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """What must be there, each under all the names that it may have. decoder: names of the decoder's folder."""
    parts = [(decoder, "unet", WEIGHTS), (decoder, "movq", WEIGHTS), (PRIOR, "prior", WEIGHTS)]
    parts += [(PRIOR, "text_encoder", TOWER), (PRIOR, "image_encoder", TOWER)]
    needed: list[tuple[str, ...]] = []
    for folders, part, names in parts:
        needed.append(tuple(f"{folder}/{part}/{CONFIG}" for folder in folders))
        needed.append(tuple(f"{folder}/{part}/{name}" for folder in folders for name in names))
    return (*needed, tuple(f"{folder}/scheduler/scheduler_config.json" for folder in decoder))


def open_text(preset: Preset, choice: EngineChoice) -> Bundle:
    """Text and pictures to picture. Raises WeightsError, MissingExtraError, EngineError."""
    return _open(preset, choice, DECODER, 4)


def open_inpainting(preset: Preset, choice: EngineChoice) -> Bundle:
    """The decoder that takes mask and picture as channels."""
    return _open(preset, choice, INPAINTING, 9)


def _open(preset: Preset, choice: EngineChoice, names: Sequence[str], channels: int) -> Bundle:
    from chashka.families.family import Bundle
    from chashka.families.kandinsky import FAMILY
    from chashka.families.kandinsky.compat import conventions_22
    from chashka.families.kandinsky.published_sampling import own_samplers
    from chashka.families.kandinsky.unclip import PriorText, Unclip, denoise

    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    decoder = _part(preset.place, names)
    prior = _prior(engine, _part(preset.place, PRIOR))
    head, unet = _unet(engine, decoder / "unet", channels)
    cfg = _movq_config(_config(decoder / "movq"), decoder / "movq")
    source = found(decoder / "movq", WEIGHTS)
    halves = movq(engine, source, cfg, diffusers_names.autoencoder(len(cfg.mult), read_weights(source)))
    schedule, threshold = _schedule(decoder / "scheduler" / "scheduler_config.json")
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(GraphNetwork(unet), schedule, "eps"),
        codec=LatentCodec(*halves, 1.0, cfg.z_channels, factor=cfg.factor, alpha=False),
        text=PriorText(prior),
        denoise=partial(denoise, unclip=Unclip(prior, by_mapping(head), threshold=threshold)),
        defaults=DEFAULTS,
        engine=engine.name,
        masked=channels != cfg.z_channels,
        samplers=own_samplers(),
        conventions=conventions_22,
        weights=found(decoder / "unet", WEIGHTS),
    )


def _part(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise WeightsError(f"{folder}: {' or '.join(names)} not found")


def _unet(engine: Engine, folder: Path, channels: int) -> tuple[Graph, Graph]:
    """Head and U-Net."""
    said, source = _config(folder), found(folder, WEIGHTS)
    if said.get("addition_embed_type") != "image" or said.get("encoder_hid_dim_type") != "image_proj":
        raise WeightsError(f"{folder}: not the U-Net of Kandinsky 2.2, which is told of pictures' embeddings alone")
    with checked(folder):
        widths = [int(width) for width in said["block_out_channels"]]
        attended = tuple(i for i, kind in enumerate(said["down_block_types"]) if "CrossAttn" in kind)
        cfg = UNetConfig(
            int(said["in_channels"]),
            int(said["out_channels"]),
            widths[0],
            tuple(width / widths[0] for width in widths),
            int(said["layers_per_block"]),
            attended,
            head_width=int(said["attention_head_dim"]),
            context=int(said["cross_attention_dim"]),
            resample="resblock",
            scale_shift=True,
        )
    tensors = read_weights(source)
    weight = tensors.get("encoder_hid_proj.image_embeds.weight")
    if weight is None:
        raise WeightsError(f"{source}: encoder_hid_proj.image_embeds is missing")
    renamed = diffusers_names.unet(cfg, tensors)
    check_channels(renamed, source, channels)
    head = PictureTextHeadConfig(
        0, 0, weight.shape[1], weight.shape[0] // (cfg.context or 1), cfg.context or 0, 4 * cfg.width
    )
    blueprint = Blueprint(
        "text_head", "nets.kandinsky_text:PictureHead", head, {"picture": (2, head.picture)}, ("tokens", "added")
    )
    own = {name: value for name, value in tensors.items() if name.startswith(HEAD)}
    unet = unet_blueprint(cfg, head.added, head.pictures)
    return engine.build(blueprint, own, source), engine.build(unet, renamed, source)


def _movq_config(said: dict[str, Any], folder: Path) -> AutoencoderConfig:
    with checked(folder):
        widths = [int(width) for width in said["block_out_channels"]]
        mult = tuple(width // widths[0] for width in widths)
        return AutoencoderConfig(
            width=widths[0],
            mult=mult,
            res_blocks=int(said["layers_per_block"]),
            z_channels=int(said["latent_channels"]),
            decoder_width=widths[0],
            decoder_mult=mult,
            decoder_res_blocks=int(said["layers_per_block"]),
            attention_levels=tuple(i for i, kind in enumerate(said["down_block_types"]) if "Attn" in kind),
            norm_groups=int(said.get("norm_num_groups", 32)),
            variational=False,
        )


def _prior(engine: Engine, folder: Path) -> PicturePrior:
    said, source = _config(folder / "prior"), found(folder / "prior", WEIGHTS)
    with checked(folder / "prior"):
        heads = int(said["num_attention_heads"])
        width = int(said["embedding_dim"])
        cfg = PriorConfig(
            width,
            width,
            int(said["num_embeddings"]),
            heads * int(said["attention_head_dim"]),
            int(said["num_layers"]),
            heads,
        )
    text, vision = _text_config(folder / "text_encoder"), _vision_config(folder / "image_encoder")
    text_file, vision_file = (found(folder / part, TOWER) for part in ("text_encoder", "image_encoder"))
    statistics = read_weights(source)
    mean, std = (np.asarray(computable(statistics[name]), np.float32).reshape(-1) for name in ("clip_mean", "clip_std"))
    parts = towers_and_network(
        engine,
        (text, vision),
        cfg,
        (text_file, lambda: diffusers_names.clip_text(read_weights(text_file))),
        (vision_file, lambda: diffusers_names.clip_vision(read_weights(vision_file))),
        (source, lambda: diffusers_names.prior(heads, read_weights(source))),
    )
    return PicturePrior(*parts, Table.squared_cosine(), mean, std, vision.resolution)


def _text_config(folder: Path) -> CLIPTextConfig:
    said = _config(folder)
    with checked(folder):
        return CLIPTextConfig(
            int(said["vocab_size"]),
            int(said["max_position_embeddings"]),
            int(said["hidden_size"]),
            int(said["num_attention_heads"]),
            int(said["num_hidden_layers"]),
            int(said["projection_dim"]),
            str(said["hidden_act"]),
        )


def _vision_config(folder: Path) -> CLIPVisionConfig:
    said = _config(folder)
    with checked(folder):
        width = int(said["hidden_size"])
        return CLIPVisionConfig(
            int(said["image_size"]),
            int(said["num_hidden_layers"]),
            width,
            int(said["projection_dim"]),
            int(said["patch_size"]),
            width // int(said["num_attention_heads"]),
            str(said["hidden_act"]),
        )


def _schedule(path: Path) -> tuple[Table, Threshold | None]:
    """The noise schedule and the threshold of a scheduler's configuration."""
    from chashka.families.kandinsky.unclip import Threshold

    said = read_json(path)
    with checked(path):
        if said.get("beta_schedule", "linear") != "linear" or said.get("prediction_type", "epsilon") != "epsilon":
            raise WeightsError(f"{path}: expected a linear schedule and a network that predicts the noise")
        table = Table.linear(
            float(said["beta_start"]), float(said["beta_end"]), int(said.get("num_train_timesteps", 1000))
        )
        if said.get("thresholding"):
            ratio, most = float(said.get("dynamic_thresholding_ratio", 0.995)), float(said.get("sample_max_value", 1.0))
            return table, Threshold(ratio, most)
        if said.get("clip_sample", True):
            return table, Threshold(None, float(said.get("clip_sample_range", 1.0)))
    return table, None


def _config(folder: Path) -> dict[str, Any]:
    return read_json(folder / CONFIG)
