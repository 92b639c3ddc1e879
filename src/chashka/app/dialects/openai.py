"""OpenAI's images API: generations, edits and variations, as their clients in Python and JavaScript speak it.

What each field means here is in docs/dialects.md. The answer waits for the job; a client that goes away loses nothing, and one that
asks again (``x-stainless-retry-count``) gets the job that it began.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from chashka.app.dialects import openai_answers as answers
from chashka.app.dialects import openai_documents as documents
from chashka.app.dialects.calls import Call, Fault, NoModelError, Said, Speaker
from chashka.app.dialects.fields import FieldError, parsed
from chashka.app.dialects.openai_fields import MOST_PICTURES, NAMES, Edit, Generation, Variation, request_fields
from chashka.app.dialects.pictures import from_text, mask_of_openai
from chashka.app.dialects.retries import WINDOW, Retries, digest
from chashka.app.guard.shield import error_type
from chashka.app.jobs import Job

if TYPE_CHECKING:
    from chashka.app.service import Service

_IMAGE = re.compile(r"image(\[\d*\])?")


def router(service: Service) -> APIRouter:
    """The three routes."""
    speaker = Speaker(APIRouter(tags=["OpenAI"]), service, shown)
    retries = Retries()
    for path, handler, document in (
        ("/v1/images/generations", generations, documents.GENERATIONS),
        ("/v1/images/edits", edits, documents.EDITS),
        ("/v1/images/variations", variations, documents.VARIATIONS),
    ):
        speaker.add("POST", path, partial(handler, retries), "generate", **document)
    return speaker.router


def shown(fault: Fault) -> Response:
    """An error as OpenAI's clients read it."""
    said = {"message": fault.message, "type": error_type(fault.status), "param": fault.param, "code": fault.code}
    headers = dict(fault.headers)
    if fault.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": said}, fault.status, headers)


async def generations(retries: Retries, call: Call) -> Response:
    """Pictures from words."""
    said = await call.said()
    body = parsed(Generation, said.fields)
    warnings: list[str] = []
    fields = _fields(call, body, warnings)
    if body.strength is not None:
        warnings.append("strength: it has no effect without a picture (POST /v1/images/edits)")

    async def begin() -> dict[str, Any]:
        return fields | {"kind": "draw"}

    job = await _job(_Asked(call, retries, "generations", said), begin)
    return await answers.answer(call, job, body, warnings, "image_generation")


async def edits(retries: Retries, call: Call) -> Response:
    """Pictures from a picture and words; with a mask, a part of it."""
    said = await call.said()
    body = parsed(Edit, said.fields)
    warnings: list[str] = []
    fields = _fields(call, body, warnings)
    given, mask = _given(said, body)
    mixes = "mix" in _options(fields["model"], call.service)

    if body.strength is not None:
        fields["strength"] = body.strength

    async def begin() -> dict[str, Any]:
        inputs = {"init": await _picture_id(call, given[0], body)}
        said_now = dict(fields)
        if mask is not None:
            inputs["mask"] = await _mask_id(call, mask, body, warnings)
        if len(given) > 1 and mixes:
            inputs |= {f"picture {i}": await _picture_id(call, one, body) for i, one in enumerate(given[1:])}
            said_now |= _mixed(body.prompt, len(given) - 1)
        return said_now | {"kind": "edit", "inputs": inputs}

    used = given if mixes else given[:1]
    uploads = sum(isinstance(one, bytes) for one in used) + (mask is not None)
    if len(given) > 1 and not mixes:
        warnings.append(f"image: this model takes one picture; the other {len(given) - 1} had no effect")
    job = await _job(_Asked(call, retries, "edits", said), begin, uploads)
    return await answers.answer(call, job, body, warnings, "image_edit")


