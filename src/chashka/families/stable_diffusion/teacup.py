"""Opens a teacup of this family: the shared autoencoder and contrastive text encoder, and a U-Net that reads its tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chashka.checkpoints import read_metadata
from chashka.diffusion import Array, Denoiser
from chashka.engines import Graph, GraphNetwork, open_engine
from chashka.families.family import Bundle, Preset
from chashka.families.stable_diffusion.options import Options
from chashka.families.stable_diffusion.sampling import conventions, denoise
from chashka.families.stable_diffusion.text import ChunkedText, Reader, Tower
from chashka.families.teacups import (
    AREA,
    BLOCK,
    CODEC,
    FAST,
    MULTIPLE,
    UPSCALER,
    open_codec,
    open_draft,
    open_upscaler,
    stored,
    stored_schedule,
    takes_mask,
    vocabulary,
)
from chashka.prompts.vocabulary import BOS, EOS, Vocabulary

if TYPE_CHECKING:
    from chashka.families.family import EngineChoice

UNET = ("unet.xml", "unet.safetensors")
SHARED = tuple(f"{part}.{suffix}" for part in (*CODEC, "text_contrastive") for suffix in ("xml", "safetensors"))
FILES = (*UNET, *SHARED)
ENLARGING = tuple(f"{UPSCALER}.{suffix}" for suffix in ("xml", "safetensors"))
OPTIONAL = (*ENLARGING, f"{FAST}.safetensors")
MOST = 2**31
"""Pieces of a text that is cut later, into chunks."""


def recognise(folder: Path) -> Preset | None:
    """A folder of exported components whose U-Net is this family's."""
    if not all((folder / name).is_file() for name in FILES):
        return None
    if json.loads(read_metadata(folder / "unet.safetensors").get("config", "{}")).get("attention") != "transformer":
        return None
    summary, licence = "a folder of exported components", "as said in the files"
    return Preset(folder.resolve().name, folder, FILES, AREA, MULTIPLE, summary, licence, open_teacup, OPTIONAL)


def open_teacup(preset: Preset, choice: EngineChoice) -> Bundle:
    """Components, vocabulary and schedule. Raises WeightsError for files that do not belong together."""
    from chashka.families.stable_diffusion import FAMILY

    folder = preset.place
    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    unet, text = (engine.open(preset.home(part), part) for part in ("unet", "text_contrastive"))
    codec = open_codec(engine, preset.home("decoder"))
    schedule = stored_schedule(json.loads(stored(unet, "schedule", folder)), folder)
    data_std = float(unet.metadata.get("data_std", 1.0))
    draft, fast = open_draft(engine, preset, unet)
    block = int(unet.metadata.get("text_block", BLOCK))
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(GraphNetwork(unet, draft), schedule, stored(unet, "prediction", folder), data_std=data_std),
        codec=codec,
        text=ChunkedText(padded_tower(text, block), reader(vocabulary(folder), block), whole="added" in unet.inputs),
        denoise=denoise,
        defaults=json.loads(stored(unet, "defaults", folder)),
        fast=fast,
        engine=engine.name,
        masked=takes_mask(unet, codec.channels, folder),
        upscaler=open_upscaler(engine, preset),
        conventions=conventions,
        notes=_notes,
        weights=folder / "unet.safetensors",
    )


def _notes(request: Options) -> Sequence[str]:
    """Its text encoder is read at its end alone."""
    if request.clip_skip is None:
        return ()
    return ("clip_skip has no effect: the text encoder of this model has no layers to choose from",)


def reader(words: Vocabulary, block: int) -> Reader:
    """The teacups' words in chunks that fill ``block`` tokens together with their two marks."""
    return Reader(lambda text: words.encode(text, MOST).ids[1:-1], block - 2, words.word(",")[-1])


def padded_tower(graph: Graph, block: int) -> Tower:
    """The contrastive encoder: chunks between their marks, followed by tokens of zeros up to ``block``, as in training."""

    def tower(ids: Sequence[int]) -> tuple[Array, Array]:
        marked, mask = np.zeros((1, block), np.int64), np.zeros((1, block), np.float32)
        marked[0, : len(ids) + 2] = [BOS, *ids, EOS]
        mask[0, : len(ids) + 2] = 1
        out = graph(ids=marked, mask=mask)
        return out["tokens"][0], out["pooled"][0]

    return tower
