"""``/v1/sketches``: a draft at once, for pages that draw while somebody types."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from chashka.app.guard.access import Who
from chashka.app.routes.asking import json_object, needs, plainly_typed, raw
from chashka.app.routes.errors import BODY, documented
from chashka.app.routes.examples import example, options_schema
from chashka.app.service import Service

_PICTURE = {
    "description": "The picture; its seed is in its metadata.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["jobs"])
    makes = Depends(needs(service, "generate"))

    @routes.post(
        "/v1/sketches",
        summary="Draw a sketch",
        response_class=Response,
        responses={200: _PICTURE, **documented(409, 429, *BODY)},
        openapi_extra=example("sketch", options_schema(job=False)),
    )
    def draw_sketch(body: Annotated[bytes, Depends(raw)], who: Who = makes) -> Response:
        """One picture, drawn now with the model's quick settings, and kept nowhere; the answer is its file.

        The body has `prompt`, `model` and the fields of the model's options. Jobs go first: while one is being drawn the answer is
        409 with the code `busy` and `Retry-After`. A newer sketch of the same key ends the one before (409, `superseded`).
        """
        data, media_type = service.sketch(who, plainly_typed(json_object(body)))
        return Response(data, 200, {"Cache-Control": "no-store"}, media_type)

    return routes
