"""``chashka models``: which models there are, and what one of them expects."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from chashka.families import Preset


@click.group(invoke_without_command=True)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models, or show one."""
    if context.invoked_subcommand is None:
        context.invoke(list_models)


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_models(as_json: bool = False) -> None:
    """List the models: name, whether its files are here, size, what it draws."""
    from chashka import families

    rows = [{"name": name, **_facts(preset)} for name, _, preset in families.models()]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        state = "ready" if not row["missing"] else f"{len(row['missing'])} files missing"
        click.echo(f"{row['name']}  {state}  {row['megabytes']:.1f} MB  {row['summary']}")


@models.command("show")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(name: str | None, as_json: bool) -> None:
    """Show a model: its files with their metadata, and every field of its requests with what is allowed."""
    from chashka import families

    chosen = name or families.DEFAULT
    declaration, preset = families.find(chosen)
    fields = [
        {
            "name": key,
            "about": info.description,
            "allowed": allowed_text(info.json_schema_extra),
            "default": _plain(info),
        }
        for key, info in declaration.options.model_fields.items()
    ]
    facts = {"name": chosen, **_facts(preset), "fields": fields}
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    click.echo(f"{chosen}: {preset.summary}\nlicence: {preset.licence}\nfolder: {preset.folder}")
    for missing in facts["missing"]:
        click.echo(f"missing: {missing}")
    click.echo("fields (those without a flag of their own: --set FIELD=VALUE):")
    for row in fields:
        default = "" if row["default"] is None else f" [{row['default']}]"
        click.echo(f"  {row['name']}{default}: {row['about']}; {row['allowed']}")


def _facts(preset: Preset) -> dict[str, Any]:
    paths = [preset.folder / name for name in preset.files]
    return {
        "summary": preset.summary,
        "licence": preset.licence,
        "folder": str(preset.folder),
        "missing": [path.name for path in paths if not path.is_file()],
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
