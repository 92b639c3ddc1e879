"""What went wrong, as an answer: one table of exceptions, one shape (OpenAI's error object; A1111's on its own paths)."""

from __future__ import annotations

import http
import re
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from chashka.app.guard.access import ForbiddenError, TooManyError, UnauthorizedError
from chashka.app.guard.shield import error_body
from chashka.app.service import ConflictError, KeyReusedError, NotFoundError, QueueFullError, Service, StorageFullError
from chashka.app.sketches import BusyError, SupersededError
from chashka.app.store.database import UnavailableError
from chashka.errors import FileError, InputError, MissingExtraError, RefusedError, WeightsError

STATUSES: dict[type[Exception], tuple[int, str]] = {
    UnauthorizedError: (401, "key_needed"),
    ForbiddenError: (403, "scope"),
    RefusedError: (403, "refused"),
    NotFoundError: (404, "not_found"),
    ConflictError: (409, "conflict"),
    SupersededError: (409, "superseded"),
    BusyError: (409, "busy"),
    KeyReusedError: (422, "key_reused"),
    UnavailableError: (503, "unavailable"),
    InputError: (422, "input"),
    MissingExtraError: (422, "missing_extra"),
    WeightsError: (422, "weights"),
    StorageFullError: (507, "storage_full"),
    FileError: (422, "file"),
    TooManyError: (429, "too_many"),
    QueueFullError: (429, "queue_full"),
}
"""Status and code of what the service raises; the first class that fits counts."""

MEANINGS = {
    400: "The request could not be read, or its Host is none.",
    401: "A key is needed.",
    403: "Not allowed: by the key's scopes, by the policy, or because a page of another site asks.",
    404: "There is none, or it is somebody else's.",
    409: "It does not go with how things are now.",
    413: "The body is larger than /v1/limits allows.",
    415: "The content type is not possible.",
    416: "More than eight ranges.",
    422: "A value is not possible; the message names the field, what was given and what is allowed.",
    429: "Too many requests, or the queue is full; Retry-After says when to try again.",
    503: "Not ready: the server stops, or the store cannot be used.",
    507: "The disk is nearly full.",
}
ALWAYS = (400, 401, 403, 416, 503)
"""What any operation may answer."""
BODY = (413, 415, 422)


class Failure(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="forbid")
    message: str = Field(description="one line: what was wrong, what was given, what is allowed")
    type: str = Field(description="the kind of error, as OpenAI names them")
    param: str | None = Field(description="the field that is wrong, where there is one")
    code: str | None = Field(description="for programs, for example input, not_found, queue_full, storage_full")


class Failed(BaseModel):
    """An error."""

    model_config = ConfigDict(extra="forbid")
    error: Failure


SCHEMAS = {
    model.__name__: model.model_json_schema(ref_template="#/components/schemas/{model}") for model in (Failed, Failure)
}
"""The shape of errors, for the components of the OpenAPI document."""
SCHEMAS["Failed"].pop("$defs")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may answer besides its success, for OpenAPI; with what any may. ``SCHEMAS`` has the shape."""
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/Failed"}}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": MEANINGS[status], "content": shape} for status in sorted({*ALWAYS, *statuses})
    }
    if 429 in found:
        wait = {"description": "seconds", "schema": {"type": "integer"}, "required": True}
        found[429]["headers"] = {"Retry-After": wait}
    return found


def reply(request: Request, status: int, code: str, message: str, param: str | None = None) -> Response:
    """An error as the asking client reads it; the shield counts its code."""
    request.scope["refusal"] = code
    body = error_body(request.url.path, status, code, message, param)
    headers = {"WWW-Authenticate": _challenge(request)} if status == 401 else {}
    return Response(body, status, headers, "application/json")


def install(app: FastAPI, service: Service) -> None:
    """Answer every exception of the table, and what FastAPI raises itself. Handlers are not async: they run in threads."""

    def known(request: Request, error: Exception) -> Response:
        status, code = next(STATUSES[kind] for kind in STATUSES if isinstance(error, kind))
        message = str(error) or _unsaid(error)
        if isinstance(error, RefusedError):
            code = error.rule
        answer = reply(request, status, code, message, param_of(message) if status == 422 else None)
        if isinstance(error, TooManyError):
            answer.headers["Retry-After"] = str(max(1, round(error.retry_after + 0.5)))
        elif isinstance(error, BusyError):
            answer.headers["Retry-After"] = "1"
        elif status in (429, 503):
            answer.headers["Retry-After"] = str(service.retry_after())
        return answer

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return reply(request, 400, "json", "the body is not valid JSON")
        name = ".".join(str(part) for part in first["loc"][1:])[:80] or "body"
        return reply(request, 422, "input", f"{name}: not possible; allowed: {_allowed(first['msg'])}", name)

    def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method"}.get(error.status_code, "request")
        message = {404: "there is no such route", 405: "this route does not take that method"}.get(
            error.status_code, http.HTTPStatus(error.status_code).phrase.lower()
        )
        answer = reply(request, error.status_code, code, message)
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = ", ".join(sorted(_methods(app, request.url.path))) or answer.headers["Allow"]
        return answer

    def unexpected(request: Request, error: Exception) -> Response:
        return reply(request, 500, "internal", "something went wrong in this server; its log says what")

    for kind in STATUSES:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
    app.add_exception_handler(Exception, unexpected)


def _methods(app: FastAPI, path: str) -> set[str]:
    """What a path can be asked with; a framework's answer knows one route alone."""
    found: set[str] = set()
    paths = app.openapi()["paths"]
    for template, item in ((path, paths[path]),) if path in paths else paths.items():
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path):
            found.update(method.upper() for method in item)
    return found


def param_of(message: str) -> str | None:
    """The field that a message of ours begins with (``steps: 0 is not possible; …``)."""
    head, colon, _ = message.partition(":")
    return head if colon and re.fullmatch(r"[A-Za-z_][\w-]{0,39}", head) else None


def _unsaid(error: Exception) -> str:
    if isinstance(error, QueueFullError):
        return "the queue is full; try again later"
    if isinstance(error, KeyReusedError):
        return "Idempotency-Key: it came with another body before; use a new one for another request"
    return type(error).__name__


def _allowed(message: str) -> str:
    """Pydantic's sentence as the part after "allowed:"."""
    return re.sub(r"^(Input should be |Value error, |String should )", "", message)[:160]


def _challenge(request: Request) -> str:
    return 'Basic realm="chashka"' if request.url.path.startswith("/sdapi/") else "Bearer"
