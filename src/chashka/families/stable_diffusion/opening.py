"""Opens checkpoints of Stable Diffusion: a single file, or a folder of diffusers (docs/stable-diffusion.md)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chashka.checkpoints import content, diffusers_names, embedding, layout, lora
from chashka.checkpoints.bfloat16 import computable
from chashka.checkpoints.torch_file import SUFFIXES, read_checkpoint
from chashka.diffusion import Denoiser, Table
from chashka.engines import Blueprint, Engine, Graph, GraphNetwork, open_engine
from chashka.engines.sums import content_of, state_of, sum_of
from chashka.errors import InputError, WeightsError
from chashka.families.family import Bundle, Preset
from chashka.families.latents import LatentCodec
from chashka.families.stable_diffusion import autoencoder, folder, teacup
from chashka.families.stable_diffusion.layout import (
    HEADS,
    V_PREDICTION,
    Opened,
    Parts,
    averages,
    check_kind,
    parts,
    second,
)
from chashka.families.stable_diffusion.options import Options
from chashka.families.stable_diffusion.sampling import conventions, denoise
from chashka.families.stable_diffusion.text import CLIP, ChunkedText, Layers, Tower, clip_tower
from chashka.families.stable_diffusion.tokenizer import Tokenizer
from chashka.nets.configs import CLIPTextConfig
from chashka.prompts.tags import Weight
from chashka.request import Added

if TYPE_CHECKING:
    from chashka.families.family import EngineChoice

DEFAULTS = {"steps": 20, "guidance_scale": 7.5, "sampler": "dpmpp_2m"}
FAST = {"steps": 10, "spacing": "ays", "guidance_stop": 0.7}
"""A fitted schedule (arXiv 2404.14507), guidance in the first steps alone (arXiv 2404.07724): 17 rows through the U-Net, not 40."""
STEP = 8
"""Pixels of one latent: a picture may have any number of them, as in other programs."""
TABLE = "token_embedding.weight"
SOURCE = "the publisher's"
UNSAID = (
    "keys cannot tell whether a network of 2.x predicts the noise or v; it is taken for the noise. If pictures are wrong, set "
    "prediction=v (--set prediction=v), or put its .yaml beside the file; prediction=eps says that it is the noise"
)
BOTH = (
    "the file holds its U-Net twice, as it was learnt and averaged (EMA); drawn with is the first. A .yaml beside the file with "
    "the line use_ema: true chooses the averages, use_ema: false leaves it so"
)


def recognise(path: Path) -> Preset | None:
    """A checkpoint's file, or a folder with diffusers' index of a Stable Diffusion. Its parts are looked at when it is opened."""
    if path.is_dir():
        return _recognised_folder(path) or teacup.recognise(path)
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return None
    look = partial(_looked, path)
    if not content.is_torch(path):
        look()  # of safetensors the header is enough; a torch file is opened when somebody wants to be sure
    return _preset(path.stem, path.parent, path.name, partial(open_file, file=path.name), look)


def _looked(path: Path) -> Sequence[str]:
    """Raises WeightsError for what is no checkpoint of this family; notes for people."""
    tensors = layout(path)[0] if content.is_safetensors(path) else read_checkpoint(path)
    check_kind(tensors, path)
    unsaid = second(tensors) and said_prediction(tensors, path) is None
    both = averages(tensors) and said_averaged(path) is None
    return tuple(note for note, told in ((UNSAID, unsaid), (BOTH, both)) if told)


def _recognised_folder(path: Path) -> Preset | None:
    if not (path / folder.INDEX).is_file():
        return None
    folder.check(path)
    return _preset(path.resolve().name, path, folder.INDEX, open_folder, partial(folder.look, path))


def _preset(
    name: str,
    folder: Path,
    file: str,
    open: Callable[[Preset, EngineChoice], Bundle],
    look: Callable[[], Sequence[str]] = lambda: (),
) -> Preset:
    summary = "a published checkpoint"
    return Preset(name, folder, (file,), 512 * 512, 64, summary, SOURCE, open, free=STEP, adapters=True, look=look)


def open_file(preset: Preset, choice: EngineChoice, file: str, heads: int = HEADS) -> Bundle:
    """A single file. heads: of 1.x. Raises WeightsError, MissingExtraError, EngineError."""
    return _bundle(preset, choice, partial(_read_file, preset.place / file, heads))


def _read_file(source: Path, heads: int) -> Opened:
    tensors = read_checkpoint(source)
    prediction = said_prediction(tensors, source)
    instead = averages(tensors) if said_averaged(source) else {}
    found = parts(tensors | {name: tensors[average] for name, average in instead.items()}, source, heads)
    sources = dict.fromkeys(found.weights, source)
    return Opened(found, sources, prediction, averaged=bool(instead))


def open_folder(preset: Preset, choice: EngineChoice) -> Bundle:
    """A folder of diffusers. Raises WeightsError, MissingExtraError, EngineError."""
    return _bundle(preset, choice, partial(folder.read, preset.place))


def _bundle(preset: Preset, choice: EngineChoice, read: Callable[[], Opened]) -> Bundle:
    from chashka.families.stable_diffusion import FAMILY

    opened = read()
    if choice.vae is not None:
        opened = autoencoder.exchanged(opened, choice.vae)
    found, own = opened.parts, opened.tokenizer
    engine = open_engine(choice.engine, choice.device, choice.precision, choice.threads, choice.cache_dir)
    for file, weight in choice.loras:
        found = changed(found, file, weight)
    found, words = with_words(found, choice.embeddings, own.pairs.encode)
    variants = {
        "unet": ("averages " if opened.averaged else "")
        + _variant([(file, weight.unet) for file, weight in choice.loras], choice.cache_dir),
        "text": _variant(
            [*((file, weight.text) for file, weight in choice.loras), *((file, 1.0) for file in choice.embeddings)],
            choice.cache_dir,
        ),
    }
    unet, encoder, decoder, tower = _graphs(engine, found, opened.sources, variants)
    cfg = found.autoencoder
    heard = partial(_tower, own=own, version=found.version)
    source, again = opened.sources["text"], partial(_text_weights, read, choice)
    layers = _layers(engine, found.text, again, [source, *_files(choice)], variants["text"], heard, tower)
    reader = replace(CLIP, encode=own.pairs.encode, comma=own.pairs.ids.get(",</w>", -1), words={**own.added, **words})
    return Bundle(
        family=FAMILY,
        preset=preset,
        denoiser=Denoiser(GraphNetwork(unet), Table.scaled_linear(), opened.prediction or "eps"),
        codec=LatentCodec(encoder, decoder, opened.scale, cfg.z_channels, factor=cfg.factor, alpha=False),
        text=ChunkedText(heard(tower), reader, layers=layers),
        denoise=denoise,
        defaults=DEFAULTS,
        fast=FAST,
        engine=engine.name,
        masked=found.inpainting,
        blanks=found.inpainting,
        conventions=conventions,
        notes=partial(_notes, unsaid=opened.prediction is None and found.version == "2"),
        weights=opened.sources["unet"],
        added=_added(choice, opened.sources["autoencoder"]),
    )


def _added(choice: EngineChoice, autoencoder: Path) -> tuple[Added, ...]:
    """What is told of the choice in metadata. autoencoder: the file that its weights come from."""
    cache = choice.cache_dir
    loras = [Added("lora", file.stem, sum_of(file, cache), weight.unet, weight.text) for file, weight in choice.loras]
    words = [Added("embedding", file.stem, sum_of(file, cache)) for file in choice.embeddings]
    if choice.vae is None:
        return (*loras, *words)
    name = choice.vae.resolve().name if choice.vae.is_dir() else choice.vae.stem
    return (*loras, *words, Added("vae", name, sum_of(autoencoder, cache)))


def _notes(request: Options, unsaid: bool) -> Sequence[str]:
    """unsaid: nothing but the request can say what a network of 2.x predicts."""
    return (UNSAID,) if unsaid and request.prediction is None else ()


def _tower(graph: Graph, own: Tokenizer, version: str) -> Tower:
    """Texts are padded with what the tokenizer says; otherwise 1.x pads with the end mark, 2.x with 0."""
    usual = own.pairs.end if version == "1" else 0
    return clip_tower(graph, usual if own.pad is None else own.pad, (own.pairs.start, own.pairs.end))


def _layers(
    engine: Engine,
    text: CLIPTextConfig,
    weights: Callable[[], Mapping[str, Any]],
    sources: Sequence[Path],
    variant: str,
    heard: Callable[[Graph], Tower],
    usual: Graph,
) -> Layers:
    """The text tower at other layers than its ``usual`` one.

    weights: reads them once more, which costs nothing before another layer is asked for; a mapped file that is held for it would.
    sources: the files that they come from, the checkpoint's first, which have to be what they were.
    """
    before = [state_of(file) for file in sources]

    def at(clip_skip: int) -> Tower:
        if clip_skip > text.layers:
            raise InputError(
                f"clip_skip: {clip_skip} is not possible; the text encoder of this model has {text.layers} layers; "
                f"allowed: 1 to {text.layers}"
            )
        if clip_skip == text.skip_last + 1:
            return heard(usual)
        for file, state in zip(sources, before, strict=True):
            if state_of(file) != state:
                raise WeightsError(f"{file} was changed since the model was opened; open it again")
        blueprint = _text_of(replace(text, skip_last=clip_skip - 1), variant)
        return heard(engine.build(blueprint, weights(), sources[0]))

    return at


def _text_weights(read: Callable[[], Opened], choice: EngineChoice) -> Mapping[str, Any]:
    """The text tower's, with all changes."""
    opened = read()
    found = opened.parts
    for file, weight in choice.loras:
        found = changed(found, file, weight, ("text",))
    weights: Mapping[str, Any] = with_words(found, choice.embeddings, opened.tokenizer.pairs.encode)[0].weights["text"]
    return weights


