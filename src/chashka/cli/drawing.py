"""What the commands that draw share: their options, and the way from what was said to pictures."""

from __future__ import annotations

import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chashka.cli.delivering import Wish, deliver
from chashka.cli.places import cache_dir, models_dir
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.adapters import Adapters
    from chashka.families import Bundle
    from chashka.request import Inputs, Picture, Request

FILE = click.Path(path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
Command = TypeVar("Command", bound=Callable[..., Any])

WHICH = [
    click.option("-n", "n", type=int, default=1, show_default=True, help="How many pictures."),
    click.option("--seed", type=int, help="Same seed, same picture. Default: a random one, which is printed."),
    click.option("--first", type=int, default=0, show_default=True, help="Number of the first picture of the seed."),
]
HOW = [
    click.option("--fast", is_flag=True, help="A draft: the model's quick steps, guidance and sampler."),
    click.option("--steps", type=int, help="Sampling steps, 1 to 1000. Default: the model's."),
    click.option(
        "--guidance", "guidance_scale", type=float, help="How strictly to follow the prompt, 0 to 50; 1: freely."
    ),
    click.option(
        "--sampler",
        help="Sampler, AUTOMATIC1111's names such as 'DPM++ 2M Karras' too; a wrong name lists those that exist. Default: the "
        "model's.",
    ),
    click.option("--spacing", help="How noise levels are spaced; a wrong name lists those that exist."),
    click.option("--negative", "negative_prompt", default="", help="What to keep away from."),
]
SIZE = [
    click.option(
        "--size", help="WIDTHxHEIGHT of the result in pixels, 64 to 2048. Default: the model's, or the picture's."
    )
]
MODEL = [
    click.option(
        "--model",
        default=None,
        help="A name (chashka models) or ./FOLDER of an exported or published model.  [default: the one in the package]",
    ),
    click.option(
        "--models",
        type=FOLDER,
        envvar="CHASHKA_MODELS",
        show_envvar=True,
        help="Where published models are kept, each in a folder of its name.",
    ),
    click.option("--engine", type=click.Choice(["auto", "openvino", "torch"]), default="auto", show_default=True),
    click.option("--device", help="The engine's name of a device, such as CPU, GPU or cuda."),
    click.option(
        "--precision", help="Numbers that the engine computes with, such as f32 or bf16. Default: the engine's."
    ),
]
ADAPTERS = [
    click.option(
        "--lora",
        "loras",
        type=(str, float),
        multiple=True,
        metavar="NAME WEIGHT",
        help="A LoRA, a file or a name in the folder loras of --models, and how much of it; repeatable. <lora:NAME:WEIGHT> in the "
        "prompt does the same.",
    ),
    click.option(
        "--embedding",
        "embeddings",
        multiple=True,
        metavar="NAME",
        help="Textual inversion: a file, or a name in the folder embeddings of --models; repeatable. Its name is a word of the "
        "prompt; words of the prompt that name a file there are found by themselves.",
    ),
    click.option(
        "--vae",
        metavar="NAME",
        help="Another autoencoder than the checkpoint's own: a file, ./FOLDER, or a name in the folder vaes of --models.",
    ),
    click.option("--strict", is_flag=True, help="A LoRA named in a prompt that loads nothing is an error, not a note."),
]
OUT = [
    click.option(
        "--out",
        type=FILE,
        default=Path(),
        help="A file (.png, .jpg, .webp, .svg; replaced if it exists), or a folder, where nothing is ever replaced."
        "  [default: .]",
    ),
]
SVG = click.option("--svg", is_flag=True, help="Write each picture as curves too, traced; needs the extra [svg].")
PRIVACY = click.option(
    "--privacy",
    type=click.Choice(["full", "provenance", "none"]),
    default="full",
    show_default=True,
    help="What files say: everything; that a model made them, with which program; or nothing, in their names neither.",
)
REPORT = [click.option("--json", "as_json", is_flag=True, help="Print what was done as one JSON object.")]
CHOICES = [
    click.option(
        "--choices",
        type=click.Choice(["random", "all"]),
        help="Choose among {a|b} and the lines of __NAME__ in the prompt and the negative prompt: for every picture by the seed, "
        "or all of them in turn.",
    ),
    click.option("--wildcards", type=FOLDER, help="Folder of the files NAME.txt that __NAME__ stands for."),
]
REST = [
    click.option(
        "--background", default="transparent", show_default=True, help="transparent, a colour name, or #rrggbb."
    ),
    click.option(
        "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="A field of the model's own; repeatable."
    ),
    *MODEL,
    *ADAPTERS,
    *OUT,
    SVG,
    click.option("--grid", is_flag=True, help="Write all pictures on one sheet too."),
    PRIVACY,
    *REPORT,
]


def options(*groups: list[Callable[[Any], Any]]) -> Callable[[Command], Command]:
    """The options of some groups, in this order."""

    def add(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return add


def perform(given: dict[str, Any], inputs: Callable[[], Inputs | None], about: str | None = None) -> None:
    """Check the request, read the pictures, load the model, draw, write, report.

    given: the shared options' values, and fields of the request. about: what files are named after if not the prompt.
    """
    from chashka import families
    from chashka.adapters import Wanted, alike, vae
    from chashka.generate.modes import chosen, mixable, wanted
    from chashka.prompts import policy
    from chashka.prompts.wildcards import files_in

    started = time.perf_counter()
    fields = dict(given)
    model, engine, device, precision = (fields.pop(name) for name in ("model", "engine", "device", "precision"))
    models = models_dir(fields.pop("models"))
    kept = {name: fields.pop(name) for name in ("out", "svg", "grid", "privacy", "as_json")}
    settings = fields.pop("settings")
    name = model or families.DEFAULT
    size = size_of(fields.pop("size", None))
    choices, words = fields.pop("choices", None), fields.pop("wildcards", None)
    adapted = Wanted(fields.pop("loras"), fields.pop("embeddings"), models, fields.pop("strict"))
    autoencoder = vae(fields.pop("vae"), models)
    if "mix" in fields:
        mixable(families.options(name, models), name)
    request = _request(families.options(name, models), {**fields, **size, **_settings(settings)})
    requests = [request] if choices is None else chosen(request, choices == "all", files_in(words))
    policy.check(text for one in (request, *requests) for text in wanted(one))
    wish = Wish.of(kept)
    read = inputs()
    takes = families.find(name, models)[1].adapters
    groups = alike([adapted.of(one.prompt, one.negative_prompt, takes, name) for one in requests])
    running = {"engine": engine, "device": device, "precision": precision, "cache_dir": cache_dir()}
    opening = partial(families.load, name, models=models, vae=autoencoder, **running)
    bundle, pictures, seconds = drawn(opening, groups, requests, read)
    deliver(bundle, pictures, wish, about, started, seconds)


def drawn(
    opening: Callable[..., Bundle],
    groups: Mapping[Adapters, Sequence[int]],
    requests: Sequence[Request],
    read: Inputs | None,
) -> tuple[Bundle, list[Picture], float]:
    """(the model as it was opened last, all pictures in the order of the requests, seconds of drawing alone)."""
    from chashka.generate import draw as run

    done: dict[int, list[Picture]] = {}
    seconds, bundle = 0.0, None
    for loras, embeddings in groups:
        bundle = None  # never two models at once
        bundle = opening(loras=list(loras), embeddings=list(embeddings))
        began = time.perf_counter()
        with _Bar() as bar:
            done |= {place: run(bundle, requests[place], read, bar.step) for place in groups[loras, embeddings]}
        seconds += time.perf_counter() - began
    assert bundle is not None
    return bundle, [picture for place in range(len(requests)) for picture in done[place]], seconds


class _Bar:
    """A progress bar on stderr, made at the first step, if stderr is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, progress: Any) -> None:
        if self._bar is None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=progress.total, unit="step", file=sys.stderr, leave=False, dynamic_ncols=True)
        if self._bar is not None:
            self._bar.update(progress.done - self._bar.n)


def _request(options: type[Request], fields: dict[str, Any]) -> Request:
    """The checked request; seeds are chosen here if none were given, so that they are known and kept."""
    said = {name: value for name, value in fields.items() if value is not None}
    said.setdefault("seed", secrets.randbelow(2**32))
    if said.get("subseed_strength"):
        said.setdefault("subseed", secrets.randbelow(2**32))
    return options(**said)


def size_of(text: str | None) -> dict[str, int]:
    """'512x768' (or with ×, or the Cyrillic х, which looks the same), or '512' for a square."""
    if text is None:
        return {}
    found = re.fullmatch(r"\s*(\d{1,6})(?:\s*[xX×хХ*]\s*(\d{1,6}))?\s*", text)
    if found is None:
        raise InputError(f"size: {text[:40]!r} is not possible; allowed: WIDTHxHEIGHT in pixels, such as 256x256")
    width = int(found.group(1))
    return {"width": width, "height": int(found.group(2) or width)}


def _settings(pairs: tuple[str, ...]) -> dict[str, str]:
    fields = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(f"set: {pair[:40]!r} is not possible; allowed: FIELD=VALUE, such as eta=0.5")
        fields[name.strip().replace("-", "_")] = value.strip()
    return fields
