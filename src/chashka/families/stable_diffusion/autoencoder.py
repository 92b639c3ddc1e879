"""An autoencoder by itself, in place of a checkpoint's own: a file, diffusers' folder of one, or what a whole checkpoint has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from chashka.checkpoints import content, diffusers_names, layout
from chashka.checkpoints.configurations import read_json
from chashka.checkpoints.renaming import some, without_rest
from chashka.checkpoints.torch_file import read_checkpoint
from chashka.errors import WeightsError
from chashka.families.stable_diffusion import folder
from chashka.families.stable_diffusion.layout import LEFT_OUT, UNET, VAE, Opened, autoencoder_config

CONFIG = "config.json"
OWN = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
"""How the original names of its weights begin."""
DIFFUSERS = ("encoder.down_blocks.", "decoder.up_blocks.")
"""And those of a file of diffusers, which begin like that too."""
XL = "conditioner.embedders."
CHANNELS = 4
"""Of the latents of every published 1.x and 2.x."""
SHARED = ("in_channels", "out_channels", "z_channels", "factor")
"""What another autoencoder has to have in common with the checkpoint's own."""
WHAT = "an autoencoder of 1.x and 2.x"


def exchanged(opened: Opened, path: Path) -> Opened:
    """What was opened, with the autoencoder in ``path``. Raises WeightsError for one that does not belong to it."""
    weights, source, scale = read(path)
    try:
        cfg = autoencoder_config(weights)
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{source}: a weight is missing or has another shape than expected ({error})") from error
    own = opened.parts.autoencoder
    for name in SHARED:
        theirs, ours = getattr(cfg, name), getattr(own, name)
        if theirs != ours:
            raise WeightsError(
                f"{source}: {name} is {theirs}, the checkpoint's own autoencoder has {ours}: it belongs to another model"
            )
    if scale is not None and not math.isclose(scale, opened.scale, rel_tol=1e-6):
        raise WeightsError(
            f"{path}: scaling_factor is {scale:g}, the checkpoint's is {opened.scale:g}: it is an autoencoder of another model"
        )
    found = replace(opened.parts, autoencoder=cfg, weights=opened.parts.weights | {"autoencoder": weights})
    return replace(opened, parts=found, sources={**opened.sources, "autoencoder": source})


def is_one(path: Path) -> bool:
    """Whether a file or folder is an autoencoder alone. Raises WeightsError for one that no checkpoint of this family has."""
    if not _looks_like_one(path):
        return False
    read(path)
    return True


def _looks_like_one(path: Path) -> bool:
    try:
        if path.is_dir():
            return "Autoencoder" in str(read_json(path / CONFIG).get("_class_name"))
        names = layout(path)[0] if content.is_safetensors(path) else read_checkpoint(path)
    except WeightsError:  # whoever asked has a better word for it
        return False
    return any(name.removeprefix(VAE).startswith(OWN) for name in names) and not _whole(names)


def read(path: Path) -> tuple[dict[str, Any], Path, float | None]:
    """(weights by the original names, their file, the scale of latents where a configuration says it). Raises WeightsError."""
    if path.is_dir():
        place = path / "vae" if (path / folder.INDEX).is_file() else path
        file = folder.weights_of_autoencoder(place)
        if file is None or not (place / CONFIG).is_file():
            raise WeightsError(
                f"{place}: a folder of an autoencoder needs {CONFIG} and diffusion_pytorch_model.safetensors; give such a folder, "
                "or a file"
            )
        found, scale = folder.autoencoder(place, file)
        _check_channels(found, file)
        return found, file, scale
    found = _in_file(read_checkpoint(path), path)
    _check_channels(found, path)
    return found, path, None


def _in_file(tensors: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Of a single file, whatever it has besides."""
    if any(name.startswith(XL) for name in tensors):
        raise WeightsError(
            f"{path} is a Stable Diffusion XL, whose latents have another scale; supported are 1.x and 2.x"
        )
    kept = {name: value for name, value in tensors.items() if not LEFT_OUT.match(name)}
    below = {name.removeprefix(VAE): value for name, value in kept.items() if name.startswith(VAE)}
    found = below if _whole(kept) else {name.removeprefix(VAE): value for name, value in kept.items()}
    if not any(name.startswith(OWN) for name in found):
        raise WeightsError(f"{path} is no autoencoder: no encoder.* and decoder.* in it, but {some(list(tensors))}")
    if any(name.startswith(DIFFUSERS) for name in found):
        blocks = (name.split(".")[2] for name in found if name.startswith(DIFFUSERS[0]))
        levels = 1 + max((int(number) for number in blocks if number.isdecimal()), default=0)
        return without_rest(partial(diffusers_names.autoencoder, levels), found, path, WHAT)
    others = [name for name in found if not name.startswith(OWN)]
    if others:
        raise WeightsError(f"{path}: {some(others)}: {WHAT} has no such weights; it belongs to another kind of model")
    return found


def _whole(names: Iterable[str]) -> bool:
    """Whether a file has a U-Net too."""
    return any(name.startswith(UNET) for name in names)


def _check_channels(weights: Mapping[str, Any], source: Path) -> None:
    """The commonest mistake has a message of its own."""
    first = weights.get("decoder.conv_in.weight")
    if first is not None and first.ndim == 4 and first.shape[1] != CHANNELS:
        raise WeightsError(
            f"{source}: its latents have {first.shape[1]} channels; allowed: {CHANNELS}, as in every Stable Diffusion 1.x and 2.x. "
            "Those of Flux and Stable Diffusion 3 have 16"
        )