def _files(choice: EngineChoice) -> list[Path]:
    """What changes the weights."""
    return [*(file for file, _ in choice.loras), *choice.embeddings]


def _text_of(cfg: CLIPTextConfig, variant: str) -> Blueprint:
    ids = {"ids": (2, cfg.context)}
    return Blueprint("text", "nets.clip:TextTower", cfg, ids, ("tokens", "pooled"), variant)


def changed(found: Parts, file: Path, weight: Weight, which: Sequence[str] = ("unet", "text")) -> Parts:
    """The parts with a LoRA added to U-Net and text tower, or to one of them. Raises WeightsError for one of another model."""
    names = {
        "unet": diffusers_names.unet_modules(found.unet),
        "text": diffusers_names.clip_text_modules(found.text.layers),
    }
    changes = [change for change in lora.read(file) if change.part in which]
    parts = {part: found.weights[part] for part in which}
    return replace(found, weights=found.weights | lora.merged(changes, weight._asdict(), parts, names, file))


def with_words(
    found: Parts, files: Sequence[Path], encode: Callable[[str], Sequence[int]]
) -> tuple[Parts, dict[tuple[int, ...], tuple[int, ...]]]:
    """The parts with embeddings behind the text tower's own words. Of files that mean the same word the last counts."""
    text, own = found.text, found.weights["text"]
    words: dict[tuple[int, ...], tuple[int, ...]] = {}
    if not files:
        return found, words
    table = [np.asarray(computable(own[TABLE]), np.float32)]
    end = text.vocab
    for file in files:
        names, vectors = embedding.read(file, text.width)
        ids = tuple(range(end, end + len(vectors)))
        words |= {tuple(encode(name)): ids for name in names}
        table.append(vectors)
        end += len(vectors)
    weights = found.weights | {"text": own | {TABLE: np.concatenate(table)}}
    return replace(found, text=replace(text, vocab=end, added=text.added + end - text.vocab), weights=weights), words


