"""A folder of diffusers: what has to be in it, and what its configurations say beyond the shapes of its weights.

What a configuration says is read, or has to be what Stable Diffusion 1.x and 2.x have; how a scheduler samples (steps,
offsets, cuts) is a matter of requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from chashka.checkpoints import diffusers_names, several_files
from chashka.checkpoints.configurations import checked, read_json
from chashka.checkpoints.renaming import some, without_rest
from chashka.checkpoints.several_files import read_weights
from chashka.errors import WeightsError
from chashka.families.stable_diffusion import tokenizer
from chashka.families.stable_diffusion.layout import SCALE, Opened, Parts, Untold, assembled, text_of_transformers
from chashka.nets.configs import UNetConfig

INDEX = "model_index.json"
SCHEDULER = "scheduler_config.json"
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
             "StableDiffusionInpaintPipelineLegacy")  # fmt: skip
"""Pipelines of diffusers whose networks are those of the published checkpoints."""
KINDS = (".safetensors", ".bin")
"""What files of weights end in. Before it may stand the name of a variant, such as fp16, bf16 or non_ema."""
VARIANTS = ("{stem}.*{kind}", "{stem}{kind}.index.*.json", "{stem}{kind}.*.index.json")
"""Files of weights that are not the plain one, and indices of weights in several files likewise."""
DIFFUSERS = ("diffusion_pytorch_model",)
COMPONENTS = {"unet": DIFFUSERS, "vae": DIFFUSERS, "text_encoder": ("model", "pytorch_model")}
"""Networks, and what their files of weights may be called."""
CROSS, PLAIN = "CrossAttn{}Block2D", "{}Block2D"

UNET_SAYS: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu",),
    "addition_embed_type": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "norm_eps": (1e-5,),
    "norm_num_groups": (32,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "transformer_layers_per_block": (1,),
}
VAE_SAYS: dict[str, tuple[Any, ...]] = {
    "_class_name": ("AutoencoderKL",),
    "act_fn": ("silu",),
    "down_block_types": ("DownEncoderBlock2D",),
    "latents_mean": (None,),
    "latents_std": (None,),
    "mid_block_add_attention": (True,),
    "norm_num_groups": (32,),
    "shift_factor": (None, 0),
    "up_block_types": ("UpDecoderBlock2D",),
    "use_post_quant_conv": (True,),
    "use_quant_conv": (True,),
}
TEXT_SAYS: dict[str, tuple[Any, ...]] = {"hidden_act": ("quick_gelu", "gelu"), "layer_norm_eps": (1e-5,)}
SCHEDULER_SAYS: dict[str, tuple[Any, ...]] = {
    "beta_end": (0.012,),
    "beta_schedule": ("scaled_linear",),
    "beta_start": (0.00085,),
    "num_train_timesteps": (1000,),
    "prediction_type": ("epsilon", "v_prediction"),
    "rescale_betas_zero_snr": (False,),
    "trained_betas": (None,),
    "use_flow_sigmas": (False,),
}


def check(folder: Path) -> None:
    """Raises WeightsError for another pipeline, and for a folder that lacks something: what was found, what is missing.

    So for one that has several files of weights of a component, of which none is the plain one; and for weights in several files
    of which one is missing, or damaged, or holds other weights than their index says, as far as safetensors' headers tell.
    """
    kind = str(read_json(folder / INDEX).get("_class_name") or "pipeline without a name")
    if kind not in PIPELINES:
        raise WeightsError(
            f"{folder} is a {kind[:60]} of diffusers; supported are Stable Diffusion 1.x and 2.x: {', '.join(PIPELINES)}"
        )
    needed = _needed(folder)
    there, missing = [n for n in needed if not needed[n]], [f"{name}/{file}" for name, file in needed.items() if file]
    if missing:
        found = f"found are {', '.join(there)}" if there else f"found is {INDEX} alone"
        raise WeightsError(
            f"{folder}: a folder of diffusers without {' and '.join(missing)}; {found}. "
            "Put what is missing there, as it was published"
        )
    for index in _indices(folder):
        several_files.check(index)


def look(folder: Path) -> tuple[str, ...]:
    """``check``, with a look into parts that are torch's files; notes for people, of which there are none. Raises WeightsError."""
    check(folder)
    for index in _indices(folder):
        several_files.check(index, torch=True)
    return ()


def _indices(folder: Path) -> list[Path]:
    """Of the components whose weights are in several files."""
    found = [_weights(folder / name, stems) for name, stems in COMPONENTS.items()]
    return [file for file in found if file is not None and several_files.is_index(file)]


