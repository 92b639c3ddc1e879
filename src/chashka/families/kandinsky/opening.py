"""Opens the teacup's components with the chosen engine: six, and those of the optional ones that are there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chashka.diffusion import Denoiser
from chashka.diffusion.samplers import ddpm
from chashka.engines import GraphNetwork, open_engine
from chashka.families.kandinsky.options import OWN_SAMPLER
from chashka.families.kandinsky.picture import PictureEncoder
from chashka.families.kandinsky.text import JoinedText
from chashka.families.latents import by_mapping
from chashka.families.teacups import (
    BLOCK,
    CODEC,
    has,
    open_codec,
    open_draft,
    open_upscaler,
    stored,
    stored_schedule,
    takes_mask,
    vocabulary,
)

if TYPE_CHECKING:
    from chashka.families.family import Bundle, EngineChoice, Preset

COMPONENTS = (*CODEC, "text_contrastive", "text_t5", "text_head", "unet")
PICTURE = "picture"
"""The component that a model may lack: it then draws from text, and says so where a picture is to be varied or mixed."""


def open_teacup(preset: Preset, choice: EngineChoice) -> Bundle:
    """Components, vocabulary and schedule of a teacup. Raises WeightsError for files that do not belong together."""
    from chashka.families.family import Bundle
    from chashka.families.kandinsky import FAMILY
    from chashka.families.kandinsky.steering import denoise

    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    graphs = {name: engine.open(preset.place, name) for name in COMPONENTS if name not in CODEC}
    unet, codec = graphs["unet"], open_codec(engine, preset.place)
    schedule = stored_schedule(json.loads(stored(unet, "schedule", preset.place)), preset.place)
    prediction = stored(unet, "prediction", preset.place)
    contrastive, t5, head = (by_mapping(graphs[name]) for name in ("text_contrastive", "text_t5", "text_head"))
    picture = PictureEncoder(by_mapping(engine.open(preset.place, PICTURE))) if has(preset, PICTURE) else None
    draft, fast = open_draft(engine, preset, unet)
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(
            GraphNetwork(unet, draft), schedule, prediction, data_std=float(unet.metadata.get("data_std", 1.0))
        ),
        codec=codec,
        text=JoinedText(
            vocabulary(preset.place), contrastive, t5, head, int(graphs["text_head"].metadata.get("text_block", BLOCK))
        ),
        denoise=denoise,
        defaults=json.loads(stored(unet, "defaults", preset.place)),
        fast=fast,
        weakened="keep" in unet.inputs,
        engine=engine.name,
        masked=takes_mask(unet, codec.channels, preset.place),
        picture=picture,
        upscaler=open_upscaler(engine, preset),
        samplers={OWN_SAMPLER: ddpm},
        weights=preset.place / "unet.safetensors",
    )
