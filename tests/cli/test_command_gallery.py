"""``chashka gallery``: bringing pictures in, finding, collecting, deleting, sending out; with and without a server."""

from __future__ import annotations

import io
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from chashka import images
from chashka.app.store import NAME, Store
from foreign_files import EVERY, PROMPT, png

Call = Callable[..., Any]


@pytest.fixture
def data(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder that commands use in a test."""
    folder = here / "данные"
    monkeypatch.setenv("CHASHKA_DATA", str(folder))
    return folder


@pytest.fixture
def files(here: Path) -> Path:
    folder = here / "картинки"
    (folder / "внутри").mkdir(parents=True)
    (folder / "кот.png").write_bytes(EVERY["AUTOMATIC1111 png"])
    (folder / "внутри" / "граф.webp").write_bytes(EVERY["ComfyUI webp"])
    (folder / "внутри" / "кот ещё раз.png").write_bytes(EVERY["AUTOMATIC1111 png"])
    (folder / "сломан.jpg").write_bytes(b"\xff\xd8\xffnothing")
    (folder / "текст.txt").write_text("no picture")
    return folder


def rows(call: Call, *words: Any) -> list[dict[str, Any]]:
    result = call("gallery", *words, "--json")
    assert result.code == 0, result.err
    found: list[dict[str, Any]] = json.loads(result.out)
    return found


def test_a_folder_is_brought_in_once(call: Call, data: Path, files: Path) -> None:
    result = call("gallery", "import", files, "--json", "--collection", "Старое")
    brought = json.loads(result.out)
    assert [Path(row["file"]).name for row in brought] == ["граф.webp", "кот ещё раз.png", "кот.png"]
    assert [row["new"] for row in brought] == [True, True, False]
    assert "note: " in result.err and "сломан.jpg" in result.err and result.err.count("\n") == 1
    found = rows(call, "list")
    assert [(row["prompt"].splitlines()[0], row["seed"], row["source"]) for row in found] == [
        (PROMPT, 42, "imported"),
        (PROMPT, None, "imported"),  # ComfyUI's seed has 64 bits
    ]
    assert rows(call, "import", files / "кот.png")[0] == {
        "file": str(files / "кот.png"), "id": brought[1]["id"], "new": False
    }  # fmt: skip
    assert call("gallery", "collections").out == "Старое  2 pictures\n"
    shown = json.loads(call("gallery", "show", brought[0]["id"]).out)
    assert shown["metadata"]["program"] == "ComfyUI" and shown["metadata"]["seed"] == str(2**64 - 2)
    assert shown["collections"] == ["Старое"]


def test_words_and_filters(call: Call, data: Path, files: Path) -> None:
    call("gallery", "import", files)
    assert len(rows(call, "search", "КОТ", "чашкой")) == 2
    assert len(rows(call, "search", "second", "lin")) == 1
    assert rows(call, "search", "собака") == []
    assert len(rows(call, "list", "--model", "deliberate, v2")) == 1
    assert rows(call, "list", "--until", "2020-01-01") == [] and len(rows(call, "list", "--since", "2020-01-01")) == 2
    assert len(rows(call, "list", "-n", 1)) == 1
    line = call("gallery", "list", "-n", 1).out
    assert line.count("\n") == 1 and "16x8" in line and "кот с чашкой" in line


def test_marks_collections_and_undo(call: Call, data: Path, files: Path) -> None:
    first, second = (row["id"] for row in rows(call, "import", files)[:2])
    assert call("gallery", "favourite", first).out == f"{first}  favourite\n"
    assert [row["id"] for row in rows(call, "list", "--favourite")] == [first]
    call("gallery", "favourite", first, "--off")
    assert rows(call, "list", "--favourite") == []
    call("gallery", "collect", "Коты", first, second)
    call("gallery", "collect", "Коты", first, "--out")
    assert [row["id"] for row in rows(call, "list", "--collection", "Коты")] == [second]
    assert call("gallery", "collections", "--rename", "Коты", "Кошки").out == "Кошки  1 pictures\n"
    assert call("gallery", "collections", "--delete", "Кошки").out == ""
    call("gallery", "delete", first)
    assert [row["id"] for row in rows(call, "list")] == [second]
    assert [row["id"] for row in rows(call, "list", "--deleted")] == [first]
    call("gallery", "restore", first)
    assert len(rows(call, "list")) == 2


def test_files_go_out_as_they_are_or_without_a_word(call: Call, data: Path, files: Path, here: Path) -> None:
    ids = [row["id"] for row in rows(call, "import", files)]
    assert call("gallery", "export", ids[0], "--out", "всё").code == 0
    (path,) = (here / "всё").iterdir()
    assert path.read_bytes() == EVERY["ComfyUI webp"] and path.name.startswith("кот-с-чашкой-1girl")
    assert (
        call("gallery", "export", "--words", "кот", "--privacy", "none", "--format", "png", "--out", "тихо.zip").code
        == 0
    )
    with zipfile.ZipFile(here / "тихо.zip") as archive:
        names = archive.namelist()
        content = [archive.read(name) for name in names]
    assert len(names) == 2 and all(name.startswith("picture-") and name.endswith(".png") for name in names)
    for one in content:
        with Image.open(io.BytesIO(one)) as image:
            assert not image.info
    assert "exists" in call("gallery", "export", ids[0], "--out", "тихо.zip").error
    with Store.open(settings_of(data), read_only=True).database.read() as connection:
        from sqlalchemy import select

        from chashka.app.store.schema import sent

        assert sorted(connection.execute(select(sent.c.privacy)).scalars()) == ["full", "none", "none"]


def settings_of(data: Path) -> Any:
    from chashka.app.settings import Settings

    return Settings(data=data)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["show", "pic_none"], 2, "there is no 'pic_none'"),
        (["favourite", "pic_none"], 2, "there is no 'pic_none'"),
        (["list", "--collection", "Нет"], 2, "allowed: there is none yet"),
        (["collections", "--rename", "Нет", "Да"], 2, "there is no 'Нет'"),
        (["export", "--out", "x"], 2, "give ids, or a search"),
        (["import", "нет.png"], 5, "нет.png"),
        (["import", "картинки/текст.txt"], 5, "no picture"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    call: Call, data: Path, files: Path, words: list[str], code: int, message: str
) -> None:
    call("gallery", "import", files / "кот.png")
    result = call("gallery", *words)
    assert result.code == code and message in result.error


def test_without_a_gallery_there_is_one_line(call: Call, data: Path) -> None:
    assert "there is no database" in call("gallery", "list").error


class Server:
    """Remembers what commands ask, and answers like the real one; the database belongs to it."""

    def __init__(self, data: Path) -> None:
        self.asked: list[tuple[str, str, str, bytes]] = []
        self.store = Store.open(settings_of(data))
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                server.asked.append((self.command, self.path, self.headers.get("authorization", ""), body))
                wrong = "pic_" + "0" * 26 in self.path
                said: Any = {"id": "pic_new"} if not wrong else {"error": {"message": "there is no such picture"}}
                content = b"\x89PNG bytes" if self.command == "GET" else json.dumps(said).encode()
                self.send_response(404 if wrong else 200)
                self.send_header("Content-Type", "image/png" if self.command == "GET" else "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        info = {"url": f"http://127.0.0.1:{self.http.server_address[1]}", "token": "t0ken", "pid": os.getpid()}
        (data / "server.json").write_text(json.dumps(info))

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.store.close()


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    running = Server(data)
    yield running
    running.close()


def test_changes_go_through_the_server_that_runs(
    call: Call, data: Path, server: Server, files: Path, here: Path
) -> None:
    """The database is its; reading goes beside it."""
    from chashka.app.keeping.blobs import FOLDER, Blobs
    from chashka.app.keeping.importing import bring_in

    id = bring_in(server.store, Blobs(data / FOLDER), EVERY["InvokeAI png"], "local")[0].id
    assert [row["id"] for row in rows(call, "list")] == [id]
    assert call("gallery", "favourite", id).code == 0
    assert call("gallery", "delete", id).code == 0 and call("gallery", "restore", id).code == 0
    assert call("gallery", "collect", "Коты", id).code == 0
    assert call("gallery", "import", files / "кот.png").code == 0
    assert rows(call, "list", "-n", "1")[0]["source"] == "imported"
    (here / "старый.png").write_bytes(EVERY["InvokeAI png"])
    assert rows(call, "import", "старый.png") == [{"file": "старый.png", "id": id, "new": False}]
    assert call("gallery", "export", id, "--privacy", "none", "--out", "вышло").code == 0
    assert [(method, path) for method, path, _, _ in server.asked] == [
        ("PATCH", f"/v1/images/{id}"),
        ("DELETE", f"/v1/images/{id}"),
        ("POST", f"/v1/images/{id}/restore"),
        ("POST", "/v1/collections"),
        ("PATCH", f"/v1/images/{id}"),
        ("POST", "/v1/images"),
        ("GET", f"/v1/images/{id}?privacy=none"),
    ]
    assert {token for _, _, token, _ in server.asked} == {"Bearer t0ken"}
    assert json.loads(server.asked[0][3]) == {"favourite": True}
    assert EVERY["AUTOMATIC1111 png"] in server.asked[5][3]
    assert next((here / "вышло").iterdir()).read_bytes() == b"\x89PNG bytes"
    result = call("gallery", "delete", "pic_" + "0" * 26)
    assert (result.code, result.error) == (2, "error: there is no such picture")


def test_a_dead_servers_file_is_no_server(call: Call, data: Path, files: Path) -> None:
    data.mkdir()
    (data / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:9", "token": "t", "pid": 2**22 + 1}))
    assert call("gallery", "import", files / "кот.png").code == 0
    (data / "server.json").write_text("{")
    assert len(rows(call, "list")) == 1 and (data / NAME).is_file()


def test_another_owner_is_named(call: Call, data: Path, files: Path) -> None:
    """Something that holds the database and does not say where it is."""
    store = Store.open(settings_of(data))
    try:
        result = call("gallery", "import", files / "кот.png")
        assert result.code == 5 and str(os.getpid()) in result.error
    finally:
        store.close()


def test_our_own_drawings_keep_their_request(call: Call, data: Path, here: Path, loads: list[Any]) -> None:
    assert call("draw", "кот", "--seed", 7, "--out", "кот.png").code == 0
    (row,) = rows(call, "import", "кот.png")
    shown = json.loads(call("gallery", "show", row["id"]).out)
    assert shown["metadata"] == images.read_metadata(here / "кот.png") and shown["seed"] == 7
    assert png() != b""
