"""Weights in diffusers' layout under the original key names that our networks have: renaming tables, and joined projections.

Checked against diffusers' own modules in the tests. The other way round is ``diffusers/loaders/single_file_utils.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from chashka.checkpoints.bfloat16 import joinable
from chashka.checkpoints.safetensors_file import NumpyArray
from chashka.errors import WeightsError

Names: TypeAlias = Iterator[tuple[str, str]]
"""(ours, theirs) of modules or weights."""
Tensors: TypeAlias = Mapping[str, NumpyArray]

RES = (
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
"""Parts of a residual block of the U-Net."""
SPATIAL = (("q", "to_q", "query"), ("k", "to_k", "key"), ("v", "to_v", "value"), ("proj_out", "to_out.0", "proj_attn"))
"""Projections of an autoencoder's attention: ours, diffusers', and diffusers' former names, which older repositories still have."""

WIDEST = 8192
"""No text tower is wider: a file that says so is refused for its shapes, and not by the memory that it asks for."""


def unet(cfg: Any, tensors: Tensors) -> dict[str, NumpyArray]:
    """A ``UNet2DConditionModel``'s weights by our U-Net's names; what has none is left out. cfg: the ``UNetConfig``.

    Raises WeightsError for a projection that is missing where its sisters are there.
    """
    found = _renamed(_unet_modules(cfg), tensors)
    if cfg.attention == "qkv":
        for ours, theirs in _unet_attentions(cfg):
            found |= _renamed(iter([(f"{ours}.norm", f"{theirs}.group_norm")]), tensors)
            heads = _heads(cfg, tensors, theirs)
            found |= _joined(f"{ours}.qkv", [f"{theirs}.to_{n}" for n in "qkv"], heads, tensors)
            if cfg.context:
                found |= _joined(f"{ours}.encoder_kv", [f"{theirs}.add_{n}_proj" for n in "kv"], heads, tensors)
            found |= _joined(f"{ours}.proj_out", [f"{theirs}.to_out.0"], 1, tensors)
    return found


def autoencoder(levels: int, tensors: Tensors) -> dict[str, NumpyArray]:
    """An ``AutoencoderKL``'s or ``VQModel``'s weights by our halves' names. levels: how many resolutions. No codebook.

    Raises WeightsError for a projection that lacks its bias or is larger than one place.
    """
    found = _renamed(_autoencoder_modules(levels), tensors)
    for ours, theirs in _autoencoder_attentions(levels):
        for norm in ("group_norm", "spatial_norm.norm_layer", "spatial_norm.conv_y", "spatial_norm.conv_b"):
            name = norm.removeprefix("group_norm").removeprefix("spatial_norm")
            found |= _renamed(iter([(f"{ours}.norm{name}", f"{theirs}.{norm}")]), tensors)
        found |= _spatial_attention(ours, theirs, tensors)
    return found


def prior(heads: int, tensors: Tensors) -> dict[str, NumpyArray]:
    """A ``PriorTransformer``'s weights by our prior's names. Its statistics (``clip_mean``, ``clip_std``) are left out."""
    parts = [
        ("time_embed.0", "time_embedding.linear_1"),
        ("time_embed.2", "time_embedding.linear_2"),
        ("text_enc_proj", "encoder_hidden_states_proj"),
        ("text_emb_proj", "embedding_proj"),
        ("clip_img_proj", "proj_in"),
        ("out_proj", "proj_to_clip_embeddings"),
        ("final_ln", "norm_out"),
    ]
    found: dict[str, NumpyArray] = {}
    for i in range(_count(tensors, "transformer_blocks.")):
        ours, theirs = f"transformer.resblocks.{i}", f"transformer_blocks.{i}"
        pairs = (
            ("attn.c_proj", "attn1.to_out.0"),
            ("mlp.c_fc", "ff.net.0.proj"),
            ("mlp.c_proj", "ff.net.2"),
            ("ln_1", "norm1"),
            ("ln_2", "norm3"),
        )
        parts += [(f"{ours}.{own}", f"{theirs}.{other}") for own, other in pairs]
        found |= _joined(f"{ours}.attn.c_qkv", [f"{theirs}.attn1.to_{n}" for n in "qkv"], heads, tensors, linear=True)
    found |= _renamed(iter(parts), tensors)
    for own, other in (("positional_embedding", "positional_embedding"), ("prd_emb", "prd_embedding")):
        if other in tensors:
            found[own] = tensors[other]
    return found


