"""What the commands that draw write, print and report of their pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chashka.cli.places import remember
from chashka.errors import FileError, InputError

if TYPE_CHECKING:
    from chashka.families import Bundle
    from chashka.images import Labelled
    from chashka.request import Picture

DEFAULT_SUFFIX = ".png"
TRACED = ".svg"


@dataclass(frozen=True)
class Wish:
    """Where pictures go, in which forms, how much they say, and whether the report is JSON: options of every command that draws.

    folder, file_name: as :func:`target` gives them.
    """

    folder: Path
    file_name: str | None
    svg: bool
    grid: bool
    privacy: str
    as_json: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Wish:
        """Of the options' values. Raises as :func:`target`."""
        folder, file_name = target(given["out"], given["svg"])
        return cls(folder, file_name, given["svg"], given["grid"], given["privacy"], given["as_json"])


def deliver(
    bundle: Bundle,
    pictures: list[Picture],
    wish: Wish,
    about: str | None,
    started: float,
    drawing: float,
    told: Sequence[str] = (),
) -> None:
    """Write the pictures, and print their files' names, or the report.

    about: what files are named after if not the prompt. started: when the command began. drawing: seconds of that alone. told:
    notes beyond those of the pictures.
    """
    loading = time.perf_counter() - started - drawing
    files = _write(pictures, wish, about if wish.privacy == "full" else "picture")
    notes = [*told, *remember(files.with_pixels(pictures))]
    report = _report(bundle, pictures, files, loading, time.perf_counter() - started - loading)
    report["notes"] = list(dict.fromkeys([*notes, *report["notes"]]))
    if wish.as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
        return
    for file in files.all():
        click.echo(str(file))
    click.echo(f"seed {pictures[0].seed}, {report['seconds']['draw']:.1f} s", err=True)
    for note in report["notes"]:
        click.echo(f"note: {note}", err=True)


@dataclass(frozen=True)
class _Files:
    """What was written: a file a picture, its traced twin if asked for, and the sheet of all of them, with what is on it."""

    pictures: list[Path]
    traced: list[Path]
    sheet: tuple[Path, Any] | None

    def all(self) -> list[Path]:
        return [*self.pictures, *self.traced, *([] if self.sheet is None else [self.sheet[0]])]

    def with_pixels(self, drawn: list[Picture]) -> list[tuple[Path, Any]]:
        """Every file, and what is on it."""
        shown = [picture.pixels for picture in drawn]
        traced = zip(self.traced, shown[: len(self.traced)], strict=True)
        return [*zip(self.pictures, shown, strict=True), *traced, *([] if self.sheet is None else [self.sheet])]


def target(out: Path, svg: bool) -> tuple[Path, str | None]:
    """(folder, None) or (folder, file name), checked as far as possible before anything is drawn.

    A path with a picture's suffix is a file unless a folder of that name exists.
    """
    from chashka.images import SUFFIXES, require_tracer

    folder = out.is_dir() or not out.suffix
    if svg or (not folder and out.suffix.lower() == TRACED):
        require_tracer()
    if folder:
        if out.exists() and not out.is_dir():
            raise FileError(f"cannot write to {str(out)!r}: it is neither a folder nor a picture file")
        return out, None
    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"out: {out.name!r} has no suffix that is known; allowed: {', '.join(SUFFIXES)}, or a folder")
    if not out.parent.is_dir():
        raise FileError(f"cannot write {str(out)!r}: the folder {str(out.parent)!r} does not exist")
    return out.parent, out.name


def _write(drawn: list[Picture], wish: Wish, about: str | None) -> _Files:
    """One file: the name that was given. Several, or a folder: names that do not exist yet. Traced twins: the same stems."""
    from chashka import images

    folder, file_name, privacy = wish.folder, wish.file_name, wish.privacy
    pictures = [_said(picture, privacy) for picture in drawn]
    first = pictures[0]
    names = [_stem(picture, about, file_name, privacy) for picture in drawn]
    stem, suffix = names[0], DEFAULT_SUFFIX if file_name is None else Path(file_name).suffix
    traced_already = suffix.lower() == TRACED
    twins = wish.svg and not traced_already
    traced: list[Path] = []
    if file_name is not None and len(pictures) == 1:
        files = [images.save(first, folder / file_name)]
        traced = [images.save(first, folder / (stem + TRACED))] if twins else []
    else:
        numbered = [f"{name}-{p.index}" for name, p in zip(names, drawn, strict=True)]
        files = [images.save_new(p, folder, name, suffix) for name, p in zip(numbered, pictures, strict=True)]
        if twins:
            traced = [images.save_new(p, folder, f.stem, TRACED) for p, f in zip(pictures, files, strict=True)]
    sheet = None
    if wish.grid and len(pictures) > 1:
        # a sheet is never traced: its pictures would have to share the few colours of one tracing
        whole = replace(first, pixels=images.grid([p.pixels for p in drawn]))
        file = images.save_new(whole, folder, f"{stem}-grid", DEFAULT_SUFFIX if traced_already else suffix)
        sheet = file, whole.pixels
    return _Files(files, traced, sheet)


def _said(picture: Picture, privacy: str) -> Picture | Labelled:
    """The picture, saying as much as it may."""
    from chashka.images.metadata import label_of
    from chashka.images.privacy import limited
    from chashka.images.writing import Labelled

    return picture if privacy == "full" else Labelled(picture.pixels, limited(label_of(picture), privacy))


def _stem(picture: Picture, about: str | None, file_name: str | None, privacy: str) -> str:
    """What a picture's file is called, without its number and suffix; the seed is in the name of files that tell it."""
    from chashka import images

    if file_name is not None:
        return Path(file_name).stem
    if privacy != "full":
        return images.slug(about or "picture")
    return f"{images.slug(about or picture.request.prompt)}-{picture.seed}"


def _report(bundle: Bundle, pictures: list[Picture], files: _Files, loading: float, drawing: float) -> dict[str, Any]:
    request = pictures[0].request
    meter = bundle.meters(request)[0]
    notes = list(dict.fromkeys(note for picture in pictures for note in picture.notes))
    rows: list[dict[str, Any]] = [
        {
            "file": str(file),
            "picture": p.index,
            "seed": p.seed,
            "width": p.size[0],
            "height": p.size[1],
            "prompt": p.request.prompt,
            "negative_prompt": p.request.negative_prompt,
        }
        for file, p in zip(files.pictures, pictures, strict=True)
    ]
    for row, file in zip(rows, files.traced, strict=False):  # none at all unless --svg asked for them
        row["svg"] = str(file)
    return {
        "model": bundle.model,
        "engine": bundle.engine,
        "request": request.model_dump(exclude_none=True),
        "pictures": rows,
        "grid": None if files.sheet is None else str(files.sheet[0]),
        "tokens": {"used": meter.used, "cut": meter.cut, "limit": meter.limit},
        "notes": notes,
        "seconds": {"load": round(loading, 3), "draw": round(drawing, 3)},
    }
