"""Who may ask at all: the first thing a request meets, before routing and before its body is read.

What other sites' pages can make a browser do to a server on its own machine is refused here: names of hosts that are not ours
(DNS rebinding), foreign origins, forms. Sizes, and how deep JSON is nested, are counted while a body arrives. Every answer gets its
headers here, and what nobody expected becomes a plain 500. Pure ASGI; it knows nothing of the application behind it.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from chashka.app.guard import depth
from chashka.app.guard.access import loopback
from chashka.app.logs import log
from chashka.app.metrics import Metrics
from chashka.app.settings import Settings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Pairs: TypeAlias = list[tuple[bytes, bytes]]

CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MAX_RANGES = 8
BIG_JSON = re.compile(r"/sdapi/|/v1/images/(generations|edits|variations)$")
"""Routes whose JSON carries pictures in base64: an upload's limit holds."""
PAGES = re.compile(r"/$|/web/|/v1/images/pic_[0-9a-z]+(/thumbnail)?$")
"""What a link on another site may lead to, in a window of its own."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
FILE_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?")
_NO_BODY = frozenset({204, 304})


class _RefusedError(Exception):
    """An answer in place of what was asked for."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param


def error_body(path: str, status: int, code: str, message: str, param: str | None = None) -> bytes:
    """An error as clients of ``path`` read it: OpenAI's object, or A1111's four keys and FastAPI's ``detail``."""
    line = " ".join(message.split())
    if path.startswith("/sdapi/"):
        said: dict[str, Any] = {"error": code, "detail": line, "body": "", "errors": line}
    else:
        said = {"error": {"message": line, "type": error_type(status), "param": param, "code": code}}
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "replace")


def error_type(status: int) -> str:
    """OpenAI's names of kinds of errors."""
    names = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return names.get(status, "invalid_request_error" if status < 500 else "server_error")


