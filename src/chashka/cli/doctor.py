"""``chashka doctor``: what is installed; whether weights are whole, the engine is right, it draws, and what was kept is there."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from typing import TYPE_CHECKING, Any

import click

from chashka import __version__
from chashka.cli.opening import DATA, DATABASE, reading
from chashka.cli.places import cache_dir, data_dir
from chashka.errors import ChashkaError, FileError

if TYPE_CHECKING:
    from pathlib import Path

    from chashka.families import Preset

PACKAGES = (
    *("numpy", "openvino", "pillow", "pydantic", "safetensors"),
    *("torch", "vtracer", "resvg_py", "tokenizers", "pymorphy3"),
)


@click.command()
@click.option("--engine", type=click.Choice(["auto", "openvino", "torch"]), default="auto", show_default=True)
@click.option("--device", help="The engine's name of a device, such as CPU, GPU or cuda.")
@DATA
@DATABASE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(engine: str, device: str | None, data: Path | None, database: str, as_json: bool) -> None:
    """Check this installation: versions, weights (sha256), the engine's self-test, a picture in two steps, and the data folder.

    Of the data, which a server may be using: whether the database is sound, every picture's file is there, and room is left.

    Everything is checked and printed, whatever fails; then the exit code is that of the first failure.
    """
    failures: list[ChashkaError] = []
    report: dict[str, Any] = {"system": _system(), "packages": _packages()}
    report["models"] = _models(failures)
    report["engine"] = _engine(engine, device, failures)
    report["drawing"] = _drawing(engine, device, failures) if not failures else {"ok": False, "reason": "not tried"}
    report["data"] = _data(data or data_dir(), database, failures)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        _print(report)
    if failures:
        raise failures[0]


def _system() -> dict[str, Any]:
    return {
        "chashka": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cache": str(cache_dir()),
    }


def _packages() -> dict[str, str | None]:
    """Installed versions, read without importing anything; None: not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _models(failures: list[ChashkaError]) -> list[dict[str, Any]]:
    from chashka import families

    embedded = [(name, preset) for name, _, preset in families.models() if preset.folder is not None]
    return [{"name": name, "files": _weights(preset, failures)} for name, preset in embedded]


def _weights(preset: Preset, failures: list[ChashkaError]) -> list[dict[str, Any]]:
    """Each weight file's sha256, and whether its graph was made for it: opening says so."""
    from chashka.checkpoints import sha256
    from chashka.engines import open_engine

    # f32: the self-test is not wanted here, and opening compiles nothing
    opener = open_engine("openvino", precision="f32")
    rows = []
    for component in sorted(name.removesuffix(".safetensors") for name in preset.own_weights):
        row: dict[str, Any] = {"file": f"{component}.safetensors", "ok": True}
        try:
            row["sha256"] = sha256(preset.place / row["file"])
            opener.open(preset.place, component)
        except ChashkaError as error:
            failures.append(error)
            row |= {"ok": False, "reason": str(error)}
        rows.append(row)
    return rows


def _engine(name: str, device: str | None, failures: list[ChashkaError]) -> dict[str, Any]:
    """The engine as drawing would use it; OpenVINO decides by its self-test whether bfloat16 may be used."""
    from chashka.engines import open_engine

    try:
        opened = open_engine(name, device, cache_dir=cache_dir())
    except ChashkaError as error:
        failures.append(error)
        return {"ok": False, "reason": str(error)}
    return {"ok": True, "name": opened.name, "precision": opened.precision}


def _drawing(name: str, device: str | None, failures: list[ChashkaError]) -> dict[str, Any]:
    """Two steps of the default model: proof that everything works together."""
    from chashka import families
    from chashka.generate import draw

    try:
        started = time.perf_counter()
        bundle = families.load(engine=name, device=device, cache_dir=cache_dir())
        loaded = time.perf_counter()
        draw(bundle, bundle.request(prompt="чашка", seed=1, steps=2))
    except ChashkaError as error:
        failures.append(error)
        return {"ok": False, "reason": str(error)}
    drawn = time.perf_counter()
    return {"ok": True, "load_seconds": round(loaded - started, 3), "draw_seconds": round(drawn - loaded, 3)}


def _data(folder: Path, database: str, failures: list[ChashkaError]) -> dict[str, Any]:
    """What the server and the gallery have kept: nothing is changed, and nothing made where there is none yet."""
    from chashka.app.keeping.blobs import FOLDER, Blobs
    from chashka.app.store import NAME

    report: dict[str, Any] = {"folder": str(folder), "ok": True, "files": 0}
    if not database and not (folder / NAME).exists():
        return report
    try:
        with reading(folder, database) as store:
            damage, wanted = store.damage(), store.referenced()
        blobs = Blobs(folder / FOLDER, look=True)
        missing = sorted(name for name in wanted if not blobs.has(name))
        room = not blobs.low() if blobs.folder.is_dir() else True
        report |= {"files": len(wanted) - len(missing), "missing": missing, "room": room}
        if damage or missing:
            lost = (
                f"{len(missing)} of {len(wanted)} files are missing, {missing[0][:12]}… among them" if missing else ""
            )
            found = "; ".join([*damage[:3], *([lost] if lost else [])])
            raise FileError(f"{folder}: {found}; bring back what is whole with: chashka restore")
        if not room:
            raise FileError(f"{folder}: the disk is nearly full, so that the server takes no new jobs; free some space")
    except ChashkaError as error:
        failures.append(error)
        report |= {"ok": False, "reason": str(error)}
    return report


def _print(report: dict[str, Any]) -> None:
    system = report["system"]
    click.echo(f"chashka {system['chashka']}, Python {system['python']}, {system['platform']}, {system['cores']} cores")
    click.echo(f"cache: {system['cache']}")
    for name, version in report["packages"].items():
        click.echo(f"{name} {version or 'not installed'}")
    for model in report["models"]:
        for row in model["files"]:
            state = f"ok  sha256 {row['sha256']}" if row["ok"] else f"FAILED  {row['reason']}"
            click.echo(f"{model['name']} {row['file']}: {state}")
    engine, drawing = report["engine"], report["drawing"]
    click.echo(f"engine: {engine['name']}" if engine["ok"] else f"engine: FAILED  {engine['reason']}")
    if drawing["ok"]:
        click.echo(
            f"drawing: ok, {drawing['load_seconds']:.1f} s to load, {drawing['draw_seconds']:.1f} s for two steps"
        )
    else:
        click.echo(f"drawing: FAILED  {drawing['reason']}")
    kept = report["data"]
    state = f"ok, {kept['files']} files" if kept["files"] else "ok, nothing kept yet"
    click.echo(f"data: {kept['folder']}: {state}" if kept["ok"] else f"data: FAILED  {kept['reason']}")
