"""What is stored beside a component's weights, and which classes a weight file may name.

A component is ``<name>.safetensors`` (weights and these metadata) and ``<name>.xml`` (the graph). Metadata are strings:

    format      version of this layout, "1"
    class       a name of CLASSES, for example "nets.unet:UNet"
    config      JSON of the fields of its configuration, a dataclass of nets.configs called ``config_class``
    inputs      JSON list: the graph's inputs, in order
    outputs     JSON list: the graph's outputs, in order; a module returns one tensor, or a tuple in this order
    precision   "fp16" or "int8"; files from before there was a choice do not say it and are fp16
    int8        JSON list: the weights that are stored as int8 with scales (``checkpoints.int8``)
    base        name of the component in the same folder whose weights these are changes of (``checkpoints.low_rank``), and
    base_sha256 its file's; such a component has no graph of its own
    …           whatever the exporter adds (latent_scale, recipe, licence, …)
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chashka.checkpoints.safetensors_file import sha256
from chashka.errors import WeightsError
from chashka.nets import configs

FORMAT = "1"
PACKAGE = "chashka."
OWN = frozenset(
    {"format", "class", "config_class", "config", "inputs", "outputs", "precision", "int8", "base", "base_sha256"}
)
"""What an export writes by itself; the rest of the metadata is handed to it."""

CLASSES: frozenset[str] = frozenset(
    {
        "nets.autoencoder:Encoder",
        "nets.autoencoder:Decoder",
        "nets.autoencoder:EncoderKL",
        "nets.autoencoder:DecoderKL",
        "nets.clip:TextTower",
        "nets.clip:VisionTransformer",
        "nets.image_tower:ImageTower",
        "nets.judge:JudgeNet",
        "nets.multilingual:ContrastiveTextEncoder",
        "nets.multilingual:T5TextEncoder",
        "nets.kandinsky_text:KandinskyTextHead",
        "nets.kandinsky_text:PictureHead",
        "nets.kandinsky_text:PictureTextHead",
        "nets.movq:DecoderMoVQ",
        "nets.prior:PriorTransformer",
        "nets.unet:UNet",
        "nets.upscaler:Upscaler",
    }
)
"""A weight file can name these classes and no other: it must never choose what is imported."""

DYNAMIC_AXES: dict[str, tuple[int, ...]] = {
    "pixels": (0, 2, 3),
    "latents": (0, 2, 3),
    "x": (0, 2, 3),
    "t": (0,),
    "ids": (0, 1),
    "mask": (0, 1),
    "tokens": (0, 1),
    "tokens1": (0, 1),
    "tokens2": (0, 1),
    "pooled": (0,),
    "picture": (0,),
    "pooled1": (0,),
    "added": (0,),
    "keep": (0,),
}
"""Axes that a stored graph leaves open, by input (docs/networks.md): rows, sizes of pictures, lengths of texts."""

PRECISE_INPUTS: tuple[str, ...] = ("t",)
"""Inputs that are computed with in float32 whatever the precision, up to the first matrix product: bfloat16 has 8 bits,
so that all timesteps from 502 to 505 would become 504."""

PRECISIONS = ("fp16", "int8")
"""How weights can be stored."""

WIDE: dict[str, tuple[str, ...]] = {
    "nets.autoencoder:Encoder": ("conv_in.", "conv_out."),
    "nets.autoencoder:Decoder": ("conv_in.", "conv_out."),
    "nets.multilingual:ContrastiveTextEncoder": ("position", "query.", "project."),
    "nets.multilingual:T5TextEncoder": ("relative.",),
    "nets.kandinsky_text:KandinskyTextHead": ("proj.", "to_model_dim.", "to_model_dim2."),
    "nets.unet:UNet": ("time_embed.", "input_blocks.0.", "out."),
    "nets.image_tower:ImageTower": ("stem.", "project."),
    "nets.judge:JudgeNet": ("stem.", "centre.", "kind.", "place."),
    "nets.upscaler:Upscaler": ("conv_in.", "conv_out."),
}
"""Beginnings of the names of weights that stay float16 in an int8 file, by class: first and last layers, tables of places."""

FEWEST = 8
"""Weights of an output channel below which its scale would cost more than int8 saves."""


def kept_wide(module: Any, name: str, shape: Sequence[int]) -> bool:
    """Whether the weight stays float16 in an int8 file: biases, norms, small ones, and those named in ``WIDE``."""
    return wide_in(class_name(module), name, shape)


def wide_in(network: str, name: str, shape: Sequence[int]) -> bool:
    """The same by the network's class, as ``class_name`` gives it."""
    if len(shape) < 2 or math.prod(shape[1:]) < FEWEST:
        return True
    return name.startswith(WIDE.get(network, ()))


def class_name(module: Any) -> str:
    """The network's class as metadata name it, for example "nets.unet:UNet"."""
    return f"{type(module).__module__.removeprefix(PACKAGE)}:{type(module).__qualname__}"


def describe(module: Any, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """The metadata above for a network with its configuration in ``module.cfg``. Raises WeightsError without one."""
    cfg = getattr(module, "cfg", None)
    if not (dataclasses.is_dataclass(cfg) and hasattr(configs, type(cfg).__name__)):
        raise WeightsError(f"{type(module).__name__} has no configuration of nets.configs in its attribute cfg")
    return {
        "format": FORMAT,
        "class": class_name(module),
        "config_class": type(cfg).__name__,
        "config": configs.to_json(cfg),
        "inputs": json.dumps(list(inputs)),
        "outputs": json.dumps(list(outputs)),
    }


def ports(metadata: Mapping[str, str], path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the inputs and of the outputs. Raises WeightsError if ``path`` was not written by us."""
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise WeightsError(f"{path} has metadata of format {found}, expected {FORMAT}: export it again")
    return tuple(json.loads(metadata["inputs"])), tuple(json.loads(metadata["outputs"]))


def base_of(metadata: Mapping[str, str], path: Path) -> Path | None:
    """The file whose weights those in ``path`` change, or None. Raises WeightsError where it is missing or another one."""
    name = metadata.get("base")
    if name is None:
        return None
    base = path.with_name(f"{Path(name).name}.safetensors")
    expected, actual = metadata.get("base_sha256", ""), sha256(base)
    if expected != actual:
        raise WeightsError(
            f"{path} was made for weights with sha256 {expected[:12]}…, but {base} has {actual[:12]}…: leave it out, or train "
            "and export it anew"
        )
    return base


def network_class(metadata: Mapping[str, str], path: Path) -> Any:
    """The class that ``metadata`` name, imported now. Raises WeightsError for a name outside of CLASSES."""
    name = metadata.get("class", "")
    if name not in CLASSES:
        raise WeightsError(f"{path} names the unknown network {name!r}; known are {', '.join(sorted(CLASSES))}")
    return imported(name)


def imported(name: str) -> Any:
    """The class behind a name of CLASSES."""
    assert name in CLASSES, name
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(PACKAGE + module), attribute)


def configuration(metadata: Mapping[str, str], path: Path) -> Any:
    """The stored configuration as the dataclass that it was. Raises WeightsError if it does not fit this version."""
    kind = getattr(configs, metadata.get("config_class", ""), None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise WeightsError(f"{path} names the unknown configuration {metadata.get('config_class')!r}")
    try:
        return configs.from_json(kind, metadata.get("config", ""))
    except WeightsError as error:
        raise WeightsError(f"the configuration in {path} does not fit: {error}") from error
