"""The shield alone, over an application that reads its body and answers."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chashka.app.guard.depth import Depth
from chashka.app.guard.shield import HEADERS, Shield
from chashka.app.metrics import Metrics
from chashka.app.settings import Settings

JSON = {"content-type": "application/json"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Behind:
    """What the shield protects: counts what reaches it, reads the body, says how long it was."""

    def __init__(self) -> None:
        self.reached = 0
        self.read = 0
        self.fail: Exception | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached += 1
        if self.fail is not None:
            raise self.fail
        more = True
        while more:
            message = await receive()
            self.read += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(self.read).encode()})


Ask = Callable[..., Answer]


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def asking(behind: Behind, metrics: Metrics, **said: Any) -> Ask:
    shield = Shield(behind, Settings(data=Path("nowhere"), **said), metrics)

    def ask(method: str = "GET", path: str = "/v1/jobs", body: Any = b"", **headers: str) -> Answer:
        given = {"host": "localhost:8188"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return asyncio.run(exchange(shield, method, path, given, body))

    return ask


@pytest.fixture
def ask(behind: Behind, metrics: Metrics) -> Ask:
    return asking(behind, metrics)


async def exchange(
    app: Callable[..., Awaitable[None]],
    method: str,
    path: str,
    headers: dict[str, str] | list[tuple[str, str]],
    body: Any,
) -> Answer:
    pairs = headers.items() if isinstance(headers, dict) else headers
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "scheme": "http",
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs if value is not None
        ],
    }
    parts = list(body) if isinstance(body, list) else [body]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers_back = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    assert sent[0]["type"] == "http.response.start"
    return Answer(sent[0]["status"], headers_back, b"".join(one.get("body", b"") for one in sent[1:]))


FOREIGN = (
    *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "0.0.0.0:8188", "192.168.1.2"),
    *("localhost@evil", "localhost:8188:8", "loc\xe4lhost", "localhost/", "[::2]", "localhost%00", "", "a" * 5000),
)


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names(ask: Ask, behind: Behind, host: str) -> None:
    answer = ask(host=host)
    assert answer.status in (400, 403) and answer.error["code"] == "host"
    assert behind.reached == 0


def test_one_host_exactly(behind: Behind, metrics: Metrics) -> None:
    shield = Shield(behind, Settings(), metrics)
    for pairs in ([], [("host", "localhost"), ("host", "evil.example")]):
        assert asyncio.run(exchange(shield, "GET", "/", pairs, b"")).status == 400
    assert behind.reached == 0


def test_an_exposed_server_has_its_addresses_for_names(behind: Behind, metrics: Metrics) -> None:
    """An address cannot be bound to another machine, a name can."""
    ask = asking(behind, metrics, host="0.0.0.0")
    assert ask(host="192.168.1.2:8188").status == 200
    assert ask(host="cups.example").status == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost.evil.example:8188"},
        {"origin": "file://"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "origin": "http://localhost:8188"},
    ],
)
def test_pages_of_other_sites(ask: Ask, behind: Behind, method: str, headers: dict[str, str]) -> None:
    answer = ask(method, body=b"{}", **JSON, **headers)
    assert answer.status == 403
    assert "access-control-allow-origin" not in answer.headers
    assert behind.reached == 0


def test_our_own_page(ask: Ask) -> None:
    own = {"origin": "http://localhost:8188", "sec_fetch_site": "same-origin"}
    assert ask("POST", body=b"{}", **JSON, **own).status == 200
    assert ask("GET", "/", sec_fetch_site="none").status == 200
    assert (
        ask("POST", body=b"{}", **JSON, origin="https://localhost:8188").status == 200
    )  # behind a proxy that does TLS


def test_a_link_on_another_site_leads_to_pages_only(ask: Ask) -> None:
    click = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert ask("GET", "/", **click).status == 200
    assert ask("GET", "/v1/images/pic_0", **click).status == 200
    assert ask("GET", "/v1/jobs", **click).status == 403
    assert ask("POST", "/", body=b"{}", **JSON, **click).status == 403
    assert ask("GET", "/", **(click | {"sec_fetch_dest": "iframe"})).status == 403
    assert ask("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="no-cors", sec_fetch_dest="image").status == 403


def test_listed_origins(behind: Behind, metrics: Metrics) -> None:
    ask = asking(behind, metrics, origins=("https://Friend.example/",))
    friend = {"origin": "https://friend.example", "sec_fetch_site": "cross-site"}
    answer = ask("POST", body=b"{}", **JSON, **friend)
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "https://friend.example"
    assert "access-control-allow-credentials" not in answer.headers
    asked = ask("OPTIONS", access_control_request_method="POST", **friend)
    assert asked.status == 204 and "authorization" in asked.headers["access-control-allow-headers"]
    assert ask("OPTIONS", origin="https://other.example").status == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_plain_forms_can_send(ask: Ask, behind: Behind, method: str, kind: str) -> None:
    own = {"origin": "http://localhost:8188"}
    assert ask(method, body=b"{}", content_type=kind, content_length="2", **own).status == 415
    assert behind.reached == 0


def test_forms_with_a_header_of_their_own(ask: Ask) -> None:
    form = {"content_type": "multipart/form-data; boundary=x"}
    assert ask("POST", body=b"--x--", x_chashka="1", **form).status == 200
    assert ask("POST", body=b"--x--", authorization="Bearer x", **form).status == 200


def test_programs_may_say_nothing(ask: Ask) -> None:
    assert ask("POST").status == 200
    assert ask("DELETE", content_length="0").status == 200
    assert ask("POST", origin="http://localhost:8188").status == 415
    assert ask("POST", origin="http://localhost:8188", x_chashka="1").status == 200
    assert ask("POST", body=b"{}").status == 415  # a body after all
    assert ask("POST", body=b"{}", transfer_encoding="chunked").status == 415


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v1/jobs", 1000), ("/v1/images/generations", 5000), ("/v1/images/edits", 5000), ("/sdapi/v1/txt2img", 5000)],
)
def test_sizes_are_counted_as_they_come(behind: Behind, metrics: Metrics, path: str, limit: int) -> None:
    ask = asking(behind, metrics, max_json=1000, max_upload=5000)
    assert ask("POST", path, [b"x" * 100] * (limit // 100), **JSON).status == 200
    behind.read = 0
    answer = ask("POST", path, [b"x" * 100] * 1000, **JSON)
    assert answer.status == 413 and str(limit).encode() in answer.body
    assert behind.read <= limit
    behind.reached = 0
    assert ask("POST", path, b"", content_length=str(limit + 1), **JSON).status == 413
    assert ask("POST", path, b"", content_length="9" * 5000, **JSON).status == 413
    assert ask("POST", path, b"", content_length="-1", **JSON).status == 400
    assert behind.reached == 0


def test_the_refusal_of_a_large_body_replaces_what_the_application_says(metrics: Metrics) -> None:
    """Frameworks make their own error of a body that breaks off."""

    async def hiding(scope: Any, receive: Any, send: Any) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
        except Exception:
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"own"})

    shield = Shield(hiding, Settings(max_json=10), metrics)
    headers = {"host": "localhost", **JSON}
    answer = asyncio.run(exchange(shield, "POST", "/v1/jobs", headers, [b"x" * 9, b"x" * 9]))
    assert answer.status == 413 and answer.error["code"] == "too_large"


def nested(levels: int) -> bytes:
    """A body of so many levels, with brackets in its texts besides."""
    lists = (levels - 1) // 2
    objects = levels - 1 - lists
    return b'{"[[[[\\"[[{": ' + b"[" * lists + b'{"a": ' * objects + b'"{[[\\\\"' + b"}" * objects + b"]" * lists + b"}"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/images/edits", "/sdapi/v1/txt2img"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_how_deep_json_is_nested_is_counted_as_it_comes(behind: Behind, ask: Ask, path: str, size: int) -> None:
    def parts(body: bytes) -> list[bytes]:
        return [body[i : i + size] for i in range(0, len(body), size)]

    json.loads(nested(32))
    assert ask("POST", path, parts(nested(32)), **JSON).status == 200
    assert ask("POST", path, parts(b"[" + b"[[], {}]," * 500 + b'"\\"[[["' + b"]"), **JSON).status == 200
    for levels in (33, 950, 100_000):
        behind.read = 0
        answer = ask("POST", path, parts(nested(levels)), **JSON)
        assert answer.status == 400 and b"more than 32 deep; allowed: at most 32 levels" in answer.body
        assert answer.headers["connection"] == "close" and behind.read <= max(size, 500)
    forms = {"content-type": "multipart/form-data; boundary=x", "x-chashka": "1"}
    assert ask("POST", path, parts(nested(900)), **forms).status == 200  # files are no JSON


def test_depth_is_what_json_has() -> None:
    """Of any value, however it arrives."""
    chance = random.Random(7)

    def value(levels: int) -> Any:
        kind = chance.random()
        if not levels or kind < 0.3:
            return chance.choice([1, 'a[{\\"', '\\"]]', "\\\\", '"', None, "é\\"])
        inner = [value(levels - 1) for _ in range(chance.randrange(4))]
        return inner if kind < 0.6 else {f'{i}"[{{\\': one for i, one in enumerate(inner)}

    def levels_of(value: Any) -> int:
        if not isinstance(value, list | dict):
            return 0
        return 1 + max(map(levels_of, value.values() if isinstance(value, dict) else value), default=0)

    for _ in range(300):
        said = value(6)
        body, counted = json.dumps(said, ensure_ascii=chance.random() < 0.5).encode(), Depth()
        while body:
            length = chance.choice([0, 1, 2, 5, 40])
            counted.feed(body[:length])
            body = body[length:]
        assert counted.deepest == levels_of(said), said


def test_ranges(ask: Ask) -> None:
    assert ask(range="bytes=0-1").status == 200
    assert ask(range="bytes=" + ",".join("0-1" for _ in range(8))).status == 200
    assert ask(range="bytes=" + ",".join("0-1" for _ in range(100))).status == 416


def test_headers_of_every_answer(ask: Ask, behind: Behind) -> None:
    for answer in (ask(), ask(host="evil.example"), ask("POST", body=b"x", content_type="text/plain")):
        for name, value in HEADERS:
            assert answer.headers[name.decode()] == value.decode()
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-request-id"].startswith("req_")
        assert "access-control-allow-origin" not in answer.headers
    assert ask(x_request_id="mine-7").headers["x-request-id"] == "mine-7"
    assert ask(x_request_id="mine\nx").headers["x-request-id"].startswith("req_")
    behind.fail = RuntimeError("a secret about a prompt")
    assert ask().headers["x-frame-options"] == "DENY"


def test_the_unexpected(ask: Ask, behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    behind.fail = RuntimeError("a secret about a prompt")
    answer = ask()
    assert answer.status == 500
    assert answer.error == {
        "message": "something went wrong in this server; its log says what",
        "type": "server_error",
        "param": None,
        "code": "internal",
    }
    assert b"secret" not in answer.body
    assert "unexpected" in caplog.messages


def test_errors_of_a1111s_paths_have_its_shape(ask: Ask) -> None:
    said = json.loads(ask("POST", "/sdapi/v1/txt2img", b"x", content_type="text/plain").body)
    assert set(said) == {"error", "detail", "body", "errors"}


def test_sockets_are_closed(behind: Behind, metrics: Metrics) -> None:
    shield, sent = Shield(behind, Settings(), metrics), []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(shield({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert [one["type"] for one in sent] == ["websocket.close"] and behind.reached == 0


def test_refusals_are_counted(ask: Ask, metrics: Metrics) -> None:
    ask(host="evil.example")
    text = metrics.text({})
    assert 'chashka_refusals_total{code="host"} 1' in text
    assert 'chashka_http_requests_total{method="GET",route="refused",status="403"} 1' in text
