"""Files by their sha256: whole or not there, and never in the way of others."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from chashka.app.keeping import blobs as module
from chashka.app.keeping.blobs import Blobs, StorageFullError
from chashka.errors import FileError, InputError

DATA = b"\x89PNG of no particular picture"
NAME = sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def files(blobs: Blobs) -> list[str]:
    return sorted(path.name for path in blobs.folder.rglob("*") if path.is_file())


def test_what_is_put_is_there(blobs: Blobs) -> None:
    assert not blobs.has(NAME)
    assert blobs.put(DATA) == NAME
    assert blobs.path(NAME) == blobs.folder / NAME[:2] / NAME
    assert (blobs.has(NAME), blobs.read(NAME), blobs.size(NAME)) == (True, DATA, len(DATA))
    assert list(blobs.names()) == files(blobs) == [NAME]
    assert Blobs(blobs.folder).read(NAME) == DATA


def test_what_is_there_is_not_written_again(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs.put(DATA)
    before = blobs.path(NAME).stat().st_ino
    monkeypatch.setattr(blobs, "_write", lambda *_: pytest.fail("written again"))
    assert blobs.put(DATA) == NAME
    assert blobs.path(NAME).stat().st_ino == before


@pytest.mark.parametrize(
    "name",
    ["", "abc", NAME.upper(), NAME[:-1] + "g", NAME + "0", "../" + NAME[3:], NAME[:32] + "\n" + NAME[33:], NAME + "\n"],
)
def test_only_a_sha256_is_a_name(blobs: Blobs, name: str) -> None:
    for act in (blobs.path, blobs.has, blobs.read, blobs.size):
        with pytest.raises(InputError, match="64"):
            act(name)


def test_what_is_not_there_is_told(blobs: Blobs) -> None:
    for act in (blobs.read, blobs.size):
        with pytest.raises(FileError, match=NAME):
            act(NAME)


def test_the_order_is_write_sync_rename_sync(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    sync, rename = os.fsync, os.replace

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve() if Path("/proc/self/fd").exists() else None
        seen.append("sync" if path is None else "sync folder" if path.is_dir() else "sync file")
        sync(handle)

    def replace(old: str, new: str) -> None:
        assert Path(old).parent == Path(new).parent
        assert Path(old).read_bytes() == DATA
        seen.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    blobs.put(DATA)
    expected = ["sync file", "rename", "sync folder"]
    assert seen == expected if "sync" not in seen else ["sync", "rename", "sync"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "mkstemp"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_leaves_nothing(blobs: Blobs, monkeypatch: pytest.MonkeyPatch, where: str, number: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    class Full:
        def __init__(self, handle: int, _: str) -> None:
            self.file = open(handle, "wb")  # noqa: SIM115

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        write = fail

    if where == "write":
        monkeypatch.setattr(os, "fdopen", Full)
    elif where == "mkstemp":
        monkeypatch.setattr(module.tempfile, "mkstemp", fail)
    else:
        monkeypatch.setattr(os, where, fail)
    full = number != errno.EIO
    with pytest.raises(StorageFullError if full else FileError, match="disk is full" if full else "blobs") as caught:
        blobs.put(DATA)
    assert isinstance(caught.value, StorageFullError) == full
    monkeypatch.undo()
    assert files(blobs) == []
    assert blobs.put(DATA) == NAME


def test_a_write_that_the_system_breaks_off(blobs: Blobs) -> None:
    """A limit of the system stands for the disk: it takes the first bytes and refuses the rest."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(FileError):
            blobs.put(os.urandom(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(blobs) == []


def test_opening_clears_what_the_dead_left_and_spares_the_living(blobs: Blobs) -> None:
    place = blobs.folder / "ab"
    dead = place / ".gone.part"
    dead.write_bytes(b"half")
    handle, alive = module._new_part(place)
    Blobs(blobs.folder)
    assert not dead.exists()
    assert alive.exists()
    os.close(handle)
    assert blobs.clear() == 1
    assert files(blobs) == []


def test_sweep_takes_what_is_old_and_not_needed(blobs: Blobs) -> None:
    old_needed, old, young = (blobs.put(text) for text in (b"1", b"2", b"3"))
    for name in (old_needed, old):
        os.utime(blobs.path(name), (0, time.time() - 7200))
    (blobs.folder / "ab" / ".left.part").write_bytes(b"")
    (blobs.folder / "ab" / "README").write_bytes(b"not ours")
    assert blobs.sweep({old_needed}) == 1
    assert [blobs.has(name) for name in (old_needed, old, young)] == [True, False, True]
    assert files(blobs) == sorted(["README", old_needed, young])
    assert blobs.sweep(set(), age=0) == 2


def test_what_is_put_again_is_young_again(blobs: Blobs) -> None:
    blobs.put(DATA)
    os.utime(blobs.path(NAME), (0, 0))
    blobs.put(DATA)
    assert blobs.sweep(set()) == 0
    assert blobs.has(NAME)


def test_puts_and_sweeps_at_once_lose_nothing(blobs: Blobs) -> None:
    """What was put is there although a sweep runs at the same time that would take it as it was before."""
    end, lost, swept = threading.Event(), list[int](), list[int]()

    def put(number: int) -> None:
        for turn in range(40):
            name = blobs.put(b"%d" % number)
            if not blobs.has(name):
                lost.append(turn)
            os.utime(blobs.path(name), (0, 0))

    def sweep() -> None:
        while not end.is_set():
            swept.append(blobs.sweep(set(), age=60))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(3)]
    sweeper = threading.Thread(target=sweep)
    for thread in [sweeper, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    end.set()
    sweeper.join()
    assert not lost
    assert sum(swept) > 0
    assert not [name for name in files(blobs) if name.endswith(".part")]


def test_little_room_is_told(tmp_path: Path) -> None:
    free = Blobs(tmp_path / "a", reserve=0, share=0.0)
    assert free.free() > 0
    assert not free.low()
    assert Blobs(tmp_path / "b", reserve=free.free() * 2).low()
    assert Blobs(tmp_path / "c", reserve=0, share=1.1).low()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot make the folder"):
        Blobs(tmp_path / "file" / "blobs")


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() <= before + 1
