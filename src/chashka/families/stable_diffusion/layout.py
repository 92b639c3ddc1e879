"""What a single file of Stable Diffusion holds, told by the names and shapes of its weights.

Originals: CompVis/stable-diffusion, runwayml/stable-diffusion, Stability-AI/stablediffusion; their configurations are not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chashka.checkpoints import diffusers_names
from chashka.checkpoints.renaming import some, without_rest
from chashka.errors import WeightsError
from chashka.families.stable_diffusion.tokenizer import Tokenizer
from chashka.nets.configs import AutoencoderConfig, CLIPTextConfig, UNetConfig

MODEL, AVERAGE = "model.", "model_ema."
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPENCLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
LEFT_OUT = re.compile(
    r"model_ema\.|loss\.|first_stage_model\.loss\.|.*\.position_ids$|.*\.attn_mask$|cond_stage_model\.logit_scale$"
    r"|(betas|alphas_cumprod|alphas_cumprod_prev|sqrt_alphas_cumprod|sqrt_one_minus_alphas_cumprod|log_one_minus_alphas_cumprod"
    r"|sqrt_recip_alphas_cumprod|sqrt_recipm1_alphas_cumprod|posterior_variance|posterior_log_variance_clipped"
    r"|posterior_mean_coef1|posterior_mean_coef2|lvlb_weights|logvar|scale_factor|model_ema|v_pred)$"
)
"""What files hold besides the weights that draw: averages, tables of the schedule, masks."""
SCALE = 0.18215
"""Latents are the autoencoder's times this number, unless a folder's configuration says another one."""
HEADS = 8
"""Attention heads of 1.x at every level, which shapes do not tell."""
HEAD_WIDTH = 64
"""Width of the heads of 2.x, and of CLIP's."""


V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
"""Empty tensors by which some files say that their network predicts v, and that its last level is noise alone."""
OPENCLIP_LAYERS = 24
"""Layers of ViT-H/14. A file with one less was made of a folder of diffusers, which leaves the last one out."""
CHANNELS = {5: "one that takes a depth map", 7: "an upscaler", 8: "InstructPix2Pix, which takes a second picture"}
"""Other networks of the family by what their first convolution takes."""


@dataclass(frozen=True, slots=True)
class Untold:
    """What shapes do not tell, where something else does. heads, head_width: of the U-Net, one of them. text_heads, activation: of
    the text tower. None: as published. skip_last: the text tower's layers that do not count."""

    heads: int | None = None
    head_width: int | None = None
    text_heads: int | None = None
    activation: str | None = None
    skip_last: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """The networks of a checkpoint: configurations, and weights by their own names. version: '1' or '2'."""

    version: str
    unet: UNetConfig
    autoencoder: AutoencoderConfig
    text: CLIPTextConfig
    weights: dict[str, dict[str, Any]]

    @property
    def inpainting(self) -> bool:
        return self.unet.in_channels == 2 * self.autoencoder.z_channels + 1


@dataclass(frozen=True, slots=True)
class Opened:
    """What a file or folder is. sources: each part's file. prediction: eps or v; None: nothing says it. tokenizer: its words.

    averaged: whether the U-Net's weights are the averages, of a file that holds both.
    """

    parts: Parts
    sources: Mapping[str, Path]
    prediction: str | None
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    scale: float = SCALE
    averaged: bool = False


def parts(tensors: Mapping[str, Any], source: Path, heads: int = HEADS) -> Parts:
    """The networks of a single file. heads: of 1.x. Raises WeightsError for what is no Stable Diffusion 1.x or 2.x."""
    check_kind(tensors, source)
    unet = _below(tensors, UNET)
    vae = _below(tensors, VAE)
    texts = {prefix: found for prefix in (CLIP, OPENCLIP) if (found := _below(tensors, prefix))}
    if not vae or not texts:
        lacking = "autoencoder (first_stage_model.*)" if not vae else "text encoder (cond_stage_model.*)"
        raise WeightsError(f"{source}: it has no {lacking}; a whole checkpoint is needed")
    if len(texts) > 1:
        names = [prefix + next(iter(found)) for prefix, found in texts.items()]
        raise WeightsError(
            f"{source}: it has two text encoders, {names[0]} of 1.x and {names[1]} of 2.x; allowed: one. Two files were merged"
        )
    prefixes = (UNET, VAE, CLIP, OPENCLIP)
    others = [name for name in tensors if not name.startswith(prefixes) and not LEFT_OUT.match(name)]
    if others:
        raise WeightsError(f"{source}: {some(others)}: no part of Stable Diffusion has such a name")
    ((kind, text),) = texts.items()
    said = None if second(tensors) else heads
    if kind == CLIP:
        tower = text_of_transformers(text, source, f"the text encoder of 1.x ({CLIP}*)")
        return assembled(unet, vae, tower, source, Untold(heads=said))
    tower = diffusers_names.clip_text_completed(text)
    skip = 0 if _layers(text) == OPENCLIP_LAYERS - 1 else 1
    return assembled(unet, vae, tower, source, Untold(heads=said, skip_last=skip))


