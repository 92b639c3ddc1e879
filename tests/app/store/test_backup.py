"""Backups of SQLite, and what is wrong with a backup is told before anything is written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from backup_contract import BackupContract, fill

from chashka.app.dialects.a1111_texts import STYLES
from chashka.app.keeping.blobs import Blobs
from chashka.app.keeping.made import Made
from chashka.app.store import NAME, Store
from chashka.app.store import backup as module
from chashka.app.store.backup import MANIFEST, backup, restore, verify
from chashka.errors import FileError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.at(tmp_path / "store.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def empty() -> str:
    return ""


class TestSqlite(BackupContract):
    """From and into SQLite."""


@pytest.fixture
def made(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backup that shares no file with the store."""
    blobs = Blobs(tmp_path / "blobs")
    fill(store, blobs)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    backup(store, blobs, tmp_path / "backup")
    monkeypatch.undo()
    return tmp_path / "backup"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def a_blob(made: Path) -> Path:
    return next(path for path in sorted((made / "blobs").rglob("*")) if path.is_file())


def change_manifest(made: Path, key: str, value: object) -> None:
    manifest = json.loads((made / MANIFEST).read_text())
    manifest[key] = value
    (made / MANIFEST).write_text(json.dumps(manifest))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "rows": (lambda made: flip(made / NAME), "is damaged"),
    "a picture": (lambda made: flip(a_blob(made)), "is damaged"),
    "a picture is shorter": (lambda made: a_blob(made).write_bytes(b""), "is damaged"),
    "a picture is missing": (lambda made: a_blob(made).unlink(), "no complete backup"),
    "rows are missing": (lambda made: (made / NAME).unlink(), "no complete backup"),
    "no manifest": (lambda made: (made / MANIFEST).unlink(), "no complete backup"),
    "no json": (lambda made: (made / MANIFEST).write_text("{"), "is damaged"),
    "a list": (lambda made: (made / MANIFEST).write_text("[]"), "is damaged"),
    "another format": (lambda made: change_manifest(made, "format", 9), "format 9"),
    "newer": (lambda made: change_manifest(made, "version", 99), "newer chashka"),
    "more rows": (lambda made: change_manifest(made, "rows", {"jobs": 1}), "not every row"),
    "outside": (
        lambda made: change_manifest(made, "files", {"../x": {"sha256": "", "bytes": 1}}),
        "not within the backup",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_told_and_nothing_is_written(made: Path, tmp_path: Path, what: str) -> None:
    act, message = DAMAGE[what]
    act(made)
    with pytest.raises(FileError, match=message) as caught:
        restore(made, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*data*"))


def test_a_whole_one_is_verified(made: Path) -> None:
    manifest = verify(made)
    assert manifest["rows"]["jobs"] == 4
    assert {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()} == {
        *manifest["files"],
        MANIFEST,
    }


def test_files_are_linked_where_that_is_possible(store: Store, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    fill(store, blobs)
    backup(store, blobs, tmp_path / "backup")
    name = next(iter(store.referenced()))
    assert (tmp_path / "backup" / "blobs" / name[:2] / name).samefile(blobs.path(name))


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_damaged_store_is_told_and_leaves_no_backup(store: Store, tmp_path: Path, damage: str) -> None:
    blobs = Blobs(tmp_path / "blobs")
    fill(store, blobs)
    path = blobs.path(sorted(store.referenced())[2])
    path.unlink() if damage == "missing" else flip(path)
    with pytest.raises(
        FileError, match=f"{path.name}.* is {'damaged' if damage == 'changed' else 'missing|is missing'}"
    ):
        backup(store, blobs, tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))


def test_a_picture_that_is_deleted_for_good_meanwhile_is_no_damage(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(tmp_path / "blobs")
    fill(store, blobs)
    rows, turns = module._rows, list[int]()

    def then_purge(*given: Path) -> object:
        found = rows(*given)  # type: ignore[arg-type]
        if not turns:
            for picture in store.pictures.search():
                store.pictures.delete(picture.id)
            store.pictures.purge(-1)
            blobs.sweep(store.referenced(), age=0)
        turns.append(len(found[1]))
        return found

    monkeypatch.setattr(module, "_rows", then_purge)
    copied = backup(store, blobs, tmp_path / "backup")
    assert len(turns) == 2
    assert copied.blobs >= turns[1] == 1
    verify(tmp_path / "backup")


def test_a_backup_is_made_of_a_store_that_another_process_owns(store: Store, tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    fill(store, blobs)
    reader = Store.at(store.database.where, read_only=True)
    assert backup(reader, blobs, tmp_path / "backup").rows > 10
    reader.close()


def test_an_empty_folder_may_be_the_target_and_a_full_one_not(store: Store, tmp_path: Path) -> None:
    blobs, target = Blobs(tmp_path / "blobs"), tmp_path / "backup"
    target.mkdir()
    backup(store, blobs, target)
    with pytest.raises(FileError, match="is not empty"):
        backup(store, blobs, target)
    shutil.rmtree(target)
    target.write_text("a file")
    with pytest.raises(FileError, match="is not empty"):
        backup(store, blobs, target)


def test_files_beside_the_pictures_come_along_and_the_rest_is_named(store: Store, tmp_path: Path) -> None:
    """The log of what commands made is copied up to its last whole line, and goes on by itself where it was restored."""
    data = tmp_path / "data"
    blobs = Blobs(data / "blobs")
    fill(store, blobs)
    (data / "training" / "runs").mkdir(parents=True)
    (data / "server.json").write_text("{}")
    (data / STYLES).write_text("name,prompt,negative_prompt\nчай,чашка,\n", encoding="utf-8")
    made = Made(data)
    made.add(b"a file", np.zeros((8, 8, 3), np.uint8))
    with (data / "made.jsonl").open("ab") as file:
        file.write(b'{"sha256": "being wri')
    copied = backup(store, blobs, tmp_path / "backup")
    assert (copied.beside, copied.left) == (("made.jsonl", STYLES), ("training",))
    kept = (tmp_path / "backup" / "made.jsonl").read_bytes()
    assert kept.endswith(b"}\n") and kept.count(b"\n") == 1
    assert restore(tmp_path / "backup", tmp_path / "back") == copied
    assert (tmp_path / "back" / STYLES).read_bytes() == (data / STYLES).read_bytes()
    again = Made(tmp_path / "back")
    assert again.holds(hashlib.sha256(b"a file").hexdigest())
    again.add(b"another", np.zeros((8, 8, 3), np.uint8))
    verify(tmp_path / "backup")
    flip(tmp_path / "backup" / STYLES)
    with pytest.raises(FileError, match=r"styles.csv' is damaged"):
        restore(tmp_path / "backup", tmp_path / "once more")
