"""Model families: the one table of them, and ``load``.

Adding a family is one package and one line of ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

from chashka.errors import InputError, UncalibratedError, WeightsError
from chashka.families.family import Bundle, Codec, EngineChoice, Family, Meter, Plan, Preset, TextEncoder
from chashka.prompts.tags import Weight
from chashka.request import Added, Request, shown

FAMILIES: dict[str, str] = {
    "kandinsky": "chashka.families.kandinsky:FAMILY",
    "stable_diffusion": "chashka.families.stable_diffusion:FAMILY",
}
"""Name → where its declaration is; imported when it is first asked for."""

DEFAULT = "kandinsky-teacup"
CHECKPOINTS = (".safetensors", ".ckpt")
"""Names that end so are files."""
ADAPTERS = ("loras", "embeddings", "vaes")
"""Folders among the models that hold none."""
MOST_OF_A_LORA = 10
"""The largest weight of a LoRA, either way."""

__all__ = [
    "DEFAULT",
    "FAMILIES",
    "Bundle",
    "Codec",
    "EngineChoice",
    "Family",
    "Meter",
    "Plan",
    "Preset",
    "TextEncoder",
    "Weight",
    "at",
    "family",
    "find",
    "is_autoencoder",
    "load",
    "located",
    "models",
    "options",
]


def family(name: str) -> Family:
    """The declaration of a family. Raises InputError that lists what exists."""
    if name not in FAMILIES:
        raise InputError(f"family {name!r} does not exist; use one of {', '.join(FAMILIES)}")
    module, _, attribute = FAMILIES[name].partition(":")
    found: Family = getattr(import_module(module), attribute)
    return found


def models() -> Iterator[tuple[str, Family, Preset]]:
    """(name, family, preset) of every model, for example ``kandinsky-teacup``."""
    for name in FAMILIES:
        declaration = family(name)
        for preset in declaration.presets.values():
            yield f"{name}-{preset.name}", declaration, preset


def find(model: str, folder: Path | None = None) -> tuple[Family, Preset]:
    """The family and the preset of a model's name, or of a file or folder that is one (``./my-model``, with a slash).

    folder: where models are kept; what lies there, a file or a folder with one in it, has its name. A preset that is not in the
    package has no folder before :func:`located` looked for it. Raises InputError that lists what exists, WeightsError for a
    folder that holds no model.
    """
    if "/" in model or "\\" in model or Path(model).suffix.lower() in CHECKPOINTS:
        return at(Path(model).expanduser())
    for name in FAMILIES:  # others are not imported for a model of one of them
        if model.startswith(f"{name}-") and model.removeprefix(f"{name}-") in family(name).presets:
            return family(name), family(name).presets[model.removeprefix(f"{name}-")]
    kept = None if folder is None else _kept(model, folder)
    if kept is None:
        known = [known for known, _, _ in models()]
        raise InputError(f"model {model[:60]!r} does not exist; use one of {', '.join([*known, *kept_names(folder)])}")
    declaration, preset = at(kept)
    return declaration, replace(preset, name=model)


def kept_names(folder: Path | None) -> list[str]:
    """Names of what lies in a folder of models, besides those that every folder may have."""
    if folder is None or not folder.is_dir():
        return []
    known = {name for name, _, _ in models()}
    names = {path.stem if path.is_file() else path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return sorted(name for name in names - known if _opens(_kept(name, folder)))


def _opens(path: Path | None) -> bool:
    """Whether it looks like a model."""
    try:
        return path is not None and at(path) is not None
    except (WeightsError, InputError):
        return False


def _kept(name: str, folder: Path) -> Path | None:
    """The file or folder of that name: of a folder with one checkpoint in it, that."""
    for suffix in CHECKPOINTS:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    place = folder / name
    if not name or name in ADAPTERS or not place.is_dir():
        return None
    there = sorted(place.iterdir())
    files = [path for path in there if path.suffix.lower() in CHECKPOINTS] or [p for p in there if _is_torch(p)]
    whole = len(files) == 1 and not (place / "model_index.json").is_file() and _by_files(place) is None
    return files[0] if whole else place


def _is_torch(path: Path) -> bool:
    """Whether it may be a checkpoint under another of torch's names, such as .pt."""
    from chashka.checkpoints.torch_file import SUFFIXES

    return path.suffix.lower() in SUFFIXES


def at(path: Path) -> tuple[Family, Preset]:
    """The model that a path is: what ``chashka export`` wrote, named by its folder, or a published checkpoint, file or folder.

    Raises WeightsError that says what the likeliest model lacks.
    """
    if not path.exists():
        raise WeightsError(
            f"model {str(path)!r}: there is no such file or folder; make one with chashka export, or leave --model out"
        )
    if path.is_dir():
        found = _by_files(path)
        if found is not None:
            return found
    for name in FAMILIES:
        declaration = family(name)
        preset = declaration.recognise(path)
        if preset is not None:
            return declaration, preset
    raise WeightsError(f"model {str(path)!r} is no {_likely(path)}, or leave --model out")


def _by_files(folder: Path) -> tuple[Family, Preset] | None:
    """The preset all of whose files are in the folder."""
    for _, declaration, preset in models():
        if not preset.shares and not preset.missing(folder):
            if preset.folder is None:
                return declaration, replace(preset, folder=folder)
            own = folder.resolve().name or preset.name
            return declaration, replace(preset, name=own, folder=folder, summary="exported components")
    return None