def _variant(changes: Sequence[tuple[Path, float]], cache_dir: Path | None) -> str:
    """Which changes, in which order, of files with the content that they have now."""
    return repr([(content_of(file, cache_dir), weight) for file, weight in changes]) if changes else ""


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
    built = (
        ("unet", Blueprint("unet", "nets.unet:UNet", unet, inputs, ("out",), variants["unet"]), weights["unet"]),
        ("autoencoder", Blueprint("encoder", "nets.autoencoder:EncoderKL", cfg, pixels, ("moments",)), first),
        ("autoencoder", Blueprint("decoder", "nets.autoencoder:DecoderKL", cfg, latents, ("pixels",)), rest),
        ("text", _text_of(text, variants["text"]), weights["text"]),
    )
    return [engine.build(blueprint, tensors, sources[part]) for part, blueprint, tensors in built]


def said_prediction(tensors: Mapping[str, Any], source: Path) -> str | None:
    """eps or v, as a key of the file or a configuration beside it (Stability's ``.yaml``) says; None where nothing does."""
    if V_PREDICTION in tensors:
        return "v"
    beside = _beside(source)
    if beside is None:
        return None
    said = re.search(r"^\s*parameterization:\s*[\"']?(eps|v)[\"']?\s*(#|$)", beside, re.MULTILINE)
    if said is not None:
        return said[1]
    # a whole configuration that says nothing of it means the usual, eps
    return "eps" if re.search(r"^\s*params:", beside, re.MULTILINE) else None


def said_averaged(source: Path) -> bool | None:
    """Whether a configuration beside a file says that its averages draw; None where it does not say."""
    said = re.search(r"^\s*use_ema:\s*(true|false)\b", _beside(source) or "", re.MULTILINE | re.IGNORECASE)
    return None if said is None else said[1].lower() == "true"


def _beside(source: Path) -> str | None:
    try:
        return source.with_suffix(".yaml").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
