"""``chashka models``: which models there are, what one of them expects, and the user's own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.places import cache_dir, models_dir, own_models
from chashka.errors import FileError, InputError, WeightsError

if TYPE_CHECKING:
    from chashka.collection import Collection, Kept
    from chashka.families import Preset


FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
MODELS = click.option(
    "--models", type=FOLDER, envvar="CHASHKA_MODELS", show_envvar=True, help="Where published models are kept."
)


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models, or show one."""
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
@MODELS
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_models(models: Path | None = None, as_json: bool = False) -> None:
    """List the models: name, whether its files are here, size, what it draws."""
    from chashka import families

    models = models_dir(models)
    rows = [{"name": name, **_facts(_looked_for(name, preset, models))} for name, _, preset in families.models()]
    rows += [{"name": name, **_facts(families.find(name, models)[1])} for name in families.kept_names(models)]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        state = "ready" if not row["missing"] else f"{len(row['missing'])} files missing"
        if row["folder"] is None:
            state = "not here (--models)"
        click.echo(f"{row['name']}  {state}  {row['megabytes']:.1f} MB  {row['summary']}")


@models.command("show")
@click.argument("name", required=False)
@MODELS
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(name: str | None, models: Path | None, as_json: bool) -> None:
    """Show a model: its files with their metadata, and every field of its requests with what is allowed."""
    from chashka import families

    chosen = name or families.DEFAULT
    models = models_dir(models)
    declaration, preset = families.find(chosen, models)
    preset = _looked_for(chosen, preset, models)
    fields = [
        {
            "name": key,
            "about": info.description,
            "allowed": allowed_text(info.json_schema_extra),
            "default": _plain(info),
        }
        for key, info in declaration.options.model_fields.items()
    ]
    files, notes = _looked_into(preset) if preset.folder else ([], [])
    facts = {"name": chosen, **_facts(preset), "files": files, "notes": notes, "fields": fields}
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    click.echo(f"{chosen}: {preset.summary}\nlicence: {preset.licence}\nfolder: {facts['folder'] or 'not found'}")
    for missing in facts["missing"]:
        click.echo(f"missing: {missing}")
    for file in facts["files"]:
        click.echo(f"{file['name']}  {file['bytes']:,} bytes  {file['precision']}  {file['licence']}  {file['sha256']}")
    for note in notes:
        click.echo(f"note: {note}")
    click.echo("fields (those without a flag of their own: --set FIELD=VALUE):")
    for row in fields:
        default = "" if row["default"] is None else f" [{row['default']}]"
        click.echo(f"  {row['name']}{default}: {row['about']}; {row['allowed']}")


def _looked_into(preset: Preset) -> tuple[list[dict[str, str | int]], list[str]]:
    """The weight files of a model that is here, and notes: a damaged file is told among them, and hides nothing of the others."""
    from chashka.evaluation.card import weight_facts

    files, notes = weight_facts(preset)
    try:
        notes += preset.look()
    except WeightsError as error:
        notes.append(str(error))
    return files, list(dict.fromkeys(notes))


@models.command("add")
@click.argument("source")
@click.option("--name", help="What it is called from now on.  [default: the name of the file, folder or repository]")
@MODELS
@click.option("--copy", is_flag=True, help="Copy files that could be linked: for files that will be changed in place.")
@click.option("--file", help="Of a repository with several checkpoints, this one.")
@click.option("--variant", help="Of a repository in diffusers' layout, these weights, such as fp16.")
def add(source: str, name: str | None, models: Path | None, copy: bool, file: str | None, variant: str | None) -> None:
    """Keep SOURCE: a checkpoint's file or folder, a LoRA, an embedding, an autoencoder, or hf:OWNER/NAME@REVISION, a download.

    Nothing is copied that can be linked, and equal files are kept once.
    """
    from chashka import families
    from chashka.collection import Collection
    from chashka.engines.sums import learn

    collection = Collection(models or own_models())
    if source.startswith("hf:"):
        kept = _from_hub(collection, source, name, file, variant)
    elif file or variant:
        raise InputError("file, variant: only possible with hf:OWNER/NAME@REVISION; leave them out")
    else:
        kept = collection.add(Path(source).expanduser(), name, copy=copy)
    learn(
        cache_dir(), {kept.folder / path: digest for path, digest in kept.files.items()}
    )  # so that nobody computes it again
    uses = {"model": f"--model {kept.name}", "lora": f"--lora {kept.name} 1", "embedding": f"{kept.name} in the prompt"}
    uses["vae"] = f"--vae {kept.name}"
    click.echo(f"{kept.name}: {kept.kind}, {kept.size / 1e6:.1f} MB in {kept.folder}; use it with {uses[kept.kind]}")
    for path, digest in kept.files.items():
        click.echo(f"  {digest}  {path}")
    for note in families.at(kept.place)[1].look() if kept.kind == "model" else ():
        click.echo(f"note: {note}")


def _from_hub(collection: Collection, source: str, name: str | None, file: str | None, variant: str | None) -> Kept:
    """Download beside the collection, so that files can be linked, and add."""
    from chashka.hub import fetch

    try:
        collection.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=collection.folder, prefix=".incoming-") as folder:
            fetched = fetch(source, Path(folder), file=file, variant=variant, endpoint=os.environ.get("HF_ENDPOINT"))
            name = name or source.partition("@")[0].rpartition("/")[2]
            return collection.add(fetched.place, name, said=fetched.source)
    except OSError as error:
        raise FileError(f"cannot keep {source} in {collection.folder}: {error.strerror or error}") from error