def clip_text_named(tensors: Tensors) -> Tensors:
    """A ``CLIPTextModel``'s weights by the names that they had before version 5 of transformers."""
    return _prefixed("text_model.", tensors)


def clip_text(tensors: Tensors) -> dict[str, NumpyArray]:
    """A ``CLIPTextModel``'s (``WithProjection`` or not) weights by our text tower's names. Raises WeightsError for a part of one.

    A tower without projection gets the unit matrix, which leaves its pooled state as it is; the scale that CLIP's loss learns,
    which transformers does not keep there, is set to its beginning.
    """
    tensors = clip_text_named(tensors)
    found = _clip_layers("text_model.encoder.layers.", tensors)
    pairs = [("ln_final", "text_model.final_layer_norm")]
    found |= _renamed(iter(pairs), tensors)
    tables = (
        ("token_embedding.weight", "token_embedding.weight"),
        ("positional_embedding", "position_embedding.weight"),
    )
    found |= {
        own: tensors[f"text_model.embeddings.{other}"]
        for own, other in tables
        if f"text_model.embeddings.{other}" in tensors
    }
    projection = tensors.get("text_projection.weight")
    if projection is not None:
        found["text_projection"] = np.ascontiguousarray(projection.T)
    return clip_text_completed(found)


def clip_text_completed(found: Tensors) -> dict[str, NumpyArray]:
    """A text tower by our names with what only CLIP's loss needs, where it was left out."""
    whole = dict(found)
    if "text_projection" not in found:
        width = min(np.size(found.get("ln_final.weight", ())), WIDEST)
        whole["text_projection"] = np.eye(width, dtype=np.float32)
    return {**whole, "logit_scale": found.get("logit_scale", np.array(np.log(1 / 0.07), np.float32))}


def clip_vision(tensors: Tensors) -> dict[str, NumpyArray]:
    """A ``CLIPVisionModelWithProjection``'s weights by our picture tower's names."""
    tensors = _prefixed("vision_model.", tensors)
    found = _clip_layers("vision_model.encoder.layers.", tensors)
    pairs = (
        ("conv1", "vision_model.embeddings.patch_embedding"),
        ("ln_pre", "vision_model.pre_layrnorm"),
        ("ln_post", "vision_model.post_layernorm"),
    )
    found |= _renamed(iter(pairs), tensors)
    for own, other in (("class_embedding", "class_embedding"), ("positional_embedding", "position_embedding.weight")):
        value = tensors.get(f"vision_model.embeddings.{other}")
        if value is not None:
            found[own] = value.reshape(-1) if own == "class_embedding" else value
    if "visual_projection.weight" in tensors:
        found["proj"] = np.ascontiguousarray(tensors["visual_projection.weight"].T)
    return found


def unet_modules(cfg: Any) -> dict[str, str]:
    """diffusers' names of a U-Net's modules by ours; what lies in a module has the same name in both."""
    return dict(_unet_modules(cfg))


def clip_text_modules(layers: int) -> dict[str, str]:
    """transformers' names of a text tower's modules by ours."""
    found: dict[str, str] = {}
    for i in range(layers):
        ours, theirs = f"transformer.resblocks.{i}", f"text_model.encoder.layers.{i}"
        found |= {ours: theirs, f"{ours}.attn.out_proj": f"{theirs}.self_attn.out_proj"}
        found |= {f"{ours}.mlp.c_fc": f"{theirs}.mlp.fc1", f"{ours}.mlp.c_proj": f"{theirs}.mlp.fc2"}
    return found


def _unet_modules(cfg: Any) -> Names:
    """Every module of the U-Net but the 'qkv' attentions' own."""
    yield from (("time_embed.0", "time_embedding.linear_1"), ("time_embed.2", "time_embedding.linear_2"))
    yield from (("input_blocks.0.0", "conv_in"), ("out.0", "conv_norm_out"), ("out.2", "conv_out"))
    for ours, theirs in _unet_stages(cfg):
        if "downsamplers" in theirs and cfg.resample == "conv":
            yield f"{ours}.op", f"{theirs}.conv"
        elif "upsamplers" in theirs and cfg.resample == "conv":
            yield f"{ours}.conv", f"{theirs}.conv"
        else:
            yield from ((f"{ours}.{own}", f"{theirs}.{other}") for own, other in RES)
    if cfg.attention == "transformer":
        for ours, theirs in _unet_attentions(cfg):
            yield from ((f"{ours}.{part}", f"{theirs}.{part}") for part in ("norm", "proj_in", "proj_out"))
            yield f"{ours}.transformer_blocks", f"{theirs}.transformer_blocks"


