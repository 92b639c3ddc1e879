"""Opens checkpoints of Stable Diffusion: a single file, or a folder of diffusers (docs/stable-diffusion.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chashka.checkpoints import diffusers_names, embedding, layout, lora
from chashka.checkpoints.configurations import checked, read_json
from chashka.checkpoints.torch_file import SUFFIXES, read_checkpoint
from chashka.diffusion import Denoiser, Table
from chashka.engines import Blueprint, Engine, GraphNetwork, open_engine
from chashka.errors import WeightsError
from chashka.families.family import Bundle, Preset
from chashka.families.latents import LatentCodec
from chashka.families.stable_diffusion import teacup
from chashka.families.stable_diffusion.layout import HEADS, UNET, Parts, assembled, parts
from chashka.families.stable_diffusion.sampling import conventions, denoise
from chashka.families.stable_diffusion.text import CLIP, ChunkedText, Words, clip_tower
from chashka.nets.configs import UNetConfig
from chashka.prompts import clip_words

if TYPE_CHECKING:
    from chashka.families.family import EngineChoice

SCALE = 0.18215
"""Latents are the autoencoder's times this number."""
DEFAULTS = {"steps": 20, "guidance_scale": 7.5, "sampler": "dpmpp_2m"}
FAST = {"steps": 10, "spacing": "ays", "guidance_stop": 0.7}
"""A fitted schedule (arXiv 2404.14507), guidance in the first steps alone (arXiv 2404.07724): 17 rows through the U-Net, not 40."""
INDEX = "model_index.json"
TABLE = "token_embedding.weight"
KINDS = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
SOURCE = "the publisher's"


def recognise(path: Path) -> Preset | None:
    """A checkpoint's file, or a folder with diffusers' index of a Stable Diffusion. Its parts are looked at when it is opened."""
    if path.is_dir():
        return _recognised_folder(path) or teacup.recognise(path)
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return None
    if path.suffix.lower() == ".safetensors" and not any(name.startswith(UNET) for name in layout(path)[0]):
        # a torch file is opened to be looked at; of safetensors the header is enough
        parts(dict.fromkeys(layout(path)[0]), path)
    return _preset(path.stem, path.parent, path.name, partial(open_file, file=path.name))


def _recognised_folder(path: Path) -> Preset | None:
    index = path / INDEX
    if not index.is_file():
        return None
    kind = str(read_json(index).get("_class_name", ""))
    if not kind.startswith("StableDiffusion") or "XL" in kind or "3" in kind:
        raise WeightsError(
            f"{path} is a {kind or 'pipeline without a name'} of diffusers; supported are Stable Diffusion 1.x and 2.x"
        )
    return _preset(path.resolve().name, path, INDEX, open_folder)


def _preset(name: str, folder: Path, file: str, open: Any) -> Preset:
    return Preset(
        name, folder, (file,), 512 * 512, 64, "a published checkpoint", SOURCE, open, free=True, adapters=True
    )


def open_file(preset: Preset, choice: EngineChoice, file: str, heads: int = HEADS) -> Bundle:
    """A single file. heads: of 1.x. Raises WeightsError, MissingExtraError, EngineError."""
    source = preset.place / file
    found = parts(read_checkpoint(source), source, heads)
    return _bundle(preset, choice, found, dict.fromkeys(found.weights, source), "v" if _says_v(source) else "eps")


def open_folder(preset: Preset, choice: EngineChoice, heads: int = HEADS) -> Bundle:
    """A folder of diffusers."""
    folder = preset.place
    files = {
        "unet": _weights(folder / "unet", "diffusion_pytorch_model"),
        "autoencoder": _weights(folder / "vae", "diffusion_pytorch_model"),
        "text": _weights(folder / "text_encoder", "model", "pytorch_model"),
    }
    unet, vae, text = (read_checkpoint(file) for file in files.values())
    tower = diffusers_names.clip_text({n: v for n, v in text.items() if not n.endswith("position_ids")})
    levels = len(read_json(folder / "vae" / "config.json").get("block_out_channels", ()))
    names = _original(unet, read_json(folder / "unet" / "config.json"), files["unet"])
    found = assembled(names, diffusers_names.autoencoder(levels, vae), tower, folder, heads=heads, penultimate=False)
    said = read_json(folder / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    if said not in ("epsilon", "v_prediction"):
        raise WeightsError(
            f"{folder}: its scheduler says prediction_type {said!r}; supported are epsilon and v_prediction"
        )
    return _bundle(preset, choice, found, files, "eps" if said == "epsilon" else "v")


def _original(unet: dict[str, Any], said: dict[str, Any], source: Path) -> dict[str, Any]:
    """The U-Net by its original names; ``said`` is its configuration, of which the levels count."""
    with checked(source.parent):
        widths = [int(width) for width in said["block_out_channels"]]
        attended = tuple(i for i, kind in enumerate(said["down_block_types"]) if "CrossAttn" in kind)
        shape = UNetConfig(
            int(said["in_channels"]),
            int(said["out_channels"]),
            widths[0],
            tuple(width / widths[0] for width in widths),
            int(said["layers_per_block"]),
            attended,
            "transformer",
            1,
            context=int(said["cross_attention_dim"]),
        )
    renamed = diffusers_names.unet(shape, unet)
    if len(renamed) != len(unet):
        left = len(unet) - len(renamed)
        raise WeightsError(f"{source}: {left} weights have no place in a U-Net of Stable Diffusion 1.x or 2.x")
    return renamed


def _bundle(preset: Preset, choice: EngineChoice, found: Parts, sources: Mapping[str, Path], prediction: str) -> Bundle:
    from chashka.families.stable_diffusion import FAMILY

    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    for file, weight in choice.loras:
        found = changed(found, file, weight)
    found, words = with_words(found, choice.embeddings)
    variants = {
        "unet": _variant(choice.loras),
        "text": _variant([*choice.loras, *((e, 1.0) for e in choice.embeddings)]),
    }
    unet, encoder, decoder, tower = _graphs(engine, found, sources, variants)
    cfg = found.autoencoder
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(GraphNetwork(unet), Table.scaled_linear(), prediction),
        codec=LatentCodec(encoder, decoder, SCALE, cfg.z_channels, factor=cfg.factor, alpha=False),
        text=ChunkedText(clip_tower(tower, clip_words.END if found.version == "1" else 0), replace(CLIP, words=words)),
        denoise=denoise,
        defaults=DEFAULTS,
        fast=FAST,
        engine=engine.name,
        masked=found.inpainting,
        blanks=found.inpainting,
        conventions=conventions,
    )