def averages(tensors: Mapping[str, Any]) -> dict[str, str]:
    """The names of the U-Net's averages by those of its weights; empty where the file does not hold all of them.

    The original calls them as the weights, without any dot (``ldm/modules/ema.py``, which took them for all of ``model``).
    """
    names = {name: AVERAGE + name.removeprefix(MODEL).replace(".", "") for name in tensors if name.startswith(UNET)}
    return names if all(name in tensors for name in names.values()) else {}


def text_of_transformers(tensors: Mapping[str, Any], source: Path, what: str) -> dict[str, Any]:
    """A text tower's weights by our names. what: the tower, for people. Raises WeightsError for any that have no place."""
    try:
        named = diffusers_names.clip_text_named(tensors)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    return without_rest(diffusers_names.clip_text, named, source, what)


def assembled(
    unet: Mapping[str, Any], vae: Mapping[str, Any], tower: Mapping[str, Any], source: Path, untold: Untold
) -> Parts:
    """The parts by the original names of their own weights. Raises WeightsError."""
    cfg = unet_config(unet, source, untold)
    try:
        autoencoder = autoencoder_config(vae)
        text = text_config(tower, cfg.linear_proj, untold)
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{source}: a weight is missing or has another shape than expected ({error})") from error
    _check_channels(cfg, autoencoder.z_channels, source)
    weights = {"unet": dict(unet), "autoencoder": dict(vae), "text": dict(tower)}
    return Parts("2" if cfg.linear_proj else "1", cfg, autoencoder, text, weights)


def _check_channels(cfg: UNetConfig, latent: int, source: Path) -> None:
    """Raises WeightsError for a U-Net that is given anything but x, or x with a mask and a masked picture."""
    if cfg.in_channels not in (latent, 2 * latent + 1):
        what = CHANNELS.get(cfg.in_channels, "another kind of model")
        raise WeightsError(
            f"{source}: the first convolution of its U-Net takes {cfg.in_channels} channels: it is {what}; supported are "
            f"{latent} channels (text to picture) and {2 * latent + 1} (inpainting)"
        )
    if cfg.out_channels != latent:
        raise WeightsError(
            f"{source}: its U-Net says {cfg.out_channels} channels, its autoencoder has {latent}: they are of two models"
        )


def unet_config(tensors: Mapping[str, Any], source: Path, untold: Untold) -> UNetConfig:
    """Every size of the U-Net, walked from its first stage to its last."""
    try:
        width = int(tensors["time_embed.0.weight"].shape[1])
        levels: list[list[int]] = [[]]
        attended: list[int] = []
        linear, context = False, None
        place = 1
        while any(name.startswith(f"input_blocks.{place}.") for name in tensors):
            stage = f"input_blocks.{place}"
            if f"{stage}.0.op.weight" in tensors:
                levels.append([])
            else:
                levels[-1].append(int(tensors[f"{stage}.0.in_layers.2.weight"].shape[0]))
                key = tensors.get(f"{stage}.1.transformer_blocks.0.attn2.to_k.weight")
                if key is not None:
                    attended.append(len(levels) - 1)
                    context = int(key.shape[1])
                    linear = tensors[f"{stage}.1.proj_in.weight"].ndim == 2
            place += 1
        heads, head_width = untold.heads, untold.head_width
        if heads is None and head_width is None:
            heads, head_width = (None, HEAD_WIDTH) if linear else (HEADS, None)
        return UNetConfig(
            int(tensors["input_blocks.0.0.weight"].shape[1]),
            int(tensors["out.2.weight"].shape[0]),
            width,
            tuple(level[0] / width for level in levels),
            len(levels[0]),
            tuple(sorted(set(attended))),
            "transformer",
            heads,
            head_width,
            context,
            linear_proj=linear,
        )
    except (KeyError, IndexError, ValueError, ArithmeticError) as error:
        raise WeightsError(f"{source}: its U-Net is not one of Stable Diffusion ({error})") from error


