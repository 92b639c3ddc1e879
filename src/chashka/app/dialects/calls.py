"""What both dialects do alike: who asks, what the body says, and what became of it when something was wrong."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from chashka.app.dialects.fields import FieldError
from chashka.app.guard.access import ForbiddenError, TooManyError, UnauthorizedError, Who
from chashka.app.jobs import ENDED, Job, KeyReusedError, Picture, Problem, QueueFullError
from chashka.app.keeping.blobs import StorageFullError
from chashka.app.routes.asking import needs
from chashka.app.service import NotFoundError
from chashka.errors import FileError, InputError, RefusedError

if TYPE_CHECKING:
    from chashka.app.service import Service

P = ParamSpec("P")
T = TypeVar("T")
_FIELD = re.compile(r"[a-zA-Z_][\w .\[\]-]{0,60}(?=: )")
_NO_MODEL = re.compile(r"model\b.*does not exist")
_MOST_PARTS = 64
STOPPING = "stopping"
"""The code for those who wait while the server stops."""


class JobError(Exception):
    """A job ended without what was asked for."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class NoModelError(Exception):
    """There is no model of that name."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as HTTP says it; each dialect puts it into its own words."""

    status: int
    code: str
    message: str
    param: str | None = None
    place: tuple[str | int, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """A body: fields, and of a form its files by their names, in their order."""

    fields: Any
    files: dict[str, list[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and who sent it."""

    service: Service
    who: Who
    request: Request

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Something of the service that blocks, outside of the event loop."""
        return await run_in_threadpool(function, *args, **kwargs)

    async def said(self) -> Said:
        """The body, JSON or a form. Raises FieldError."""
        kind = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return await self._form()
        raw = await self.request.body()
        try:
            return Said(json.loads(raw, parse_constant=_no_constant) if raw else {})
        except (ValueError, RecursionError):
            raise FieldError("", "the body is no JSON that can be read; allowed: a JSON object in UTF-8") from None

    async def upload(self, data: bytes, consent: bool) -> Picture:
        """A picture that was given, kept; ``service.reserve`` has counted it with the rest of its request."""
        return await self.run(self.service.upload, self.who, data, consent=consent, reserved=True)

    async def ended(self, job: Job) -> tuple[Job, list[Picture]]:
        """A job when it has ended, and its pictures. Raises JobError for one that failed, or gave nothing."""
        last = await self.service.ended(job.id)
        if last is None or last.state not in ENDED:
            raise JobError(Problem(STOPPING, "the server stops; the job is kept and goes on when it starts again"))
        pictures = await self.run(self.service.pictures_of, last)
        if last.state == "failed":
            raise JobError(last.problem or Problem("failed", "the job failed"))
        return last, pictures

    async def _form(self) -> Said:
        fields: dict[str, Any] = {}
        files: dict[str, list[bytes]] = {}
        async with self.request.form(max_files=_MOST_PARTS, max_fields=_MOST_PARTS) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files.setdefault(name, []).append(await value.read())
                elif fields.setdefault(name, value) != value:
                    raise FieldError(name, f"{name}: it came twice, with two values")
        return Said(fields, files)


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]
Show: TypeAlias = Callable[[Fault], Response]


@dataclass(frozen=True, slots=True)
class Speaker:
    """Adds a dialect's routes to ``router``. show: its words for what is wrong."""

    router: APIRouter
    service: Service
    show: Show

    def add(self, method: str, path: str, handler: Handler, scope: str, **document: Any) -> None:
        """A route for those who have ``scope``. document: what the OpenAPI document says of it."""

        needed = needs(self.service, scope)

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            try:
                who = await needed(request)
                answer = await handler(Call(self.service, who, request))
            except Exception as error:
                fault = await run_in_threadpool(fault_of, error, self.service)
                if fault is None:
                    raise
                request.scope["refusal"] = fault.code
                answer = self.show(fault)
            answer.headers["x-process-time"] = f"{time.perf_counter() - started:.4f}"
            return answer

        name = f"{method.lower()}_{path.strip('/').replace('/', '_').replace('-', '_')}"
        self.router.add_api_route(
            path, endpoint, methods=[method], name=name, operation_id=name, response_model=None, **document
        )


def fault_of(error: Exception, service: Service) -> Fault | None:
    """What HTTP says of an error; None for a mistake of ours.

    What failed after work began is 422 with ``x-should-retry: false``, never 5xx: clients send those again by themselves, and the
    same would fail the same way.
    """
    text = " ".join(str(error).split())
    match error:
        case FieldError():
            return Fault(400, "invalid_value", text, error.param or None, error.place)
        case NoModelError():
            return Fault(404, "model_not_found", text, "model")
        case InputError() if _NO_MODEL.match(text):
            return Fault(404, "model_not_found", text, "model")
        case InputError():
            found = _FIELD.match(text)
            return Fault(400, "invalid_value", text, found[0] if found else None)
        case StorageFullError():
            return Fault(507, "storage_full", text)
        case FileError():
            return Fault(400, "invalid_image", text, "image")
        case RefusedError():
            return Fault(400, "content_policy_violation", text, "prompt", headers={"x-should-retry": "false"})
        case UnauthorizedError():
            return Fault(401, "invalid_api_key", text)
        case ForbiddenError():
            return Fault(403, "forbidden", text)
        case NotFoundError():
            return Fault(404, "not_found", text)
        case TooManyError():
            return Fault(
                429, "rate_limit_exceeded", text, headers={"retry-after": str(max(1, round(error.retry_after + 0.5)))}
            )
        case QueueFullError():
            wait = str(service.retry_after())
            return Fault(
                429, "queue_full", text or "as many jobs wait as may; try again later", headers={"retry-after": wait}
            )
        case KeyReusedError():
            return Fault(422, "idempotency_key_reused", text or "this Idempotency-Key came with another body before")
        case JobError() if error.problem.code == STOPPING:
            return Fault(503, STOPPING, text, headers={"x-should-retry": "false"})
        case JobError():
            return Fault(422, error.problem.code, text, headers={"x-should-retry": "false"})
        case HTTPException():
            return Fault(error.status_code, "invalid_request", str(error.detail))
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(name)