def _unet_stages(cfg: Any) -> Names:
    """Residual blocks and what changes the size."""
    count, levels = cfg.res_blocks, len(cfg.mult)
    place = 1
    for level in range(levels):
        for j in range(count):
            yield f"input_blocks.{place}.0", f"down_blocks.{level}.resnets.{j}"
            place += 1
        if level + 1 < levels:
            yield f"input_blocks.{place}.0", f"down_blocks.{level}.downsamplers.0"
            place += 1
    yield from (("middle_block.0", "mid_block.resnets.0"), ("middle_block.2", "mid_block.resnets.1"))
    for up in range(levels):
        level = levels - 1 - up
        for j in range(count + 1):
            yield f"output_blocks.{up * (count + 1) + j}.0", f"up_blocks.{up}.resnets.{j}"
        if level:
            behind = 2 if level in cfg.attention_levels else 1
            yield f"output_blocks.{up * (count + 1) + count}.{behind}", f"up_blocks.{up}.upsamplers.0"


def _unet_attentions(cfg: Any) -> Names:
    count, levels = cfg.res_blocks, len(cfg.mult)
    yield "middle_block.1", "mid_block.attentions.0"
    for level in cfg.attention_levels:
        up = levels - 1 - level
        for j in range(count):
            yield f"input_blocks.{1 + level * (count + 1) + j}.1", f"down_blocks.{level}.attentions.{j}"
        for j in range(count + 1):
            yield f"output_blocks.{up * (count + 1) + j}.1", f"up_blocks.{up}.attentions.{j}"


def _autoencoder_modules(levels: int) -> Names:
    yield from (("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv"))
    for side in ("encoder", "decoder"):
        yield from ((f"{side}.{part}", f"{side}.{part}") for part in ("conv_in", "conv_out"))
        yield f"{side}.norm_out", f"{side}.conv_norm_out"
        for j in (0, 1):
            yield from _blocks(f"{side}.mid.block_{j + 1}", f"{side}.mid_block.resnets.{j}")
    for level in range(levels):
        up = levels - 1 - level
        for j in range(8):  # more than any has; names that are not there are left out
            yield from _blocks(f"encoder.down.{level}.block.{j}", f"encoder.down_blocks.{level}.resnets.{j}")
            yield from _blocks(f"decoder.up.{level}.block.{j}", f"decoder.up_blocks.{up}.resnets.{j}")
        yield f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"
        yield f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{up}.upsamplers.0.conv"


def _blocks(ours: str, theirs: str) -> Names:
    yield from ((f"{ours}.{part}", f"{theirs}.{part}") for part in ("norm1", "conv1", "norm2", "conv2"))
    yield f"{ours}.nin_shortcut", f"{theirs}.conv_shortcut"


def _autoencoder_attentions(levels: int) -> Names:
    for side in ("encoder", "decoder"):
        yield f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0"
    for level in range(levels):
        for j in range(8):
            yield f"encoder.down.{level}.attn.{j}", f"encoder.down_blocks.{level}.attentions.{j}"
            yield f"decoder.up.{level}.attn.{j}", f"decoder.up_blocks.{levels - 1 - level}.attentions.{j}"


def _renamed(names: Names, tensors: Tensors) -> dict[str, NumpyArray]:
    """The weights below the given modules, those that are there, under our names."""
    by_module: dict[str, list[str]] = {}
    for name in tensors:
        parts = name.split(".")
        for end in range(1, len(parts)):
            by_module.setdefault(".".join(parts[:end]), []).append(name)
    return {
        f"{ours}{name[len(theirs) :]}": tensors[name] for ours, theirs in names for name in by_module.get(theirs, [])
    }


