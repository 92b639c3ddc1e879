"""What the shield promises under attack (promises.md, section 5 and 1.3), at figures for two cores."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from served import Served, png, serving
from serving_process import rss, running, tell

pytestmark = pytest.mark.promise

MB = 1_000_000

HOSTS = (
    "127.0.0.1:8188",
    "localhost:8188",
    "evil.example",
    "localhost.evil.example:8188",
    "127.0.0.1.evil.example",
    "192.168.0.7",
)
ORIGINS = (
    None,
    "http://{host}",
    "null",
    "http://evil.example",
    "http://localhost:3000",
    "http://localhost.evil.example:8188",
)
SITES = (None, "none", "same-origin", "same-site", "cross-site")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
TYPES = (None, "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")


def test_p17_foreign_sites_cannot_drive_it(tmp_path: Path) -> None:
    """Every combination of what a browser would send for a page, ours or another's."""
    combinations = readable = refused_own = 0

    async def attack(served: Served, job: str) -> None:
        nonlocal combinations, readable, refused_own
        for host, origin, site, method, kind in itertools.product(HOSTS, ORIGINS, SITES, METHODS, TYPES):
            headers = {"host": host} | ({"origin": origin.format(host=host)} if origin else {})
            headers |= ({"sec-fetch-site": site} if site else {}) | ({"content-type": kind} if kind else {})
            own = host in HOSTS[:2] and origin in ORIGINS[:2] and site in SITES[:3]
            forms = kind in TYPES[2:] or (kind is None and (origin or site))
            path = f"/v1/jobs/{job}" + ("" if method == "GET" else "/move")
            answer = await exchange(served, method, path, headers, b"" if method == "GET" else b'{"before": null}')
            combinations += 1
            if not own or (method != "GET" and forms):
                readable += answer[0] < 400 or b"job_" in answer[1]
            elif method == "GET" or (method == "POST" and kind == "application/json"):
                refused_own += answer[0] != 200

    with serving(tmp_path, work=False) as served:
        job = served.submit()["id"]
        before = everything(served)
        asyncio.run(attack(served, job))
        assert asyncio.run(socket_refused(served))
        changed = int(everything(served) != before)
    tell("P17 combinations", combinations, ">= 300", combinations >= 300)
    tell("P17 changes_by_foreign_sites", changed, 0, changed == 0)
    tell("P17 readable_answers", readable, 0, readable == 0)
    tell("P17 own_requests_refused", refused_own, 0, refused_own == 0)


def everything(served: Served) -> Any:
    """The state that a foreign page could change."""
    jobs = served.service.store.jobs.list(limit=100)
    return [(job.id, job.state, job.stop) for job in jobs], served.service.store.pictures.count()


