"""``chashka verify``: one line for each file, JSON, with and without a log; and no network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chashka import images
from chashka.app.keeping.blobs import FOLDER, Blobs
from chashka.app.keeping.importing import bring_in
from chashka.app.settings import Settings
from chashka.app.store import Store
from chashka.images.metadata import Label
from foreign_files import EVERY, with_exif

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def place(here: Path, loads: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder; drawings are the toy model's; a data folder of the test."""
    monkeypatch.setenv("CHASHKA_DATA", str(here / "data"))


def test_every_file_gets_a_line(call: Call, here: Path) -> None:
    call("draw", "чашка", "--seed", 7, "--out", "чашка.png")
    (here / "a.png").write_bytes(EVERY["Fooocus png"])
    (here / "фото.jpg").write_bytes(with_exif("JPEG", {0x010F: "Canon"}))
    result = call("verify", "чашка.png", "a.png", "фото.jpg")
    lines = result.out.splitlines()
    assert (result.code, len(lines)) == (0, 3)
    assert lines[0].startswith("чашка.png: full: made with chashka ") and "toy-plain" in lines[0]
    assert lines[1] == "a.png: foreign: made with Fooocus, says its metadata"
    assert lines[2].startswith("фото.jpg: unknown: ")
    assert [path.name for path in (here / "data").iterdir()] == [
        "made.jsonl"
    ]  # the drawing's line; asking writes nothing


def test_json(call: Call, here: Path) -> None:
    call("draw", "чашка", "--seed", 7, "--out", "чашка.png")
    (row,) = json.loads(call("verify", "чашка.png", "--json").out)
    assert (row["file"], row["kind"], row["by_model"], row["logged"]) == ("чашка.png", "full", True, True)
    assert row["details"]["request"]["prompt"] == "чашка"


@pytest.mark.parametrize("words", [("--out", "a.png"), ("-n", 2, "--grid", "--out", "a")])
def test_what_a_command_drew_is_known_without_its_metadata(call: Call, here: Path, words: tuple[Any, ...]) -> None:
    """The very file; but no other picture, and not where the log is another one."""
    assert call("draw", "чашка", "--seed", 7, "--privacy", "none", *words).code == 0
    for file in [here / "a.png"] if "-n" not in words else sorted((here / "a").iterdir()):
        assert call("verify", file).out.startswith(f"{file}: logged: this very file")
        with Image.open(file) as image:
            image.rotate(90).save(here / "other.png")
        assert call("verify", "other.png").out.startswith("other.png: unknown: ")
        assert call("verify", file, "--data", here / "elsewhere").out.startswith(f"{file}: unknown: ")


def test_lines_of_the_log_that_are_cut_are_passed_over(call: Call, here: Path) -> None:
    assert call("draw", "чашка", "--seed", 7, "--privacy", "none", "--out", "a.png").code == 0
    log = here / "data" / "made.jsonl"
    log.write_bytes(b'{"sha256": "ab", "dh\n' + b'{"sha256": "ab"}\n[]\n' + log.read_bytes() + b'{"sha')
    assert call("verify", "a.png").out.startswith("a.png: logged: ")


def test_a_log_that_cannot_be_written_is_a_note(call: Call, here: Path) -> None:
    (here / "data").write_bytes(b"a file where the folder should be")
    result = call("draw", "чашка", "--seed", 7, "--out", "a.png")
    assert result.code == 0 and "note: chashka verify will not know these files: cannot write" in result.err


def test_the_log_of_files_is_asked(call: Call, here: Path) -> None:
    """What was sent without metadata is known again, by its sum and, changed by another program, by its looks."""
    blobs = np.random.default_rng(5).integers(0, 255, (6, 6, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(blobs).resize((64, 64), Image.Resampling.BICUBIC))
    path = images.save(images.Labelled(pixels, Label("trainedAlgorithmicMedia")), here / "a.png")
    store = Store.open(Settings(data=here / "data"))
    kept = bring_in(store, Blobs(here / "data" / FOLDER), path.read_bytes(), "local")[0]
    drawn = store.pictures.add(replace(kept.new, source="drawn"), "local")
    store.close()
    assert call("gallery", "export", drawn.id, "--privacy", "none", "--out", "out").code == 0
    (sent,) = (here / "out").iterdir()
    result = call("verify", sent)
    assert result.out.startswith(f"{sent}: logged: ") and drawn.id in result.out
    with Image.open(sent) as image:
        image.resize((90, 90)).save(here / "small.webp", quality=60)
    result = call("verify", "small.webp")
    assert result.out.startswith("small.webp: alike: looks like a picture that was made") and drawn.id in result.out


def test_a_log_that_cannot_be_read_is_a_note(call: Call, here: Path) -> None:
    from chashka.app.store import NAME

    (here / "data").mkdir()
    (here / "data" / NAME).write_bytes(b"no database at all, and long enough to be looked at" * 100)
    (here / "a.png").write_bytes(EVERY["Fooocus png"])
    result = call("verify", "a.png")
    assert result.code == 0 and "foreign" in result.out and result.err.startswith("note: the log of files is not asked")


@pytest.mark.parametrize(("name", "content"), [("нет.png", None), ("b.png", b"text")])
def test_what_is_no_picture_is_said(call: Call, here: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (here / name).write_bytes(content)
    result = call("verify", name)
    assert result.code == 5 and name in result.error


def test_it_needs_no_network(here: Path) -> None:
    """Sockets cannot connect, names are not looked up."""
    (here / "a.png").write_bytes(EVERY["Fooocus png"])
    program = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n"
        "from chashka.cli import main\nmain(['verify', 'a.png'])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=here, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("a.png: foreign: ")
