"""What there is: models, their options, limits; what a file says of its origin; whether the server is well, in numbers."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response, UploadFile
from pydantic import ConfigDict, Field

from chashka.app import settings as all_settings
from chashka.app.guard.access import Who
from chashka.app.routes.asking import needs
from chashka.app.routes.errors import BODY, documented, reply
from chashka.app.routes.examples import example
from chashka.app.routes.shapes import Shape
from chashka.app.service import NotFoundError, Service
from chashka.errors import ChashkaError

_TEXT = {"description": "Prometheus' text.", "content": {"text/plain": {"schema": {"type": "string"}}}}


class ModelShape(Shape):
    """A model, with the fields of OpenAI's and more."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    family: str = Field(description="its options: GET /v1/options/{family}")
    summary: str
    licence: str
    available: bool = Field(description="whether its files are here")
    default: bool = Field(description="whether it is used where a request names none")
    area: int = Field(description="pixels of the pictures it was trained on")
    multiple: int = Field(description="widths and heights that it draws are multiples of this")


class ModelList(Shape):
    """Every model that this server knows."""

    object: Literal["list"] = "list"
    data: list[ModelShape]


class OptionsShape(Shape):
    """A JSON Schema."""

    model_config = ConfigDict(extra="allow")
    properties: dict[str, Any]


class LimitsShape(Shape):
    """What requests may ask for at most, and how this server is set."""

    limits: dict[str, float]
    policy: str
    privacy: str
    key_needed: bool


class VerdictShape(Shape):
    """What is known of a file's origin."""

    kind: Literal["full", "mark", "logged", "alike", "foreign", "marked", "unknown"]
    message: str = Field(description="one line for people")
    sha256: str
    by_model: bool | None = Field(description="whether a trained model made it, wholly or in part; null: not known")
    logged: bool = Field(description="this very file was made or sent here")
    picture: str | None = Field(description="its id in the gallery")
    distance: int | None = Field(description="for alike: bits of 64 that differ")
    program: str
    source_type: str = Field(description="IPTC's digital source type")
    credentials: bool = Field(description="it carries C2PA, which is not checked")
    details: dict[str, Any]


class HealthShape(Shape):
    """How the server is."""

    status: Literal["ok"] = "ok"
    version: str


class ReadyShape(Shape):
    """Whether it takes work."""

    status: Literal["ready"] = "ready"
    waiting: int
    running: int


def router(service: Service) -> APIRouter:
    """The routes about the server."""
    routes = APIRouter(tags=["about"])
    reads = Depends(needs(service, "read"))
    _condition(routes, service)

    @routes.get("/v1/models", summary="List models", responses=documented(), openapi_extra=example("models"))
    def list_models(who: Who = reads) -> ModelList:
        """Every model, whether or not its files are here."""
        return ModelList(data=_models(service))

    @routes.get(
        "/v1/options/{family}",
        summary="Get a family's options",
        responses=documented(404, 422),
        openapi_extra=example("options"),
    )
    def get_options(family: str, who: Who = reads) -> OptionsShape:
        """The JSON Schema of what a request to the family's models may say."""
        from chashka import families

        if family not in families.FAMILIES:
            raise NotFoundError(f"there is no such family; there are: {', '.join(families.FAMILIES)}")
        return OptionsShape(**families.family(family).options.model_json_schema())

    @routes.get("/v1/limits", summary="Get limits", responses=documented(), openapi_extra=example("limits"))
    def get_limits(who: Who = reads) -> LimitsShape:
        """Every cap of this server."""
        set_ = service.settings
        return LimitsShape(
            limits={name: float(value) for name, value in all_settings.limits(set_).items()},
            policy=set_.policy,
            privacy=set_.privacy,
            key_needed=service.access.needed(),
        )

    @routes.post(
        "/v1/verify", summary="Verify a file", responses=documented(429, *BODY), openapi_extra=example("verify")
    )
    def verify_file(file: UploadFile, who: Who = reads) -> VerdictShape:
        """Whether a picture was made here or by another program, by its metadata, its marks and the log of what was sent.

        The file is not kept.
        """
        return VerdictShape(**service.verify(who, file.file.read()))

    return routes


def _condition(routes: APIRouter, service: Service) -> None:
    """Health, readiness, metrics."""
    from chashka import __version__

    reads = Depends(needs(service, "read"))

    @routes.get("/healthz", summary="Alive", responses=documented(), openapi_extra=example("health"))
    async def health() -> HealthShape:
        """Answers as long as the process lives."""
        return HealthShape(version=__version__)

    @routes.get(
        "/readyz", response_model=ReadyShape, summary="Ready", responses=documented(503), openapi_extra=example("ready")
    )
    def ready(request: Request) -> ReadyShape | Response:
        """Whether work is taken on: not while the server stops, nor while the store cannot be written."""
        try:
            if service.draining:
                return reply(request, 503, "draining", "the server is stopping")
            if not service.writable():
                return reply(request, 503, "storage_full", "the disk is nearly full")
            counts = service.store.jobs.counts()
        except ChashkaError:
            return reply(request, 503, "unavailable", "the store cannot be used")
        return ReadyShape(waiting=counts["queued"], running=counts["running"])

    @routes.get(
        "/metrics",
        summary="Metrics",
        response_class=Response,
        responses={200: _TEXT, **documented()},
        openapi_extra=example("metrics"),
    )
    def metrics(who: Who = reads) -> Response:
        """Jobs, pictures, refusals and requests in numbers, for Prometheus."""
        return Response(service.measured(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _models(service: Service) -> list[ModelShape]:
    from chashka import families
    from chashka.errors import WeightsError

    folder, default = service.settings.models, service.settings.model
    found = [(name, declaration, preset) for name, declaration, preset in families.models()]
    found += [(name, *families.find(name, folder)) for name in families.kept_names(folder)]
    rows = []
    for name, declaration, preset in found:
        try:
            available = not (place := families.located(name, preset, folder)).missing(place.place)
        except WeightsError:
            available = False
        rows.append(
            ModelShape(
                id=name,
                created=0,
                owned_by="chashka",
                family=declaration.name,
                summary=preset.summary,
                licence=preset.licence,
                available=available,
                default=name == default,
                area=preset.area,
                multiple=preset.multiple,
            )
        )
    return rows
