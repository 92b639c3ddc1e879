"""What routes need to know of a request: who asks, and what exactly was sent. For any router, the dialects' too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool

from chashka.app.guard.access import COOKIE, ForbiddenError, Who
from chashka.app.service import Service
from chashka.errors import InputError
from chashka.request import Request, shown

_NUMBER = re.compile(r"[-+]?[0-9._]+(e[-+]?[0-9]+)?|[-+]?(inf|infinity|nan)", re.IGNORECASE)


def needs(service: Service, scope: str) -> Callable[[HttpRequest], Coroutine[Any, Any, Who]]:
    """A dependency that gives whoever asks, if they have ``scope``: ``who: Who = Depends(needs(service, "read"))``.

    Raises UnauthorizedError, ForbiddenError; ``errors.install`` answers them.
    """

    async def asked(request: HttpRequest) -> Who:
        basic = request.url.path.startswith("/sdapi/")
        said = request.headers.get("authorization"), request.cookies.get(COOKIE)
        who = service.access.at_once(*said)
        if who is None:
            who = await run_in_threadpool(service.access.who, *said, basic=basic)
        if not who.may(scope):
            raise ForbiddenError(f"this needs a key with the scope {scope}; it has: {', '.join(sorted(who.scopes))}")
        return who

    return asked


async def raw(request: HttpRequest) -> bytes:
    """A dependency that gives the body as it was sent."""
    return await request.body()


def json_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object. Raises InputError."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("body: not valid JSON; allowed: a JSON object in UTF-8") from None
    if not isinstance(said, dict):
        raise InputError("body: not possible; allowed: a JSON object")
    return said


def plainly_typed(said: dict[str, Any]) -> dict[str, Any]:
    """The same, if JSON's types are kept apart; the options read command lines too, where everything is text.

    Raises InputError for 1 where true is meant, and for "7" where 7 is.
    """
    for name, value in said.items():
        types = _types().get(name, frozenset())
        if "boolean" in types and not (value is None or isinstance(value, bool)):
            raise InputError(f"{name}: {shown(value)} is not possible; allowed: true or false")
        if types & {"integer", "number"} and isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            raise InputError(f"{name}: {shown(value)} is text; allowed: a number, without quotes")
    return said


@cache
def _types() -> dict[str, frozenset[str]]:
    """JSON's types of the fields of a request."""
    properties = Request.model_json_schema()["properties"]
    return {
        name: frozenset(one.get("type", "") for one in (rule, *rule.get("anyOf", ())))
        for name, rule in properties.items()
    }
