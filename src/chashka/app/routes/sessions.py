"""Who may come in: the page's login, keys for programs, and what is noted of both."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Cookie, Depends, Query, Request, Response
from pydantic import Field, StringConstraints

from chashka.app.guard.access import COOKIE, UnauthorizedError, Who
from chashka.app.routes.asking import needs
from chashka.app.routes.errors import BODY, documented
from chashka.app.routes.examples import example
from chashka.app.routes.shapes import Asked, Name, Shape
from chashka.app.service import NotFoundError, Service
from chashka.app.store.keys import SCOPES, Key

SESSION = 30 * 86400
"""Seconds that a login holds."""
ScopeName = Literal["generate", "read", "train", "admin"]


class Login(Asked):
    """The key to log in with."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class LoggedIn(Shape):
    """Whom the session speaks for."""

    name: str
    scopes: list[str]


class NewKey(Asked):
    """A key to be made."""

    name: Name
    scopes: list[ScopeName] = Field(["generate", "read"], min_length=1, max_length=len(SCOPES))


class KeyShape(Shape):
    """A key without its secret."""

    id: str
    name: str
    scopes: list[str]
    created: float
    revoked: float | None


class MadeKey(KeyShape):
    """A new key, with the secret that is shown this once."""

    secret: str


class KeyList(Shape):
    """All keys, those that were revoked too."""

    object: Literal["list"] = "list"
    data: list[KeyShape]


class NoteShape(Shape):
    """What was noted: a refusal, a consent tick, a key that was made or revoked. Never what somebody wrote."""

    number: int
    at: float
    owner: str = Field(description="the id of the key that asked, or local")
    what: str = Field(description="consent, refused: minors, refused: consent, key added, key revoked")
    about: str = Field(description="the sha256 of the picture or of the words that were asked for; or a key's scopes")


class NoteList(Shape):
    """A page of the audit, the newest first."""

    object: Literal["list"] = "list"
    data: list[NoteShape]
    next: int | None = Field(description="`before` for the page that follows; null: this is the last one")


def router(service: Service) -> APIRouter:
    """The routes of logins and keys."""
    routes = APIRouter(tags=["keys"])
    admin = Depends(needs(service, "admin"))
    keys = service.store.keys
    _logins(routes, service)

    @routes.get("/v1/keys", summary="List keys", responses=documented(), openapi_extra=example("keys"))
    def list_keys(who: Who = admin) -> KeyList:
        """Every key there was; secrets are not kept and cannot be shown."""
        return KeyList(data=[_shape(key) for key in keys.list()])

    @routes.post(
        "/v1/keys", status_code=201, summary="Make a key", responses=documented(*BODY), openapi_extra=example("key")
    )
    def make_key(said: NewKey, who: Who = admin) -> MadeKey:
        """The secret is shown this once. From the first key on every request needs one."""
        key, secret = keys.add(said.name, said.scopes)
        service.access.changed()
        return MadeKey(**_shape(key).model_dump(), secret=secret)

    @routes.delete(
        "/v1/keys/{id}", summary="Revoke a key", responses=documented(404, *BODY), openapi_extra=example("revoke")
    )
    def revoke_key(id: str, who: Who = admin) -> KeyShape:
        """It opens nothing any more, and its sessions end."""
        if not any(key.id == id and key.revoked is None for key in keys.list()):
            raise NotFoundError("there is no such key that is still valid")
        key = keys.revoke(id)
        service.access.changed()
        return _shape(key)

    _audit(routes, service)
    return routes


def _audit(routes: APIRouter, service: Service) -> None:
    """What was noted."""
    admin = Depends(needs(service, "admin"))

    @routes.get("/v1/audit", summary="Read the audit", responses=documented(422), openapi_extra=example("audit"))
    def read_audit(
        who: Who = admin,
        before: Annotated[int | None, Query(ge=0, le=2**62, description="`next` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> NoteList:
        """Keys that were made and revoked; on a shared server also refusals and the consent ticks of uploads."""
        found = service.store.keys.notes(limit + 1, before)
        page = [NoteShape(**asdict(note)) for note in found[:limit]]
        return NoteList(data=page, next=page[-1].number if len(found) > limit else None)


def _logins(routes: APIRouter, service: Service) -> None:
    """Sessions of the page."""
    keys = service.store.keys

    @routes.post("/login", summary="Log in", responses=documented(*BODY), openapi_extra=example("login"))
    def login(said: Login, request: Request, response: Response) -> LoggedIn:
        """Open a session for the page: a cookie that scripts cannot read and other sites cannot use."""
        key = keys.check(said.key)
        if key is None:
            raise UnauthorizedError("this key is not valid; chashka keys add NAME makes one")
        secure = request.headers.get("origin", "").startswith("https:")
        response.set_cookie(
            COOKIE, keys.open_session(key, SESSION), max_age=SESSION, httponly=True, samesite="strict", secure=secure
        )
        return LoggedIn(name=key.name, scopes=list(key.scopes))

    @routes.post(
        "/logout",
        status_code=204,
        response_class=Response,
        summary="Log out",
        responses=documented(*BODY),
        openapi_extra=example("logout"),
    )
    def logout(session: Annotated[str | None, Cookie(alias=COOKIE, include_in_schema=False)] = None) -> Response:
        """End the session."""
        if session:
            keys.close_session(session)
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _shape(key: Key) -> KeyShape:
    return KeyShape(id=key.id, name=key.name, scopes=list(key.scopes), created=key.created, revoked=key.revoked)