def _spatial_attention(ours: str, theirs: str, tensors: Tensors) -> dict[str, NumpyArray]:
    """Projections as the 1×1 convolutions that they are with us; there they are linear, or such convolutions too."""
    found: dict[str, NumpyArray] = {}
    for own, *others in SPATIAL:
        for name in (f"{theirs}.{other}" for other in others):
            if f"{name}.weight" not in tensors:
                continue
            weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
            if weight.ndim not in (2, 4) or weight.shape[2:] not in ((), (1, 1)):
                raise WeightsError(f"{name}.weight has the shape {list(weight.shape)}; allowed: [C, C] or [C, C, 1, 1]")
            if bias is None:
                raise WeightsError(f"{name}.bias is missing, and without it {ours}.{own} cannot be made")
            found |= {f"{ours}.{own}.weight": weight.reshape(*weight.shape[:2], 1, 1), f"{ours}.{own}.bias": bias}
    return found


def _joined(
    ours: str, theirs: list[str], heads: int, tensors: Tensors, *, linear: bool = False
) -> dict[str, NumpyArray]:
    """Projections side by side as one, interleaved head by head; as a 1×1 convolution unless ``linear``."""
    weights = [tensors.get(f"{name}.weight") for name in theirs]
    if all(weight is None for weight in weights):
        return {}
    if any(weight is None for weight in weights):
        missing = theirs[[weight is None for weight in weights].index(True)]
        raise WeightsError(f"{missing}.weight is missing, and without it {ours} cannot be made")
    there = joinable([weight for weight in weights if weight is not None])
    joined = np.stack([_by_head(weight, heads) for weight in there], axis=1)
    weight = joined.reshape(-1, joined.shape[-1])
    found = {f"{ours}.weight": weight if linear else weight[..., None]}
    biases = [tensors[f"{name}.bias"] for name in theirs if f"{name}.bias" in tensors]
    if len(biases) == len(theirs):
        rows = [bias.reshape(heads, -1) for bias in joinable(biases)]
        found[f"{ours}.bias"] = np.stack(rows, axis=1).reshape(-1)
    return found


def _by_head(weight: NumpyArray, heads: int) -> NumpyArray:
    """(C, D) → (heads, C/heads, D)."""
    return weight.reshape(heads, -1, weight.shape[1])


def _heads(cfg: Any, tensors: Tensors, theirs: str) -> int:
    weight = tensors.get(f"{theirs}.to_q.weight")
    return 1 if weight is None else int(cfg.heads_of(weight.shape[0]))


def _count(tensors: Tensors, prefix: str) -> int:
    return 1 + max((int(n[len(prefix) :].split(".")[0]) for n in tensors if n.startswith(prefix)), default=-1)


def _prefixed(prefix: str, tensors: Tensors) -> Tensors:
    """Since version 5 transformers leaves a tower's prefix out where there is nothing beside it."""
    bare = ("embeddings.", "encoder.", "final_layer_norm.", "pre_layrnorm.", "post_layernorm.")
    if not any(name.startswith(bare) for name in tensors):
        return tensors
    found = {f"{prefix}{name}" if name.startswith(bare) else name: value for name, value in tensors.items()}
    if len(found) < len(tensors):
        double = next(name for name in tensors if f"{prefix}{name}" in tensors)
        raise WeightsError(f"{double} is there twice, with {prefix}* before it and without: allowed is one of them")
    return found


def _clip_layers(prefix: str, tensors: Tensors) -> dict[str, NumpyArray]:
    found: dict[str, NumpyArray] = {}
    parts: list[tuple[str, str]] = []
    for i in range(_count(tensors, prefix)):
        ours, theirs = f"transformer.resblocks.{i}", f"{prefix}{i}"
        parts += [(f"{ours}.attn.out_proj", f"{theirs}.self_attn.out_proj")]
        parts += [(f"{ours}.mlp.c_fc", f"{theirs}.mlp.fc1"), (f"{ours}.mlp.c_proj", f"{theirs}.mlp.fc2")]
        parts += [(f"{ours}.ln_1", f"{theirs}.layer_norm1"), (f"{ours}.ln_2", f"{theirs}.layer_norm2")]
        for kind in ("weight", "bias"):
            names = [f"{theirs}.self_attn.{n}_proj.{kind}" for n in "qkv"]
            missing = [name for name in names if name not in tensors]
            if missing and len(missing) < len(names):
                raise WeightsError(f"{missing[0]} is missing, and without it {ours}.attn cannot be made")
            if not missing:
                found[f"{ours}.attn.in_proj_{kind}"] = np.concatenate(joinable([tensors[name] for name in names]))
    return found | _renamed(iter(parts), tensors)