def autoencoder_config(tensors: Mapping[str, Any]) -> AutoencoderConfig:
    """Every size of the autoencoder."""
    width = int(tensors["encoder.conv_in.weight"].shape[0])

    def side(name: str) -> tuple[tuple[int, ...], int]:
        levels = 1 + max(int(n.split(".")[2]) for n in tensors if n.startswith(f"{name}."))
        blocks = 1 + max(int(n.split(".")[4]) for n in tensors if n.startswith(f"{name}.0.block."))
        return tuple(int(tensors[f"{name}.{i}.block.0.conv1.weight"].shape[0]) // width for i in range(levels)), blocks

    mult, blocks = side("encoder.down")
    decoder_mult, decoder_blocks = side("decoder.up")
    return AutoencoderConfig(
        in_channels=int(tensors["encoder.conv_in.weight"].shape[1]),
        out_channels=int(tensors["decoder.conv_out.weight"].shape[0]),
        width=width,
        mult=mult,
        res_blocks=blocks,
        z_channels=int(tensors["post_quant_conv.weight"].shape[0]),
        decoder_width=width,
        decoder_mult=decoder_mult,
        decoder_res_blocks=decoder_blocks - 1,
    )


def text_config(tensors: Mapping[str, Any], second: bool, untold: Untold) -> CLIPTextConfig:
    """Every size of the text tower. second: of 2.x, with GELU."""
    vocab, width = tensors["token_embedding.weight"].shape
    return CLIPTextConfig(
        int(vocab),
        int(tensors["positional_embedding"].shape[0]),
        int(width),
        untold.text_heads or max(int(width) // HEAD_WIDTH, 1),
        _layers(tensors),
        int(tensors["text_projection"].shape[1]),
        untold.activation or ("gelu" if second else "quick_gelu"),
        skip_last=untold.skip_last,
    )


def _layers(tensors: Mapping[str, Any]) -> int:
    """How many a text tower has."""
    return 1 + max((int(n.split(".")[2]) for n in tensors if n.startswith("transformer.resblocks.")), default=-1)


def second(tensors: Mapping[str, Any]) -> bool:
    """Whether a single file's U-Net is of 2.x, by the shapes of its weights."""
    shapes = (
        len(v.shape) for name, v in tensors.items() if name.startswith(UNET) and name.endswith(".1.proj_in.weight")
    )
    return next(shapes, 4) == 2


def check_kind(tensors: Mapping[str, Any], source: Path) -> None:
    """Other models are told by what they have. Raises WeightsError."""
    if any(name.startswith(UNET) for name in tensors):
        if ZERO_SNR in tensors:
            raise WeightsError(
                f"{source}: its key {ZERO_SNR} says that its levels end at noise alone (zero terminal SNR); supported are the "
                "levels of Stable Diffusion 1.x and 2.x. Take the file without it, if there is one"
            )
        if any(name.startswith("conditioner.embedders.") for name in tensors):
            raise WeightsError(f"{source} is a Stable Diffusion XL; supported are 1.x and 2.x")
        return
    signs = {
        "lora_unet": "a LoRA, which changes a checkpoint and is none",
        "model.diffusion_transformer": "another kind of model",
        "joint_blocks": "a Stable Diffusion 3",
        "double_blocks": "a Flux",
        "input_blocks.0.0": "a U-Net alone; a whole checkpoint is needed",
        "encoder.down": "an autoencoder alone; a whole checkpoint is needed, and this can be its --vae",
    }
    for sign, what in signs.items():
        if any(sign in name for name in tensors):
            raise WeightsError(f"{source} is {what}")
    some = ", ".join(list(tensors)[:3])
    raise WeightsError(f"{source} is no Stable Diffusion checkpoint: no {UNET}* in it, but {some}")


def _below(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    return {name: value for name, value in found.items() if not LEFT_OUT.match(prefix + name)}
