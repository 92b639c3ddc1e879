"""``chashka gallery``: the pictures that were drawn and brought in: search, collections, deleting with undo, in and out."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from chashka.cli.opening import DATA, DATABASE, JSON, gallery, reading
from chashka.errors import FileError, InputError

if TYPE_CHECKING:
    from chashka.app.jobs import Picture
    from chashka.app.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/svg+xml": ".svg"}
READ = (".png", ".jpg", ".jpeg", ".webp")
LARGEST = 100_000_000
"""Bytes of a file that is read at all."""
DAY = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"])
FILTERS = [
    click.option("--model", help="Only of this model."),
    click.option("--since", type=DAY, metavar="DATE", help="Not before this day, such as 2026-01-31."),
    click.option("--until", type=DAY, metavar="DATE", help="Before this day."),
    click.option("--favourite", is_flag=True, help="Only favourites."),
    click.option("--collection", metavar="NAME", help="Only those in this collection."),
    click.option("--deleted", is_flag=True, help="Those that can be restored instead."),
]
IDS = click.argument("ids", nargs=-1, required=True, metavar="ID...")


def filtered(command: Command) -> Command:
    """The options of ``FILTERS``."""
    for option in reversed(FILTERS):
        command = option(command)
    return command


@click.group("gallery")
def gallery_commands() -> None:
    """List, search, collect, delete, bring in and send out pictures."""


@gallery_commands.command("list")
@filtered
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@DATA
@DATABASE
@JSON
def list_pictures(limit: int, data: Path | None, database: str, as_json: bool, **filters: Any) -> None:
    """List pictures, the newest first."""
    _print(data, database, "", filters, limit, as_json)


@gallery_commands.command("search")
@click.argument("words", nargs=-1, required=True, metavar="WORDS...")
@filtered
@click.option("-n", "limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@DATA
@DATABASE
@JSON
def search_pictures(
    words: tuple[str, ...], limit: int, data: Path | None, database: str, as_json: bool, **filters: Any
) -> None:
    """Find pictures whose prompt has all WORDS, in any language; the last may be the beginning of a word."""
    _print(data, database, " ".join(words), filters, limit, as_json)


@gallery_commands.command("show")
@click.argument("id")
@DATA
@DATABASE
def show(id: str, data: Path | None, database: str) -> None:
    """Show picture ID, with its metadata, family and collections, as JSON."""
    with reading(data, database) as store:
        picture = store.pictures.get(id)
        if picture is None:
            raise InputError(f"picture: there is no {id[:60]!r}; chashka gallery list shows those there are")
        family = store.pictures.lineage(id)
        told = {
            **_row(picture),
            "metadata": dict(picture.new.metadata),
            "sha256": picture.new.sha256,
            "made_from": [{"picture": link.parent, "use": link.use} for link in family.links if link.child == id],
            "ancestors": list(family.ancestors),
            "descendants": list(family.descendants),
            "collections": [one.name for one in store.pictures.collections.of_picture(id)],
        }
    click.echo(json.dumps(told, ensure_ascii=False, indent=1))


@gallery_commands.command("favourite")
@IDS
@click.option("--off", is_flag=True, help="Take the mark away.")
@DATA
@DATABASE
def favourite(ids: tuple[str, ...], off: bool, data: Path | None, database: str) -> None:
    """Mark pictures as favourites."""
    with gallery(data, database) as door:
        for id in ids:
            door.favourite(id, not off)
    _done(ids, "no favourite any more" if off else "favourite")


@gallery_commands.command("delete")
@IDS
@DATA
@DATABASE
def delete(ids: tuple[str, ...], data: Path | None, database: str) -> None:
    """Take pictures out of every list; chashka gallery restore brings them back while they wait for their end."""
    with gallery(data, database) as door:
        for id in ids:
            door.delete(id)
    _done(ids, "deleted; chashka gallery restore brings it back")


@gallery_commands.command("restore")
@IDS
@DATA
@DATABASE
def restore(ids: tuple[str, ...], data: Path | None, database: str) -> None:
    """Undo a deletion."""
    with gallery(data, database) as door:
        for id in ids:
            door.restore(id)
    _done(ids, "restored")


@gallery_commands.command("collect")
@click.argument("name")
@IDS
@click.option("--out", is_flag=True, help="Take them out of it instead.")
@DATA
@DATABASE
def collect(name: str, ids: tuple[str, ...], out: bool, data: Path | None, database: str) -> None:
    """Put pictures into the collection NAME, which is made if it is not there."""
    with gallery(data, database) as door:
        door.collect(name, ids, out)
    _done(ids, f"{'out of' if out else 'in'} {name}")


@gallery_commands.command("collections")
@click.option("--rename", nargs=2, metavar="NAME NEW", help="Give a collection another name.")
@click.option("--delete", "forget", metavar="NAME", help="Forget a collection; its pictures stay.")
@DATA
@DATABASE
@JSON
def list_collections(
    rename: tuple[str, str] | None, forget: str | None, data: Path | None, database: str, as_json: bool
) -> None:
    """List collections with how many pictures they have; or change one."""
    if rename or forget:
        with gallery(data, database) as door:
            if rename:
                door.rename(*rename)
            if forget:
                door.forget(forget)
    with reading(data, database) as store:
        found = store.pictures.collections.list()
    if as_json:
        rows = [{"id": one.id, "name": one.name, "pictures": one.count, "created": one.created} for one in found]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for one in found:
        click.echo(f"{one.name}  {one.count} pictures")


@gallery_commands.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER|FILE...")
@click.option("--collection", metavar="NAME", help="Put them into this collection too.")
@click.option("--consent", is_flag=True, help="The people in them agree; a shared server asks for that.")
@DATA
@DATABASE
@JSON
def import_pictures(
    paths: tuple[Path, ...], collection: str | None, consent: bool, data: Path | None, database: str, as_json: bool
) -> None:
    """Bring in PNG, JPEG and WebP files, with what they say of how they were made (A1111, ComfyUI, InvokeAI, Fooocus, …).

    Files are kept as they are. The same file twice is one picture. In folders, what cannot be read is passed over.
    """
    rows: list[dict[str, Any]] = []
    with gallery(data, database) as door:
        for path, named in _files(paths):
            try:
                id, fresh = door.bring(_read(path), consent)
            except (FileError, InputError) as error:
                if named:
                    raise FileError(f"{path}: {error}") from error
                click.echo(f"note: {path}: {error}", err=True)
                continue
            rows.append({"file": str(path), "id": id, "new": fresh})
        if collection and rows:
            door.collect(collection, [row["id"] for row in rows], out=False)
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    for row in rows:
        click.echo(f"{row['id']}  {row['file']}{'' if row['new'] else '  was there already'}")


@gallery_commands.command("export")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--words", default="", help="Those that a search finds, instead of ids; with the other filters.")
@filtered
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder, or a file that ends in .zip.")
@click.option("--privacy", type=click.Choice(["full", "provenance", "none"]), help="What the files say.")
@click.option("--format", "format", type=click.Choice(["png", "jpeg", "webp"]), help="Another format than their own.")
@DATA
@DATABASE
def export_pictures(
    ids: tuple[str, ...],
    words: str,
    out: Path,
    privacy: str | None,
    format: str | None,
    data: Path | None,
    database: str,
    **filters: Any,
) -> None:
    """Write pictures as files into a folder, where nothing is ever replaced, or into one new zip file."""
    if bool(ids) == bool(words or any(filters.values())):
        raise InputError("export: give ids, or a search (--words, --collection, …), and not both")
    with reading(data, database) as store:
        if ids:
            found = [picture for id in ids if (picture := store.pictures.get(id)) is not None]
            missing = sorted(set(ids) - {picture.id for picture in found})
            if missing:
                raise InputError(
                    f"picture: there is no {missing[0][:60]!r}; chashka gallery list shows those there are"
                )
        else:
            found = list(_found(store, words, filters, 1_000_000))
    with gallery(data, database) as door:
        files = ((_name(picture, privacy), door.file(picture.id, privacy, format)) for picture in found)
        named = ((name + SUFFIXES[media_type], content) for name, (content, media_type) in files)
        _write(named, out)
    click.echo(f"{len(found)} pictures in {out}")


def _write(files: Iterator[tuple[str, bytes]], out: Path) -> None:
    """Into a folder, or into a zip that is new and whole."""
    from chashka.images.writing import write_new

    if out.suffix.lower() != ".zip":
        for name, content in files:
            write_new(content, out, Path(name).stem, Path(name).suffix)
        return
    try:
        with out.open("xb") as file:
            try:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    for name, content in files:
                        archive.writestr(name, content)
            except BaseException:
                out.unlink()
                raise
    except FileExistsError:
        raise FileError(f"{str(out)!r} exists; choose another name, or a folder") from None
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot write {str(out)!r}: {error.strerror or error}") from error


def _print(data: Path | None, database: str, words: str, filters: dict[str, Any], limit: int, as_json: bool) -> None:
    with reading(data, database) as store:
        found = list(_found(store, words, filters, limit))
    if as_json:
        click.echo(json.dumps([_row(picture) for picture in found], ensure_ascii=False, indent=1))
        return
    for picture in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(picture.created))
        star = " *" if picture.favourite else ""
        size = f"{picture.new.width}x{picture.new.height}"
        prompt = " ".join(picture.new.prompt.split())[:80]
        click.echo(f"{picture.id}  {when}  {size}  {picture.new.model or picture.new.source}{star}  {prompt}")


def _found(store: Store, words: str, filters: dict[str, Any], limit: int) -> Iterator[Picture]:
    """Page after page, up to ``limit``."""
    chosen = dict(filters)
    for name in ("since", "until"):
        chosen[name] = None if chosen[name] is None else chosen[name].timestamp()
    chosen["favourite"] = chosen["favourite"] or None
    if chosen["collection"] is not None:
        known = {one.name: one.id for one in store.pictures.collections.list()}
        if chosen["collection"] not in known:
            allowed = ", ".join(sorted(known)[:20]) or "there is none yet"
            raise InputError(f"collection: there is no {chosen['collection'][:60]!r}; allowed: {allowed}")
        chosen["collection"] = known[chosen["collection"]]
    before = None
    while limit > 0:
        page = store.pictures.search(words, before=before, limit=min(limit, 200), **chosen)
        yield from page
        if len(page) < min(limit, 200):
            return
        limit -= len(page)
        before = page[-1].number


def _row(picture: Picture) -> dict[str, Any]:
    names = ("prompt", "negative_prompt", "model", "seed", "width", "height", "media_type", "source")
    return {
        "id": picture.id,
        **{name: getattr(picture.new, name) for name in names},
        "job": picture.job,
        "created": picture.created,
        "favourite": picture.favourite,
        "deleted": picture.deleted,
    }


def _name(picture: Picture, privacy: str | None) -> str:
    """A file's name: the prompt, unless the file shall not tell it, and the id."""
    from chashka.images import slug

    start = slug(picture.new.prompt) if privacy in (None, "full") else "picture"
    return f"{start}-{picture.id[4:]}"


def _files(paths: tuple[Path, ...]) -> Iterator[tuple[Path, bool]]:
    """Every file, and whether it was named itself."""
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in READ and one.is_file())
            yield from ((one, False) for one in inside if not one.name.startswith("."))
        else:
            yield path, True


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST:
            raise FileError(f"{str(path)!r} has more than {LARGEST:,} bytes")
        return path.read_bytes()
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error


def _done(ids: tuple[str, ...], what: str) -> None:
    for id in ids:
        click.echo(f"{id}  {what}")