@models.command("remove")
@click.argument("name")
@MODELS
def remove(name: str, models: Path | None) -> None:
    """Forget what was added under NAME, and delete the files that nothing else has."""
    from chashka.collection import Collection

    free = Collection(models or own_models()).remove(name)
    click.echo(f"{name} removed, {free / 1e6:.1f} MB set free")


@models.command("card")
@click.argument("name", required=False)
@click.option("--registry", type=FILE, help="A registry of weights.  [default: the one that came with the package]")
@click.option("--out", type=FILE, help="Write into this file instead of printing.")
def model_card(name: str | None, registry: Path | None, out: Path | None) -> None:
    """Write a model's card in Markdown: its files, how well it draws, where they came from, what they learnt from, whom to credit.

    Figures are those of the reports beside the registry, docs/models in the sources.
    """
    from chashka import families
    from chashka.evaluation.card import card
    from chashka.evaluation.registry import Registry, shipped_registry

    chosen = name or families.DEFAULT
    preset = families.located(chosen, families.find(chosen)[1], None)
    path = registry or shipped_registry()
    _told(card(chosen, preset, Registry.read(path) if path else None, path.parent if path else None), out)


@models.command("datasheet")
@click.option("--pictures", type=FILE, required=True, help="The manifest of training pictures, manifest.jsonl.gz.")
@click.option("--registry", type=FILE, help="A registry of weights.  [default: the one that came with the package]")
@click.option("--out", type=FILE, help="Write into this file instead of printing.")
def model_datasheet(pictures: Path, registry: Path | None, out: Path | None) -> None:
    """Write the datasheet of training pictures, with the attribution that their licences ask for."""
    from chashka.evaluation.datasheet import datasheet
    from chashka.evaluation.registry import Registry, shipped_registry

    path = registry or shipped_registry()
    _told(datasheet(pictures, pictures.as_posix(), Registry.read(path) if path else None), out)


@models.command("register")
@click.argument("name", required=False)
@click.option("--registry", type=FILE, required=True, help="The registry to extend; made if it is not there.")
@click.option(
    "--recipes", type=FOLDER, required=True, help="Recipes; each one's log is in the folder logs beside them."
)
@click.option(
    "--root", type=FOLDER, default=Path(), help="Paths are given from this folder.  [default: the current one]"
)
def register(name: str | None, registry: Path, recipes: Path, root: Path) -> None:
    """Enter a model's weight files into the registry: what their metadata say, and what was known of them before.

    NAME: of a model, or judge_a, judge_b.
    """
    from chashka import families
    from chashka.evaluation.detector import JUDGES
    from chashka.evaluation.registry import Registry, entry_of

    chosen = name or families.DEFAULT
    if chosen in JUDGES:
        files = sorted(JUDGES[chosen].glob("*.safetensors"))
    else:
        preset = families.located(chosen, families.find(chosen)[1], None)
        files = [preset.place / file for file in preset.own_weights]
    known = sorted(recipes.glob("*.json"))
    before = Registry.read(registry) if registry.is_file() else Registry()
    after = before.joined(entry_of(file, chosen, root, known) for file in files)
    after.write(registry)
    click.echo(f"{len(after.weights)} files in {registry}, {len(after.earlier)} earlier ones")


@models.command("ledger")
@click.option("--plans", type=FILE, help="A TOML file of what is planned.")
@click.option("--wheel", type=FILE, help="The built wheel, to be weighed.")
@click.option("--out", type=FILE, help="Write into this file instead of printing.")
def model_ledger(plans: Path | None, wheel: Path | None, out: Path | None) -> None:
    """Write the ledger of sizes: every file inside the package, what is planned, and what is left of 100 MB."""
    from chashka.evaluation.ledger import embedded, ledger, read_plans

    if wheel is not None and not wheel.is_file():
        raise FileError(f"wheel: {str(wheel)!r} does not exist; build it with: python -m build --wheel")
    weight = wheel.stat().st_size if wheel else None
    _told(ledger(embedded(), read_plans(plans) if plans else (), weight), out)


def _told(text: str, out: Path | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write {str(out)!r}: {error.strerror or error}") from error


def _looked_for(name: str, preset: Preset, models: Path | None) -> Preset:
    """The preset with its folder if it can be found."""
    from chashka import families
    from chashka.errors import WeightsError

    try:
        return families.located(name, preset, models)
    except WeightsError:
        return preset


def _facts(preset: Preset) -> dict[str, Any]:
    facts = {"summary": preset.summary, "licence": preset.licence}
    if preset.folder is None:  # published: wherever --models says
        return facts | {"folder": None, "missing": list(preset.needed), "megabytes": 0.0}
    paths = [preset.folder / name for name in (*preset.needed, *preset.optional)]
    return facts | {
        "folder": str(preset.folder),
        "missing": preset.missing(preset.folder),
        "megabytes": sum(_size(path) for path in paths) / 1e6,
    }


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def allowed_text(extra: Any) -> str:
    """What a field allows, as its error messages say it."""
    return str(extra.get("allowed", "")) if isinstance(extra, dict) else ""


def _plain(info: Any) -> Any:
    """A field's default if JSON can hold it; None where there is none."""
    return info.default if isinstance(info.default, str | int | float | bool) else None