def _needed(folder: Path) -> dict[str, str]:
    """Every component that is needed, and what it lacks: nothing, a configuration or the weights."""
    lacking = {}
    for name, stems in COMPONENTS.items():
        place = folder / name
        lacking[name] = "" if _weights(place, stems) else f"{stems[0]}.safetensors"
        if not (place / "config.json").is_file():
            lacking[name] = "config.json"
    lacking["scheduler"] = "" if (folder / "scheduler" / SCHEDULER).is_file() else SCHEDULER
    words = " with ".join((tokenizer.VOCABULARY, tokenizer.MERGES))
    lacking[tokenizer.FOLDER] = "" if tokenizer.is_in(folder / tokenizer.FOLDER) else words
    return lacking


def read(folder: Path) -> Opened:
    """All of it. Raises WeightsError."""
    check(folder)
    scheduler = read_json(folder / "scheduler" / SCHEDULER)
    _check_scheduler(folder / "scheduler" / SCHEDULER, scheduler)
    files = {name: file for name, stems in COMPONENTS.items() if (file := _weights(folder / name, stems)) is not None}
    found, scale = _networks(folder, files)
    words = tokenizer.read(folder / tokenizer.FOLDER, found.text.vocab)
    if words.added:  # the end mark is no more the largest of the ids
        found = replace(found, text=replace(found.text, added=found.text.vocab - 1 - words.pairs.end))
    sources = {"unet": files["unet"], "autoencoder": files["vae"], "text": files["text_encoder"]}
    prediction = "v" if scheduler.get("prediction_type") == "v_prediction" else "eps"
    return Opened(found, sources, prediction, words, scale)


def _networks(folder: Path, files: Mapping[str, Path]) -> tuple[Parts, float]:
    """The networks by their configurations and weights, and the scale of latents."""
    places = {name: folder / name / "config.json" for name in COMPONENTS}
    said = {name: read_json(place) for name, place in places.items()}
    for name, table in (("unet", UNET_SAYS), ("text_encoder", TEXT_SAYS)):
        _check_said(places[name], said[name], table)
    with checked(places["unet"]):
        shape = _unet_shape(said["unet"])
    vae, scale = autoencoder(folder / "vae", files["vae"])
    with checked(places["text_encoder"]):
        # a file of transformers leaves out what it takes for usual
        own: dict[str, Any] = {"num_attention_heads": 8, "hidden_act": "quick_gelu"} | said["text_encoder"]
        untold = Untold(shape.heads, shape.head_width, _number(own, "num_attention_heads"), own["hidden_act"])
    unet, text = (read_weights(files[name]) for name in ("unet", "text_encoder"))
    found = assembled(
        without_rest(
            lambda tensors: diffusers_names.unet(shape, tensors), unet, files["unet"], "a U-Net of 1.x or 2.x"
        ),
        vae,
        text_of_transformers(text, files["text_encoder"], "CLIP's text encoder"),
        folder,
        untold,
    )
    for name in ("in_channels", "out_channels", "width", "mult", "res_blocks", "attention_levels", "context"):
        says, have = getattr(shape, name), getattr(found.unet, name)
        if says != have:
            raise WeightsError(f"{places['unet']}: {name} is {says}, its weights have {have}: they are of two models")
    return found, scale


def weights_of_autoencoder(place: Path) -> Path | None:
    """The file of weights in the folder of an autoencoder, or the index of several."""
    return _weights(place, DIFFUSERS)


def autoencoder(place: Path, file: Path) -> tuple[dict[str, Any], float]:
    """The weights of an autoencoder's folder by the original names, and the scale of its latents. file: of weights, or index."""
    config = place / "config.json"
    said = read_json(config)
    _check_said(config, said, VAE_SAYS)
    with checked(config):
        levels, scale = len(_numbers(said, "block_out_channels")), said.get("scaling_factor", SCALE)
        if not isinstance(scale, int | float) or not 0 < scale < 1e6:
            raise ValueError(f"scaling_factor is {str(scale)[:40]}; allowed: a number above 0")
    tensors = read_weights(file)
    found = without_rest(partial(diffusers_names.autoencoder, levels), tensors, file, "their autoencoder")
    return found, float(scale)


def _unet_shape(said: Mapping[str, Any]) -> UNetConfig:
    """The U-Net as its configuration says it. Its shapes are looked at later; heads are said here alone."""
    widths = _numbers(said, "block_out_channels")
    kinds = {kind.format("Down"): i for i, kind in enumerate((PLAIN, CROSS))}
    attended = (
        [kinds[kind] for kind in said["down_block_types"]] if set(said["down_block_types"]) <= kinds.keys() else []
    )
    mirrored = [(PLAIN, CROSS)[one].format("Up") for one in reversed(attended)]
    if len(attended) != len(widths) or mirrored != list(said.get("up_block_types", mirrored)):
        raise ValueError(
            f"down_block_types {said['down_block_types']} and up_block_types {said.get('up_block_types')} "
            f"for {len(widths)} levels; "
            f"allowed: {', '.join(kinds)} for every level, and the same kinds going up"
        )
    heads, head_width = _heads(said.get("num_attention_heads") or said.get("attention_head_dim", 8), widths)
    return UNetConfig(
        _number(said, "in_channels"),
        _number(said, "out_channels"),
        widths[0],
        tuple(width / widths[0] for width in widths),
        _number(said, "layers_per_block"),
        tuple(i for i, one in enumerate(attended) if one),
        "transformer",
        heads,
        head_width,
        _number(said, "cross_attention_dim"),
    )