def changed(found: Parts, file: Path, weight: float) -> Parts:
    """The parts with a LoRA added to U-Net and text tower. Raises WeightsError for one of another model."""
    names = {
        "unet": diffusers_names.unet_modules(found.unet),
        "text": diffusers_names.clip_text_modules(found.text.layers),
    }
    parts = {part: found.weights[part] for part in names}
    return replace(found, weights=found.weights | lora.merged(lora.read(file), weight, parts, names, file))


def with_words(found: Parts, files: Sequence[Path]) -> tuple[Parts, Words]:
    """The parts with embeddings behind the text tower's own words. Of files that mean the same word the last counts."""
    text, own = found.text, found.weights["text"]
    table = [np.asarray(own[TABLE], np.float32)]
    words: dict[tuple[int, ...], tuple[int, ...]] = {}
    end = text.vocab
    for file in files:
        names, vectors = embedding.read(file, text.width)
        ids = tuple(range(end, end + len(vectors)))
        words |= {tuple(clip_words.encode(name)): ids for name in names}
        table.append(vectors)
        end += len(vectors)
    if not files:
        return found, words
    weights = found.weights | {"text": own | {TABLE: np.concatenate(table)}}
    return replace(found, text=replace(text, vocab=end, added=text.added + end - text.vocab), weights=weights), words


def _variant(loras: Sequence[tuple[Path, float]]) -> str:
    """Which changes, in which order, of files as they are now."""
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns, weight) for file, weight in loras]
    return repr(states) if states else ""


def _graphs(engine: Engine, found: Parts, sources: Mapping[str, Path], variants: Mapping[str, str]) -> list[Any]:
    """U-Net, encoder, decoder, text tower. sources: each part's file. variants: of the parts that adapters change."""
    unet, cfg, text = found.unet, found.autoencoder, found.text
    side = 4 * cfg.factor
    pixels, latents = {"pixels": (1, cfg.in_channels, side, side)}, {"latents": (1, cfg.z_channels, 4, 4)}
    inputs = {"x": (2, unet.in_channels, 16, 16), "t": (2,), "tokens": (2, text.context, unet.context or 0)}
    weights = found.weights
    halves = weights["autoencoder"]
    first = {name: value for name, value in halves.items() if name.startswith(("encoder.", "quant_conv."))}
    rest = {name: value for name, value in halves.items() if name not in first}
    ids = {"ids": (2, text.context)}
    built = (
        ("unet", Blueprint("unet", "nets.unet:UNet", unet, inputs, ("out",), variants["unet"]), weights["unet"]),
        ("autoencoder", Blueprint("encoder", "nets.autoencoder:EncoderKL", cfg, pixels, ("moments",)), first),
        ("autoencoder", Blueprint("decoder", "nets.autoencoder:DecoderKL", cfg, latents, ("pixels",)), rest),
        (
            "text",
            Blueprint("text", "nets.clip:TextTower", text, ids, ("tokens", "pooled"), variants["text"]),
            weights["text"],
        ),
    )
    return [engine.build(blueprint, tensors, sources[part]) for part, blueprint, tensors in built]


def _says_v(source: Path) -> bool:
    """Whether a configuration beside the file says that it predicts v, as Stability's do."""
    beside = source.with_suffix(".yaml")
    try:
        return bool(re.search(r"^\s*parameterization:\s*[\"']?v[\"']?\s*$", beside.read_text("utf-8"), re.MULTILINE))
    except (OSError, UnicodeDecodeError):
        return False


def _weights(folder: Path, *stems: str) -> Path:
    names = [f"{stem}{kind}" for stem in stems for kind in KINDS]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder}: {' or '.join(names[:2])} not found")