def _likely(path: Path) -> str:
    """What a path would have to be."""
    if path.is_file():
        return "checkpoint that chashka knows; give a .safetensors or .ckpt file of Stable Diffusion 1.x or 2.x"
    lacking = [(preset.missing(path), name, preset) for name, _, preset in models() if not preset.shares]
    missing, name, preset = min(lacking, key=lambda item: len(item[0]) / len(item[2].files))
    how = "write them with chashka export" if preset.folder is not None else "put them there"
    return f"folder of a model; for {name} it lacks {_some(missing)}; {how}"


def located(model: str, preset: Preset, folder: Path | None) -> Preset:
    """The preset with its folder: its own, or the first one in ``folder`` (where published models are kept) that has its files.

    Looked at: ``folder/MODEL``, the preset's other homes in it, and ``folder`` itself. Raises WeightsError that says which files
    go where.
    """
    if preset.folder is not None:
        return preset
    if folder is None:
        raise WeightsError(
            f"model {model!r} is not in the package: put {_some(list(preset.needed))} into one folder, and give the folder "
            f"as --model ./FOLDER, or the one above it, with the name {model}, as --models (or CHASHKA_MODELS)"
        )
    places = [folder / model, *(folder / home for home in preset.homes), folder]
    for place in places:
        if not preset.missing(place):
            return replace(preset, folder=place)
    closest = min(places, key=lambda place: len(preset.missing(place)))
    others = [
        name
        for name, _, other in models()
        if other.folder is None and not all(other.missing(place) for place in places)
    ]
    also = f" (there is {', '.join(others)})" if others else ""
    missing = preset.missing(closest)
    raise WeightsError(f"model {model!r}: not found in {closest}: {_some(missing)}{also}; put {_them(missing)} there")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def is_autoencoder(path: Path) -> bool:
    """Whether a file or folder is an autoencoder alone, for :func:`load`. Raises WeightsError for one that no model can have."""
    return any(family(name).autoencoder(path) for name in FAMILIES)


def options(model: str = DEFAULT, folder: Path | None = None) -> type[Request]:
    """The request class of a model, for checking a request before anything is loaded."""
    return find(model, folder)[0].options


def load(
    model: str = DEFAULT,
    *,
    engine: str = "auto",
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    cache_dir: Path | None = None,
    models: Path | None = None,
    loras: Sequence[tuple[Path, float | Weight]] = (),
    embeddings: Sequence[Path] = (),
    vae: Path | None = None,
) -> Bundle:
    """Open a model: a name, or a folder of exported components or of a published checkpoint (``./my-model``).

    engine: auto, openvino or torch. cache_dir: where the engine keeps what it compiled, if anywhere. models: where published
    models are kept, each in a folder of its name; nothing is downloaded. loras: (file, how much of it) of changes that are added to
    the weights, in this order; a :class:`Weight` says it of U-Net and text encoder apart. embeddings: files of textual inversion;
    their names are words of prompts then. vae: an autoencoder in place of the model's own: its file, a folder of diffusers, or a
    whole checkpoint that has one.

    Raises InputError (no such model or engine), WeightsError (files missing or damaged), MissingExtraError, EngineError;
    UncalibratedError for precision w8a8 where nobody measured it.
    """
    preset = located(model, find(model, models)[1], models)
    missing = preset.missing(preset.place)
    if missing:
        raise WeightsError(
            f"model {model!r} is not complete: {', '.join(missing)} not found in {preset.folder}; install chashka again"
        )
    for what, given in (("loras", loras), ("embeddings", embeddings), ("vae", vae)):
        if given and not preset.adapters:
            raise InputError(f"{what}: {model!r} takes none; checkpoints of Stable Diffusion do")
    if loras and precision == "w8a8":
        raise InputError("loras: precision w8a8 is measured for a checkpoint as it is; leave one of the two out")
    changes = tuple((file, Weight.of(weight)) for file, weight in loras)
    for file, value in ((file, value) for file, weight in changes for value in weight):
        if not abs(value) <= MOST_OF_A_LORA:
            raise InputError(
                f"loras: {file.stem}: a weight of {shown(value)} is not possible; allowed: a number from {-MOST_OF_A_LORA} to "
                f"{MOST_OF_A_LORA}"
            )
    choice = EngineChoice(engine, device, precision, threads, cache_dir, changes, tuple(embeddings), vae)
    try:
        bundle = _opened(preset, choice)
    except UncalibratedError as error:
        raise UncalibratedError(error.reason, model) from error
    if bundle.engine.endswith(" f32"):
        return bundle
    return replace(bundle, exact=partial(_opened, preset, replace(choice, precision="f32")))


def _opened(preset: Preset, choice: EngineChoice) -> Bundle:
    from chashka.engines.sums import sum_of

    bundle = preset.open(preset, choice)
    file, added = bundle.weights, bundle.added
    if file is not None:  # of many gigabytes it is told where the engine, or whoever added the model, knows it already
        added = (Added("checkpoint", preset.name, sum_of(file, choice.cache_dir)), *added)
    return replace(bundle, loras=tuple(file.stem for file, _ in choice.loras), vae=choice.vae, added=added)