class Shield:
    """ASGI middleware; wraps the whole application."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        given = {settings.host.lower(), *(name.lower() for name in settings.hosts)} - {"", "0.0.0.0", "::"}
        self._names = {
            *LOOPBACK_NAMES,
            *(f"[{name}]" if name.count(":") > 1 and name[0] != "[" else name for name in given),
        }
        self._addresses = not loopback(settings.host)
        self._origins = {origin.lower().rstrip("/") for origin in settings.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the request, hand it on, watch what goes in and out."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _Exchange(self, scope, receive, send).run()

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the application behind."""
        await self._app(scope, receive, send)

    def check(self, scope: Scope, headers: Headers) -> int:
        """Raises _RefusedError, or gives the number of bytes that the body may have."""
        host = self._host(headers)
        listed = self._site(scope, headers, host)
        if len(headers.get("range").split(",")) > MAX_RANGES:
            raise _RefusedError(
                416, "too_many_ranges", f"range: more than {MAX_RANGES} parts; allowed: at most {MAX_RANGES}"
            )
        if scope["method"] not in CHANGES:
            return self._settings.max_json
        return self._content(scope, headers, listed)

    def listed(self, origin: str) -> bool:
        """Whether the settings name this origin."""
        return bool(origin) and origin in self._origins

    def done(self, scope: Scope, status: int, seconds: float, code: str) -> None:
        """Count and log an answer."""
        route = getattr(scope.get("route"), "path", None) or ("refused" if code else "none")
        method = scope["method"] if scope["method"] in {*CHANGES, "GET", "HEAD", "OPTIONS"} else "other"
        self._metrics.count("chashka_http_requests_total", route=route, method=method, status=str(status))
        self._metrics.observe("chashka_http_seconds", seconds, route=route)
        if code:
            self._metrics.count("chashka_refusals_total", code=code)
        log(
            "request",
            id=scope["request_id"],
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            code=code,
        )

    def _host(self, headers: Headers) -> str:
        """The name and port that were asked for, in lower case, if they are ours."""
        said = headers.all("host")
        found = _HOST.fullmatch(said[0].lower()) if len(said) == 1 else None
        if found is None:
            raise _RefusedError(400, "host", "host: there has to be one header Host with the name of this server")
        name = found[1].rstrip(".")
        if name not in self._names and not (self._addresses and _is_address(name)):
            raise _RefusedError(
                403,
                "host",
                "host: this server has another name; allowed names: the settings host and hosts (CHASHKA_HOSTS)",
            )
        return said[0].lower()

    def _site(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Whether the asking page is one of the settings' origins; raises _RefusedError for any other foreign page."""
        origins = {value.lower() for value in headers.all("origin")}
        if len(origins) > 1:
            raise _RefusedError(400, "origin", "origin: more than one")
        origin = next(iter(origins), "")
        if self.listed(origin):
            return True
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            raise _RefusedError(
                403, "origin", "origin: pages of other sites may not use this server (CHASHKA_ORIGINS lists them)"
            )
        site = headers.get("sec-fetch-site").lower()
        if site in ("", "same-origin", "none"):
            return False
        page = (
            scope["method"] in ("GET", "HEAD")
            and headers.get("sec-fetch-mode").lower() == "navigate"
            and headers.get("sec-fetch-dest").lower() == "document"
            and PAGES.match(scope["path"]) is not None
        )
        if not page:
            raise _RefusedError(
                403, "site", "sec-fetch-site: other sites may not use this server; links to its page may"
            )
        return False

    def _content(self, scope: Scope, headers: Headers, listed: bool) -> int:
        """The limit of a body whose type no plain form of another site can send."""
        kind = _kind(headers)
        limits = self._settings.max_json, self._settings.max_upload
        if kind == "application/json":
            return max(limits) if BIG_JSON.match(scope["path"]) else limits[0]
        if kind == "multipart/form-data":
            if headers.all("x-chashka") or headers.all("authorization"):
                return limits[1]
            raise _RefusedError(
                415, "header_missing", "multipart needs a header X-Chashka (any value) or Authorization as well"
            )
        empty = not kind and headers.get("content-length") in ("", "0") and not headers.all("transfer-encoding")
        if empty and (not (headers.all("origin") or headers.all("sec-fetch-site")) or headers.all("x-chashka")):
            return 0  # a program that has nothing to say; browsers always name the page's origin
        raise _RefusedError(
            415,
            "content_type",
            f"content-type: {kind[:60]!r} is not possible; allowed: application/json, multipart/form-data",
        )


class Headers:
    """A request's headers by their names in lower case; each may come several times."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())

    def get(self, name: str) -> str:
        """The values joined by commas, as HTTP has it; empty if there are none."""
        return ",".join(self._values.get(name, ()))

    def all(self, name: str) -> list[str]:
        """Every value."""
        return self._values.get(name, [])


class _Exchange:
    """One request and its answer."""

    def __init__(self, shield: Shield, scope: Scope, receive: Receive, send: Send) -> None:
        self._shield, self._scope, self._receive, self._send = shield, scope, receive, send
        self._headers = Headers(scope["headers"])
        self._limit, self._got = 0, 0
        self._depth = None if _kind(self._headers) == "multipart/form-data" else depth.Depth()
        self._body_refused: _RefusedError | None = None
        self._status, self._code, self._started = 0, "", time.perf_counter()
        asked = self._headers.get("x-request-id")
        self._id = asked if _REQUEST_ID.fullmatch(asked) else f"req_{secrets.token_hex(12)}"
        scope["request_id"] = self._id

    async def run(self) -> None:
        try:
            await self._answer()
        except _RefusedError as refused:
            await self._refuse(refused)
        except Exception as error:
            log("unexpected", level=40, error=error, id=self._id)
            if not self._status:
                await self._refuse(
                    _RefusedError(500, "internal", "something went wrong in this server; its log says what")
                )
        finally:
            self._shield.done(self._scope, self._status or 499, time.perf_counter() - self._started, self._code)

    async def _answer(self) -> None:
        self._limit = self._shield.check(self._scope, self._headers)
        length = self._headers.get("content-length")
        if length and not length.isdigit():
            raise _RefusedError(400, "content_length", "content-length: not a number")
        if length and int(length[:20]) > self._limit:
            raise self._too_large()
        if self._scope["method"] == "OPTIONS" and self._shield.listed(self._headers.get("origin").lower()):
            await self._preflight()
            return
        await self._shield.pass_on(self._scope, self._counted, self._watched)

    async def _counted(self) -> Message:
        """The next part of the body; raises when it was more than may be, or nested deeper."""
        message = await self._receive()
        if message["type"] == "http.request":
            part = message.get("body", b"")
            self._got += len(part)
            if self._got > self._limit:
                self._body_refused = self._too_large()
            elif self._depth is not None:
                self._depth.feed(part)
                if self._depth.deepest > depth.DEEPEST:
                    self._body_refused = _too_deep()
            if self._body_refused is not None:
                raise self._body_refused
        return message

    def _too_large(self) -> _RefusedError:
        if not self._limit:
            return _RefusedError(
                415, "content_type", "content-type: missing; allowed: application/json, multipart/form-data"
            )
        return _RefusedError(413, "too_large", f"the body is too large; allowed: {self._limit} bytes (GET /v1/limits)")

    async def _watched(self, message: Message) -> None:
        """What the application answers, with our headers; in its place the refusal of a body that could not be taken."""
        if self._body_refused is not None:
            if not self._status:
                await self._refuse(self._body_refused)
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._code = getattr(self._scope.get("state"), "code", "") or self._scope.get("refusal", "")
            message = {**message, "headers": self._completed(list(message.get("headers", [])))}
        await self._send(message)

    async def _refuse(self, refused: _RefusedError) -> None:
        if self._status:
            return
        self._status, self._code = refused.status, refused.code
        body = error_body(self._scope["path"], refused.status, refused.code, refused.message, refused.param)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if refused.status in (413, 415) or refused is self._body_refused:
            headers.append((b"connection", b"close"))  # what is still coming is not read
        await self._send({"type": "http.response.start", "status": refused.status, "headers": self._completed(headers)})
        await self._send({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body})

    async def _preflight(self) -> None:
        """The answer to a browser that asks whether a listed site's page may ask."""
        self._status = 204
        headers = [
            (b"access-control-allow-methods", b"GET, POST, PATCH, DELETE"),
            (
                b"access-control-allow-headers",
                b"authorization, content-type, idempotency-key, last-event-id, x-chashka",
            ),
            (b"access-control-max-age", b"600"),
        ]
        await self._send({"type": "http.response.start", "status": 204, "headers": self._completed(headers)})
        await self._send({"type": "http.response.body", "body": b""})

    def _completed(self, headers: Pairs) -> Pairs:
        """The headers of every answer; those that the application set itself stay."""
        there = {name.lower() for name, _ in headers}
        added = [*HEADERS, (b"content-security-policy", FILE_POLICY.encode()), (b"cache-control", b"no-store")]
        headers += [(name, value) for name, value in added if name not in there]
        headers.append((b"x-request-id", self._id.encode()))
        origin = self._headers.get("origin")
        if self._shield.listed(origin.lower()):
            headers = [pair for pair in headers if pair[0] != b"cross-origin-resource-policy"]
            headers += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]
            headers.append((b"access-control-expose-headers", b"location, retry-after, x-request-id"))
        return headers


def _kind(headers: Headers) -> str:
    """The content type, without what is behind it."""
    return headers.get("content-type").partition(";")[0].strip().lower()


def _too_deep() -> _RefusedError:
    most = depth.DEEPEST
    message = (
        f"body: objects and lists are nested more than {most} deep; allowed: at most {most} levels (GET /v1/limits)"
    )
    return _RefusedError(400, "nested", message, "body")


def _is_address(name: str) -> bool:
    """Whether a host's name is an IP address: those cannot be made to mean another machine."""
    import ipaddress

    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