async def exchange(served: Served, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Straight to the application: httpx would correct paths and headers."""
    pairs = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": decoded(raw),
        "raw_path": raw.encode("latin-1", "replace"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": pairs,
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8188),
    }
    sent: list[Any] = []
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if given:
            return given.pop()
        await asyncio.sleep(3600)
        return None

    async def send(message: Any) -> None:
        sent.append(message)

    await served.app(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


def decoded(raw: str) -> str:
    """A path as servers hand it over."""
    from urllib.parse import unquote

    return unquote(raw, errors="replace")


async def socket_refused(served: Served) -> bool:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost:8188"), (b"origin", b"http://evil.example")]
    await served.app({"type": "websocket", "path": "/v1/jobs", "headers": headers, "query_string": b""}, receive, send)
    return [one["type"] for one in sent] == ["websocket.close"]


def traversals(data: Path) -> list[str]:
    """Ways out of a folder as servers were tricked with them, for files that are there."""
    targets = ("etc/passwd", "canary.txt", str(data / "canary.txt").lstrip("/"), "chashka.sqlite3", "server.json")
    ups = (
        "../",
        "..\\",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%2f",
        "%252e%252e%252f",
        "..%5c",
        "....//",
        "..;/",
        ".%00./",
        "%c0%ae%c0%ae/",
        "..%ef%bc%8f",
    )
    found = [up * depth + target for up in ups for depth in (1, 2, 4, 8, 12) for target in targets]
    found += [
        start + target
        for start in ("/", "//", "\\\\", "file://", "file:///", "%2f", "~/", "./", "/proc/self/root/")
        for target in targets
    ]
    found += [
        f"{up * 3}{target}{end}"
        for up in ups[:4]
        for target in targets
        for end in ("%00", "%00.png", ".", "::$DATA", "?", "#", "/", "/.")
    ]
    found += [
        "CON",
        "NUL",
        "aux.png",
        "COM1",
        "\\\\?\\C:\\x",
        "\\\\evil\\share",
        "a" * 5000,
        "%00",
        "%0a",
        "%ff%fe",
        ".",
        "..",
        "*",
        "?id=../",
    ]
    found += [
        "pic_" + "0" * 26 + "/../../canary.txt",
        "job_" + "z" * 26,
        "pic_" + "٠" * 26,
        "\u202ecanary",
        "..\u2215canary.txt",
    ]
    return list(dict.fromkeys(found))


def test_p18_no_path_leads_out(tmp_path: Path) -> None:
    """Every route with a parameter, and every parameter that names something."""
    data, leaked, broken, asked = tmp_path / "data", 0, 0, 0
    own = {"host": "localhost:8188", "content-type": "application/json"}

    async def attack(served: Served, routes: list[tuple[str, str]], strings: list[str]) -> None:
        nonlocal leaked, broken, asked
        for method, path in routes:
            head, _, rest = path.partition("{")
            tail = rest.partition("}")[2]
            for text in strings:
                body = b"" if method in ("GET", "DELETE") else b'{"before": null}'
                status, said = await exchange(served, method, head + text + tail, own, body)
                asked += 1
                leaked += b"CANARY" in said or b"root:" in said or b"SQLite format" in said
                broken += status >= 500

    with serving(data) as served:
        (data / "canary.txt").write_text("CANARY of the data folder")
        (tmp_path / "canary.txt").write_text("CANARY beside it")
        (data / "server.json").write_text('{"token": "CANARY"}')
        blob = served.upload(png())
        link = served.service.blobs.path("0" * 64)
        link.symlink_to(data / "canary.txt")
        document = served.client.get("/openapi.json").json()
        routes = [(method.upper(), path) for path, item in document["paths"].items() if "{" in path for method in item]
        routes += [("GET", "/web/{name}"), ("GET", "/v1/images?collection={x}"), ("GET", "/v1/jobs?after={x}")]
        routes += [("GET", f"/v1/images/{blob['id']}?format={{x}}"), ("GET", "/{x}")]
        strings = traversals(data)
        asyncio.run(attack(served, routes, strings))
        for use in strings:
            answer = served.client.post("/v1/jobs", json={"prompt": "x", "kind": "edit", "inputs": {"init": use}})
            answer_model = served.client.post("/v1/jobs", json={"prompt": "x", "model": use})
            asked += 2
            broken += answer.status_code >= 500 or answer_model.status_code not in (202, 422)
            leaked += b"CANARY" in answer.content + answer_model.content
    tell("P18 strings", len(strings), ">= 500", len(strings) >= 500)
    tell("P18 requests_that_leaked", leaked, f"0 of {asked}", leaked == 0)
    tell("P18 answers_5xx", broken, f"0 of {asked}", broken == 0)


def bombs() -> list[tuple[str, str, dict[str, str], bytes]]:
    """(method, path, headers, body): small to send, large to handle."""
    json_type = {"content-type": "application/json"}
    form = {"content-type": "multipart/form-data; boundary=x", "x-chashka": "1"}

    def job(**said: Any) -> tuple[str, str, dict[str, str], bytes]:
        return "POST", "/v1/jobs", json_type, json.dumps(said).encode()

    def file(data: bytes) -> tuple[str, str, dict[str, str], bytes]:
        head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        return "POST", "/v1/images", form, head + data + b"\r\n--x--\r\n"

    header = png()
    found = [job(prompt="x" * size) for size in (10_001, 100_000, 999_000)]
    found += [job(prompt=sign * 1_900 * 40) for sign in ("(", "[", "{", "{a|b}", "((", "|")]
    # below the limit of a prompt's length, on both routes that read prompts
    for path in ("/v1/jobs", "/v1/sketches"):
        for prompt in ("{" * 500, "{" * 9_990, "{a|" * 3_000, "{" * 17 + "a" + "}" * 17, "{a|b}" * 1_990):
            said = {"prompt": prompt, "choices": "all"}
            found.append(("POST", path, json_type, json.dumps(said).encode()))
        for sign in ("[", "(", "[("):
            said = {"prompt": sign * (9_980 // len(sign)), "model": "stable_diffusion-teacup"}
            found.append(("POST", path, json_type, json.dumps(said).encode()))
        blank = {"prompt": "a" + " " * 9_900 + "b AND " * 16 + "(c:101)", "model": "stable_diffusion-teacup"}
        found.append(("POST", path, json_type, json.dumps(blank).encode()))
    # texts that a parser's stack could just bear, and what reads them later could not
    deep = b'{"prompt": "x", "comments": ' + b'{"a":' * 950 + b"1" + b"}" * 951
    found += [("POST", path, json_type, deep) for path in ("/v1/jobs", "/v1/images/generations", "/sdapi/v1/txt2img")]
    found += [job(prompt="{" * 500, choices="random"), job(prompt="{" + "9" * 9_900 + "::a|b}", choices="random")]
    found += [
        job(prompt="x", **{name: value})
        for name in ("steps", "n", "width", "height")
        for value in (10**9, 10**30, -1, 1e308)
    ]
    found += [
        ("POST", "/v1/jobs", json_type, body)
        for body in (b"[" * 900_000, b'{"a":' * 150_000, b"1" * 900_000, b"{" + b'"a":1,' * 100_000)
    ]
    sizes = ((100_000, 100_000), (2**31 - 1, 2**31 - 1), (65_535, 65_535), (30_000, 30_000), (1, 2**31 - 1))
    found += [file(header[:16] + w.to_bytes(4, "big") + h.to_bytes(4, "big") + header[24:]) for w, h in sizes]
    found += [
        file(b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0" + b"\xff" * 10),
        file(b"\xff\xd8\xff" * 50_000),
        file(b"PK\3\4" * 10_000),
    ]
    found += [
        ("GET", "/v1/images", {"range": "bytes=" + ",".join(f"{i}-{i}" for i in range(n))}, b"")
        for n in (9, 100, 5_000)
    ]
    part = b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n'
    found += [("POST", "/v1/images", form, part * number) for number in (1_001, 10_000)]
    found += [
        ("POST", "/v1/images", form, b"--x\r\n" + b"a: b\r\n" * 10_000),
        ("POST", "/v1/images", form, b"-" * 1_000_000),
    ]
    found += [("GET", "/v1/images?words=" + "a" * size, {}, b"") for size in (501, 30_000)]
    found += [
        ("GET", "/v1/images?" + "words=a&" * 4_000 + "limit=x", {}, b""),
        ("GET", "/v1/jobs?limit=" + "9" * 5_000, {}, b""),
    ]
    found += [
        ("POST", "/v1/images/download", json_type, json.dumps({"ids": ["x"] * n}).encode()) for n in (501, 100_000)
    ]
    found += [("POST", "/login", json_type, json.dumps({"key": "x" * n}).encode()) for n in (201, 900_000)]
    found += [("GET", "/v1/jobs", {"x-many": "a" * 60_000, "host": "localhost.evil.example"}, b"")]
    found += [("POST", "/v1/collections", json_type, json.dumps({"name": "x" * n}).encode()) for n in (201, 900_000)]
    return found


def test_bombs_are_cheap_to_refuse(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--submits-per-minute", 0) as server:
        took, statuses = [], Counter[int]()
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for round_ in range(2):  # the first loads what the server loads once
                before = rss(server)
                for method, path, headers, body in bombs():
                    started = time.perf_counter()
                    answer = client.request(method, path, headers=headers, content=body)
                    if round_:
                        took.append(time.perf_counter() - started)
                        statuses[answer.status_code] += 1
                        assert 400 <= answer.status_code < 500, (
                            method,
                            path[:60],
                            headers,
                            body[:60],
                            answer.status_code,
                        )
            assert client.get("/readyz").status_code == 200
        grown = (rss(server) - before) / MB
    tell("S7 bombs", len(took), ">= 75", len(took) >= 75)
    tell("S7 slowest_ms", 1000 * max(took), 250, max(took) <= 0.25)
    tell("S7 memory_grown_mb", grown, 50, grown <= 50)