def _number(said: Mapping[str, Any], name: str) -> int:
    if type(said[name]) is not int or said[name] < 1:
        raise ValueError(f"{name} is {str(said[name])[:40]}; allowed: a whole number of at least 1")
    return int(said[name])


def _numbers(said: Mapping[str, Any], name: str) -> list[int]:
    given = said[name]
    if not isinstance(given, list) or not given or any(type(one) is not int or one < 1 for one in given):
        raise ValueError(f"{name} is {str(given)[:40]}; allowed: a list of whole numbers, one for each level")
    return given


def _heads(said: Any, widths: list[int]) -> tuple[int | None, int | None]:
    """(heads, None) where every level has as many, (None, their width) where they are equally wide.

    diffusers says the number of heads under the name ``attention_head_dim``, for all levels or for each.
    """
    each = list(said) if isinstance(said, list | tuple) else [said] * len(widths)
    if len(each) != len(widths) or any(type(n) is not int or n < 1 for n in each):
        raise ValueError(
            f"attention_head_dim is {said!r}; allowed: a number of heads, or one for each of {len(widths)} levels"
        )
    if len(set(each)) == 1:
        return each[0], None
    each_width = {width / n for width, n in zip(widths, each, strict=True)}
    if len(each_width) != 1 or not next(iter(each_width)).is_integer():
        raise ValueError(
            f"attention_head_dim is {said!r} for {widths} channels; allowed: equally many or equally wide heads"
        )
    return None, int(each_width.pop())


def _check_said(file: Path, said: Mapping[str, Any], table: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises WeightsError for what our networks do not do. What is not said is as published."""
    for name, allowed in table.items():
        given = said.get(name, allowed[0])
        values = given if isinstance(given, list) and given else [given]
        if any(value not in allowed for value in values):
            raise WeightsError(
                f"{file}: {name} is {str(given)[:80]}; supported of Stable Diffusion 1.x and 2.x: "
                f"{' or '.join(map(str, allowed))}"
            )


def _check_scheduler(file: Path, said: Mapping[str, Any]) -> None:
    kind = str(said.get("_class_name", ""))
    if kind.startswith(("FlowMatch", "EDM")):
        raise WeightsError(
            f"{file}: {kind[:60]} is for another kind of model; supported are schedulers with a table of betas"
        )
    _check_said(file, said, SCHEDULER_SAYS)


def _weights(folder: Path, stems: tuple[str, ...]) -> Path | None:
    """A component's file, or the index of its several files: the plain one, or the only variant. None: there is none.

    An index counts where one of its parts is there: downloads bring all indices, being small. Raises WeightsError for several
    variants without a plain one, and for parts without an index or an index without parts where there is nothing else.
    """
    variants: list[Path] = []
    for kind in KINDS:
        plain = (folder / f"{stem}{kind}{more}" for more in ("", ".index.json") for stem in stems)
        one = next((file for file in plain if several_files.there(file)), None)
        if one is not None:
            return one
        found = [file for stem in stems for file in _variants(folder, stem, kind) if several_files.there(file)]
        if len(found) == 1 and not variants:
            return found[0]
        variants += found
    if variants:
        raise WeightsError(
            f"{folder}: several files of weights, {', '.join(file.name for file in variants)}, and none of them is the plain one; "
            "leave one of them there"
        )
    _check_parts(folder, stems)
    return None


def _variants(folder: Path, stem: str, kind: str) -> list[Path]:
    found = [file for pattern in VARIANTS for file in sorted(folder.glob(pattern.format(stem=stem, kind=kind)))]
    single = [file for file in found if file.suffix != ".json" and not several_files.PART.fullmatch(file.name)]
    return single + [file for file in found if several_files.is_index(file)]


def _check_parts(folder: Path, stems: tuple[str, ...]) -> None:
    """Raises WeightsError for an index or parts of weights that are not complete, in a folder that has no others."""
    for file in sorted(folder.glob("*")):
        told = several_files.INDEX.fullmatch(file.name)
        if told is not None and told["stem"] in stems:
            several_files.check(file)
    told_of = {file.name: several_files.PART.fullmatch(file.name) for file in sorted(folder.glob("*"))}
    parts = {name: told for name, told in told_of.items() if told is not None and told["stem"] in stems}
    if parts:
        first = next(iter(parts.values()))
        variant = first["variant"] or first["former"]
        index = f"{first['stem']}{first['kind']}.index{f'.{variant}' if variant else ''}.json"
        raise WeightsError(
            f"{folder}: its weights are in several files, {some(list(parts))}, without {index}, which says what is in which. "
            "Put it there, as it was published"
        )