async def variations(retries: Retries, call: Call) -> Response:
    """Other pictures of what a picture shows."""
    said = await call.said()
    body = parsed(Variation, said.fields)
    warnings: list[str] = []
    fields = _fields(call, body, warnings)
    given, mask = _given(said, body)
    if "mix" not in _options(fields["model"], call.service):
        raise FieldError(
            "model",
            f"model: {fields['model']} cannot take what a picture shows for words; use /v1/images/edits with a prompt",
        )
    if len(given) > 1 or mask is not None:
        raise FieldError("image", "image: one picture is varied, and no mask is taken; see /v1/images/edits")
    if body.strength is not None:
        fields["strength"] = body.strength
    if fields.pop("prompt", ""):
        warnings.append("prompt: variations take none; it had no effect")

    async def begin() -> dict[str, Any]:
        return fields | {"kind": "vary", "inputs": {"init": await _picture_id(call, given[0], body)}}

    job = await _job(_Asked(call, retries, "variations", said), begin, int(isinstance(given[0], bytes)))
    return await answers.answer(call, job, body, warnings, "image_generation")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that may be one that is sent again."""

    call: Call
    retries: Retries
    route: str
    said: Said


async def _job(asked: _Asked, begin: Callable[[], Awaitable[dict[str, Any]]], uploads: int = 0) -> Job:
    """The job that this very request began before, if it is sent again; a new one of what ``begin`` says.

    uploads: pictures that ``begin`` keeps. They are counted with the job, before anything is kept.
    """
    call, service, headers = asked.call, asked.call.service, asked.call.request.headers
    key = headers.get("idempotency-key")
    sum_ = await call.run(digest, asked.route, call.who.id, asked.said.fields, asked.said.files)
    if headers.get("x-stainless-retry-count", "0").strip() not in ("", "0"):
        begun = await call.run(service.store.jobs.of_body, call.who.id, sum_, WINDOW)
        before = asked.retries.again(sum_, begun)
        if before is not None:
            return before
    if (known := await call.run(service.known, call.who, key, sum_)) is not None:
        return known
    await call.run(service.reserve, call.who, 1, uploads)
    job, _ = await call.run(service.submit, call.who, await begin(), key=key, body=sum_, reserved=True)
    return job


def _fields(call: Call, body: Generation, warnings: list[str]) -> dict[str, Any]:
    """Our fields of a request, with its model."""
    return request_fields(body, call.service.settings.max_steps, warnings) | {
        "model": _model(call, body.model, warnings)
    }


def _model(call: Call, name: str | None, warnings: list[str]) -> str:
    """The name of a model of ours. Raises NoModelError."""
    settings = call.service.settings
    if name is None or name == settings.model:
        return settings.model
    if not NAMES.fullmatch(name):
        return name
    if settings.unknown_models == "error":
        raise NoModelError(f"model {name[:60]!r} is not on this server; GET /v1/models lists those that are")
    warnings.append(f"model: {name[:60]} is not on this server; {settings.model} drew this")
    return settings.model


def _options(model: str, service: Service) -> Any:
    """The fields that requests to a model may have; none for a model that is not there (the service says so)."""
    from chashka import families

    if "/" in model or "\\" in model:
        return {}
    return families.options(model, service.settings.models).model_fields


def _given(said: Said, body: Generation) -> tuple[list[bytes | str], bytes | str | None]:
    """The given pictures and the mask: files, or ids of pictures."""
    given: list[bytes | str] = [data for name, some in said.files.items() if _IMAGE.fullmatch(name) for data in some]
    masks: list[bytes | str] = [*said.files.get("mask", [])]
    for name in said.files:
        if name != "mask" and not _IMAGE.fullmatch(name):
            raise FieldError(name, f"{name}: there is no such file; allowed: image, image[], mask")
    if isinstance(body, Edit):
        for place, address in enumerate(body.images or ()):
            given.append(address.file_id or from_text(address.image_url or "", f"images[{place}].image_url"))
        if body.mask is not None:
            masks.append(body.mask.file_id or from_text(body.mask.image_url or "", "mask.image_url"))
    if not given:
        raise FieldError(
            "image", "image: missing; allowed: a file image, or files image[], of a PNG, JPEG or WebP picture"
        )
    if len(given) > MOST_PICTURES or len(masks) > 1:
        raise FieldError("image", f"image: at most {MOST_PICTURES} pictures and one mask are taken")
    return given, masks[0] if masks else None


async def _picture_id(call: Call, given: bytes | str, body: Generation) -> str:
    """The id of a given picture, which is kept if it is not yet."""
    return given if isinstance(given, str) else (await call.upload(given, bool(body.consent))).id


async def _mask_id(call: Call, given: bytes | str, body: Generation, warnings: list[str]) -> str:
    """The id of the mask, converted: OpenAI's is transparent where ours is white."""
    service = call.service
    if isinstance(given, str):
        picture = await call.run(service.picture, call.who, given)
        data, _ = await call.run(service.file, call.who, picture)
    else:
        data = given
    mask, note = await call.run(mask_of_openai, data, service.settings.max_picture)
    if note:
        warnings.append(note)
    return (await call.upload(mask, bool(body.consent))).id


def _mixed(prompt: str, pictures: int) -> dict[str, Any]:
    """The words, and beside them the other pictures, all of which together weigh as much."""
    parts = [{"picture": i, "weight": round(1 / pictures, 4)} for i in range(pictures)]
    return {"prompt": "", "mix": [{"text": prompt, "weight": 1.0}, *parts]}
