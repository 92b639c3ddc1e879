"""What teacups of all families store beside their weights, and how it is read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chashka
from chashka.checkpoints import read_metadata
from chashka.diffusion import Flow, NoiseSchedule, Table
from chashka.engines import Engine, Graph
from chashka.errors import WeightsError
from chashka.families.latents import LatentCodec, stored_preview
from chashka.families.upscaler import Upscaler
from chashka.prompts.vocabulary import Vocabulary

if TYPE_CHECKING:
    from chashka.families.family import Preset

VOCABULARY = Path(chashka.__file__).parent / "teacup" / "vocabulary.tsv"
"""Every teacup reads the same words; a folder of exported components may bring others in a file of this name."""
AREA, MULTIPLE = 256 * 256, 64
CODEC = ("encoder", "decoder")
UPSCALER = "upscaler"
"""A component that a model may lack; chashka upscale needs it, and nothing else opens it."""
FAST = "fast"
"""One that it may lack as well: a change of the U-Net that draws drafts in a few steps of one call each."""
BLOCK = 16
"""Texts are padded with zeros to a multiple of this many tokens, unless the weights name another number, as in training: the
U-Net masks nothing, so that the number of padding rows is a part of what it sees."""


def stored(graph: Graph, key: str, where: Path) -> str:
    """What is stored beside a component. Raises WeightsError where it is not."""
    value = graph.metadata.get(key)
    if value is None:
        raise WeightsError(f"{where}: {graph.name} says nothing about its {key}; export it again with chashka export")
    return value


def stored_schedule(values: Mapping[str, Any], where: Path) -> NoiseSchedule:
    """``{"kind": "flow", "shift": s}`` or ``{"kind": "linear" | "scaled_linear" | "squared_cosine"}`` as a schedule."""
    match values.get("kind"):
        case "flow":
            return Flow(shift=float(values.get("shift", 1.0)))
        case "linear":
            return Table.linear()
        case "scaled_linear":
            return Table.scaled_linear()
        case "squared_cosine":
            return Table.squared_cosine()
        case kind:
            raise WeightsError(
                f"{where}: the schedule {kind!r} is unknown; the files belong to another version of chashka"
            )


def open_codec(engine: Engine, folder: Path) -> LatentCodec:
    """Encoder and decoder. Raises WeightsError for halves of two releases."""
    encoder, decoder = engine.open(folder, "encoder"), engine.open(folder, "decoder")
    scales = {graph.name: stored(graph, "latent_scale", folder) for graph in (encoder, decoder)}
    if scales["encoder"] != scales["decoder"]:
        raise WeightsError(
            f"{folder}: encoder and decoder have different latent scales, {scales['encoder']} and "
            f"{scales['decoder']}: they are not of one release; install chashka again"
        )
    channels = int(json.loads(stored(decoder, "config", folder))["z_channels"])
    preview = stored_preview(decoder.metadata, channels)
    return LatentCodec(encoder, decoder, float(scales["encoder"]), channels, preview)


def has(preset: Preset, component: str) -> bool:
    """Whether any file of an optional component is there: of half a one opening it says what is missing."""
    return any((preset.place / name).is_file() for name in preset.optional if Path(name).stem == component)


def open_upscaler(engine: Engine, preset: Preset) -> Upscaler | None:
    """What doubles the size of pictures, if the model has it; its file is opened when it is first used."""
    if not has(preset, UPSCALER):
        return None
    return Upscaler(lambda: engine.open(preset.home(UPSCALER), UPSCALER))


def open_draft(engine: Engine, preset: Preset, unet: Graph) -> tuple[Callable[[], Graph] | None, dict[str, Any]]:
    """What opens the network of drafts when it is first asked for (None: the model has none), and the settings of drafts."""
    if not has(preset, FAST):
        return None, json.loads(unet.metadata.get("fast", "{}"))
    told = read_metadata(preset.home(FAST) / f"{FAST}.safetensors")
    return functools.cache(lambda: engine.open(preset.home(FAST), FAST)), json.loads(told.get("fast", "{}"))


def takes_mask(unet: Graph, channels: int, where: Path) -> bool:
    """Whether the network takes the mask and the masked latents beside x, told by its input channels."""
    given = int(json.loads(stored(unet, "config", where))["in_channels"])
    if given not in (channels, 2 * channels + 1):
        raise WeightsError(
            f"{where}: unet takes {given} channels, the decoder {channels}; expected {channels}, or {2 * channels + 1} "
            "with a mask: they are not of one release"
        )
    return given != channels


def vocabulary(folder: Path) -> Vocabulary:
    """The folder's own, or the package's."""
    own = folder / VOCABULARY.name
    return Vocabulary.load(own if own.is_file() else VOCABULARY)
