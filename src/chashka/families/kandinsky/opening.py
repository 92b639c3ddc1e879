"""Opens the teacup's components with the chosen engine: six, and those of the optional ones that are there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chashka
from chashka.diffusion import Denoiser, Flow, NoiseSchedule, Table
from chashka.diffusion.samplers import ddpm
from chashka.engines import Graph, GraphNetwork, open_engine
from chashka.errors import WeightsError
from chashka.families.kandinsky.options import OWN_SAMPLER
from chashka.families.kandinsky.picture import PictureEncoder
from chashka.families.kandinsky.text import BLOCK, JoinedText
from chashka.families.kandinsky.upscaler import Upscaler
from chashka.families.latents import LatentCodec, by_mapping, stored_preview
from chashka.prompts.vocabulary import Vocabulary

if TYPE_CHECKING:
    from chashka.families.family import Bundle, EngineChoice, Preset

COMPONENTS = ("encoder", "decoder", "text_contrastive", "text_t5", "text_head", "unet")
PICTURE = "picture"
"""The component that a model may lack: it then draws from text, and says so where a picture is to be varied or mixed."""
UPSCALER = "upscaler"
"""Another one that it may lack; chashka upscale needs it, and nothing else opens it."""
VOCABULARY = Path(chashka.__file__).parent / "teacup" / "vocabulary.tsv"
"""Every teacup reads the same words; a folder of exported components may bring others in a file of this name."""


def open_teacup(preset: Preset, choice: EngineChoice) -> Bundle:
    """Components, vocabulary and schedule of a teacup. Raises WeightsError for files that do not belong together."""
    from chashka.families.family import Bundle
    from chashka.families.kandinsky import FAMILY
    from chashka.families.kandinsky.steering import denoise

    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    graphs = {name: engine.open(preset.place, name) for name in COMPONENTS}
    encoder, decoder, unet = graphs["encoder"], graphs["decoder"], graphs["unet"]
    scales = {name: _stored(graphs[name], "latent_scale", preset.place) for name in ("encoder", "decoder")}
    if scales["encoder"] != scales["decoder"]:
        raise WeightsError(
            f"{preset.place}: encoder and decoder have different latent scales, {scales['encoder']} and "
            f"{scales['decoder']}: they are not of one release; install chashka again"
        )
    schedule = stored_schedule(json.loads(_stored(unet, "schedule", preset.place)), preset.place)
    prediction = _stored(unet, "prediction", preset.place)
    channels = int(json.loads(_stored(decoder, "config", preset.place))["z_channels"])
    masked = _takes_mask(unet, channels, preset.place)
    contrastive, t5, head = (by_mapping(graphs[name]) for name in ("text_contrastive", "text_t5", "text_head"))
    picture = PictureEncoder(by_mapping(engine.open(preset.place, PICTURE))) if _has(preset, PICTURE) else None
    upscaler = Upscaler(lambda: engine.open(preset.place, UPSCALER)) if _has(preset, UPSCALER) else None
    own = preset.place / VOCABULARY.name
    vocabulary = Vocabulary.load(own if own.is_file() else VOCABULARY)
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(GraphNetwork(unet), schedule, prediction, data_std=float(unet.metadata.get("data_std", 1.0))),
        codec=LatentCodec(
            encoder,
            decoder,
            float(scales["encoder"]),
            channels,
            stored_preview(decoder.metadata, channels),
        ),
        text=JoinedText(vocabulary, contrastive, t5, head, int(graphs["text_head"].metadata.get("text_block", BLOCK))),
        denoise=denoise,
        defaults=json.loads(_stored(unet, "defaults", preset.place)),
        fast=json.loads(unet.metadata.get("fast", "{}")),
        weakened="keep" in unet.inputs,
        engine=engine.name,
        masked=masked,
        picture=picture,
        upscaler=upscaler,
        samplers={OWN_SAMPLER: ddpm},
    )


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


def _has(preset: Preset, name: str) -> bool:
    """Whether any file of an optional component is there: of half a one opening it says what is missing."""
    return any((preset.place / f"{name}{suffix}").is_file() for suffix in (".safetensors", ".xml"))


def _takes_mask(unet: Graph, channels: int, where: Path) -> bool:
    """Whether the network takes the mask and the masked latents beside x, told by its input channels."""
    given = int(json.loads(_stored(unet, "config", where))["in_channels"])
    if given not in (channels, 2 * channels + 1):
        raise WeightsError(
            f"{where}: unet takes {given} channels, the decoder {channels}; expected {channels}, or {2 * channels + 1} "
            "with a mask: they are not of one release"
        )
    return given != channels


def _stored(graph: Graph, key: str, where: Path) -> str:
    value = graph.metadata.get(key)
    if value is None:
        raise WeightsError(f"{where}: {graph.name} says nothing about its {key}; export it again with chashka export")
    return value
