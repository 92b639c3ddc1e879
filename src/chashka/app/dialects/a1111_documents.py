"""What the OpenAPI document says of A1111's routes: bodies, answers, examples that the tests run."""

from __future__ import annotations

import json
from typing import Any

from chashka.app.dialects.a1111_extras import ExtraBatch, ExtraSingle, PngInfo
from chashka.app.dialects.a1111_fields import ImageToImage, TextToImage
from chashka.app.dialects.a1111_lists import Options, ProgressAsked
from chashka.app.dialects.fields import Body, schema

DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAY0lEQVR42u3ZwQkAIAwDwM7pJI7jOI7lDCkIggd5h94ztMZcUXaY2/0FAAAAAA"
    "AAAAAAANAGvHZQ2g8AAAAAAAAAAAAA0AdYZAAAAAAAAAAAAAD+AxYZAAAAAAAAAAAAwHeAA86qkYd0q69zAAAAAElFTkSuQmCC"
)
"""A small PNG, for examples."""
BODIES: dict[str, tuple[type[Body], dict[str, Any]]] = {
    "/sdapi/v1/txt2img": (
        TextToImage,
        {"prompt": "чашка на столе", "steps": 2, "seed": 7, "width": 256, "height": 256},
    ),
    "/sdapi/v1/img2img": (
        ImageToImage,
        {"prompt": "красная чашка", "init_images": [DOT], "denoising_strength": 0.6, "steps": 2, "seed": 7},
    ),
    "/sdapi/v1/options": (Options, {"samples_format": "png"}),
    "/sdapi/v1/png-info": (PngInfo, {"image": DOT}),
    "/sdapi/v1/extra-single-image": (ExtraSingle, {"image": DOT, "upscaler_1": "Lanczos", "upscaling_resize": 2}),
    "/sdapi/v1/extra-batch-images": (
        ExtraBatch,
        {"imageList": [{"data": DOT, "name": "dot"}], "upscaler_1": "Nearest", "upscaling_resize": 2},
    ),
    "/internal/progress": (ProgressAsked, {"id_task": "task(1)", "id_live_preview": -1}),
}
_ERROR = {
    "type": "object",
    "required": ["error", "detail", "body", "errors"],
    "properties": {
        "error": {"type": "string"},
        "detail": {"description": "a sentence; where a field is wrong a list of {loc, msg, type}"},
        "body": {"type": "string"},
        "errors": {"type": "string", "description": "one line: what was wrong, what was given, what is allowed"},
    },
}
_MEANINGS = {
    400: "Sampler not found, the policy refuses, or the body is nested too deep.",
    401: "A key is needed: HTTP Basic with the key as the password, or Bearer.",
    403: "Not allowed.",
    404: "There is no such model, picture or ability.",
    413: "The body is too large.",
    415: "The content type is not possible.",
    416: "More than eight ranges.",
    422: "A value is not possible, or the job failed after work began.",
    429: "Too many requests, or the queue is full; Retry-After says when to try again.",
    503: "The server stops; the job is kept.",
    507: "The disk is nearly full.",
}
_IMAGES = {"type": "array", "items": {"type": "string"}}
_ANSWERS: dict[str, dict[str, Any]] = {
    "/sdapi/v1/txt2img": {
        "type": "object",
        "required": ["images", "parameters", "info"],
        "properties": {"images": _IMAGES, "parameters": {"type": "object"}, "info": {"type": "string"}},
    },
    "/sdapi/v1/progress": {
        "type": "object",
        "required": ["progress", "eta_relative", "state", "current_image", "textinfo"],
        "properties": {
            "progress": {"type": "number", "minimum": 0, "maximum": 1},
            "eta_relative": {"type": "number"},
            "state": {"type": "object"},
            "current_image": {"type": ["string", "null"]},
            "textinfo": {"type": ["string", "null"]},
        },
    },
}
_ANSWERS["/sdapi/v1/img2img"] = _ANSWERS["/sdapi/v1/txt2img"]
_DRAWS = "Fields that are absent are the model's own choice. What has no effect is in `info.extra_generation_params.Warnings`."


def document(method: str, path: str) -> dict[str, Any]:
    """The arguments of a route."""
    body = BODIES.get(path) if method == "POST" else None
    said: dict[str, Any] = {"x-codeSamples": [{"lang": "Shell", "label": "curl", "source": _curl(method, path, body)}]}
    if body is not None:
        content = {"application/json": {"schema": schema(body[0]), "example": body[1]}}
        said["requestBody"] = {"required": True, "content": content}
    if path == "/sdapi/v1/progress":
        said["parameters"] = [
            {"name": "skip_current_image", "in": "query", "schema": {"type": "boolean", "default": False}}
        ]
    answer = _ANSWERS.get(path, {})
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "The answer.", "content": {"application/json": {"schema": answer}}}
    }
    for status in (400, 401, 403, 416, *((404, 413, 415, 422, 429, 503, 507) if method == "POST" else (422,))):
        responses[status] = {"description": _MEANINGS[status], "content": {"application/json": {"schema": _ERROR}}}
    name = path.rpartition("/")[2].replace("-", " ").replace("_", " ")
    return {
        "summary": f"A1111: {name}",
        "description": f"{_DRAWS if 'img2img' in path or 'txt2img' in path else 'As A1111 has it.'} See docs/dialects.md.",
        "responses": responses,
        "openapi_extra": said,
    }


def _curl(method: str, path: str, body: tuple[type[Body], dict[str, Any]] | None) -> str:
    if method == "GET":
        return f"curl $CHASHKA{path}"
    if body is None:
        return f"curl -X POST $CHASHKA{path}"
    return (
        f"curl $CHASHKA{path} -H 'Content-Type: application/json' \\\n  -d '{json.dumps(body[1], ensure_ascii=False)}'"
    )
