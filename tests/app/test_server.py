"""What is served besides the API: the page, health, numbers, models, errors of routing; and what the log says."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from chashka.app import logs, server
from chashka.app.guard.shield import PAGE_POLICY
from chashka.app.keeping.housekeeping import Housekeeping
from chashka.app.routes import studio
from chashka.app.settings import Settings
from served import Served, png, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def test_the_page_and_its_files(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [path.relative_to(studio.FOLDER).as_posix() for path in studio.FOLDER.rglob("*") if path.is_file()]
    assert "index.html" in names
    for name in names:
        answer = served.client.get("/" if name == "index.html" else f"/web/{name}")
        assert answer.status_code == 200, f"{name} has a type that is not served"
        assert answer.headers["content-security-policy"] == PAGE_POLICY
        assert answer.headers["content-type"] == studio.TYPES[Path(name).suffix]
        again = served.client.get(f"/web/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    for name in ("../server.py", "..%2fserver.py", "nothing.js", "", "__init__.py"):
        assert served.client.get(f"/web/{name}").status_code == 404


def test_what_the_page_links_to_exists(served: Served) -> None:
    page = served.client.get("/").text
    for link in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert served.client.get(link).status_code == 200, link
    assert "<script>" not in page and " style=" not in page and "<style" not in page


def test_routes_that_do_not_exist(served: Served) -> None:
    answer = served.client.get("/v2/jobs")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
    answer = served.client.patch("/v1/jobs", json={})
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, POST"
    assert served.client.get("/v1/jobs/").status_code == 404  # no redirect to an address of the client's making


def test_health_and_readiness(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.client.get("/healthz").json()["status"] == "ok"
    ready = served.client.get("/readyz").json()
    assert ready["status"] == "ready" and ready["waiting"] == 0
    monkeypatch.setattr(served.service, "draining", True)
    answer = served.client.get("/readyz")
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "draining"
    assert served.client.get("/healthz").status_code == 200


def test_models_options_limits(served: Served) -> None:
    models = served.client.get("/v1/models").json()
    assert models["object"] == "list"
    (default,) = (model for model in models["data"] if model["default"])
    assert default["id"] == "kandinsky-teacup" and default["available"] and default["object"] == "model"
    schema = served.client.get(f"/v1/options/{default['family']}").json()
    assert {"prompt", "steps", "mix"} <= set(schema["properties"])
    assert served.client.get("/v1/options/paint").status_code == 404
    limits = served.client.get("/v1/limits").json()
    assert limits["limits"]["max_nesting"] == 16 and limits["limits"]["max_json_nesting"] == 32
    assert limits["limits"]["max_expansions"] == 256
    assert limits["limits"]["max_steps"] == 150 and limits["policy"] == "private"


def test_numbers(served: Served) -> None:
    served.drawn(prompt="a secret prompt")
    served.upload(png())
    served.client.get("/v1/jobs", headers={"Host": "evil.example"})
    text = served.client.get("/metrics").text
    rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(rows['chashka_jobs{state="done"}']) >= 1
    assert float(rows["chashka_pictures"]) >= 2
    assert float(rows['chashka_refusals_total{code="host"}']) >= 1
    assert float(rows['chashka_http_requests_total{method="POST",route="/v1/jobs",status="202"}']) >= 1
    assert float(rows['chashka_job_seconds{quantile="0.5"}']) >= 0
    assert "secret" not in text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for row in rows:
        assert re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", row) in names, row


def test_deleted_pictures_end_and_their_files_go(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        kept, gone = served.upload(png())["id"], served.drawn()["pictures"][0]["id"]
        served.client.delete(f"/v1/images/{gone}")
        blobs = set(served.service.blobs.names())
        keeping = Housekeeping(served.service.store, served.service.blobs, retention=0.0)
        served.service.blobs.sweep(set(), age=1e9)
        keeping.round()
        assert served.client.get(f"/v1/images/{gone}/metadata").status_code == 404
        assert set(served.service.blobs.names()) == blobs  # young files are spared
        served.service.blobs.sweep(served.service.store.referenced(), age=0.0)
        assert len(set(served.service.blobs.names())) == 2
        assert served.client.get(f"/v1/images/{kept}").status_code == 200


def test_the_log_is_json_and_keeps_secrets(tmp_path: Path) -> None:
    """Lines are one each and valid; no prompt, no key, no control character, whatever is sent."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs.Lines())
    root = logging.getLogger("chashka")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    hostile = (
        "CANARY\r\n{}",
        "CANARY\x1b[2J",
        "CANARY\u2028\u202e",
        "CANARY\x00",
        "CANARY" * 400,
        'CANARY", "level": "x',
    )
    try:
        with serving(tmp_path) as served:
            secret = served.service.store.keys.add("x", ["admin"])[1]
            served.service.access.changed()
            key = {"Authorization": f"Bearer {secret}"}
            for said in hostile:
                served.client.post("/v1/jobs", json={"prompt": said}, headers=key)
                served.client.post("/v1/jobs", json={said: said}, headers=key)
                served.client.get("/v1/images", params={"words": said}, headers=key)
                served.client.get("/" + quote(said), headers=key)
                served.client.get("/v1/jobs", headers={"Authorization": "Bearer CANARY", "User-Agent": "CANARY"})
            served.service.store.jobs.get = None  # type: ignore[assignment, method-assign]  # something unexpected
            assert served.client.get("/v1/jobs/job_" + "0" * 26, headers=key).status_code == 500
            del served.service.store.jobs.get
    finally:
        root.removeHandler(handler)
    text = out.getvalue()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) >= 5 * len(hostile) and all({"time", "level", "event"} <= set(line) for line in lines)
    assert "CANARY" not in text and secret not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", text)
    (unexpected,) = (line for line in lines if line["event"] == "unexpected")
    assert unexpected["error"] == "TypeError" and unexpected["where"]


def test_control_characters_in_the_log_are_escaped() -> None:
    record = logging.LogRecord("chashka", 20, "", 0, "a\x1b[2J\x9b\u202e\ud800b", (), None)
    line = logs.Lines().format(record)
    assert "\\u001b" in line and "\\u009b" in line and "\\u202e" in line and "\\ud800" in line
    assert json.loads(line)["event"].startswith("a\x1b[2J")


def test_answers_leave_at_once(tmp_path: Path) -> None:
    """Small segments are not held back until the client confirms the one before, which takes it 40 ms."""
    told: list[int] = []

    class Told(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            told.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def meet() -> None:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(Told, sock=server._bound(Settings(data=tmp_path, port=0)))
        async with listening:
            _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            while not told:
                await asyncio.sleep(0.01)
            writer.close()

    asyncio.run(meet())
    assert told[0] != 0
