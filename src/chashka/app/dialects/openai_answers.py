"""What OpenAI's clients are answered: all pictures at once, or events while they are drawn."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from chashka.app.dialects.calls import Call, JobError, fault_of
from chashka.app.dialects.openai_fields import Generation
from chashka.app.dialects.pictures import forming, reencoded, to_text
from chashka.app.guard.shield import error_type
from chashka.app.jobs import Job, Picture, Problem

if TYPE_CHECKING:
    from chashka.app.events import Happening

BEAT = 15.0
"""Seconds between signs of life in a stream in which nothing happens."""
USAGE = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
"""Nothing is charged for, so that nothing is counted; some clients need the object."""


async def answer(call: Call, job: Job, body: Generation, warnings: list[str], kind: str) -> Response:
    """The answer to a request that began ``job``. kind: how events are called, image_generation or image_edit."""
    headers = {"x-chashka-job": job.id}
    expected = await call.run(call.service.expected, job)
    if expected is not None:  # of a stream it is there before the pictures
        headers["x-chashka-estimate"] = f"{expected:g}"
    if body.stream:
        events = streamed(call, job, body, warnings, kind)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers | {"x-accel-buffering": "no"})
    last, pictures = await call.ended(job)
    if not pictures:
        raise JobError(Problem("canceled", "the job was canceled before a picture was finished"))
    told = [*warnings, *last.notes]
    if last.state == "canceled":
        told.append("the job was canceled; these are the pictures that were finished")
    data = [await call.run(_datum, call, picture, body, told) for picture in pictures]
    return JSONResponse(_whole(last, pictures[0], body) | {"data": data, "warnings": told}, headers=headers)


async def streamed(call: Call, job: Job, body: Generation, warnings: list[str], kind: str) -> AsyncIterator[bytes]:
    """Server-sent events: pictures as they form, each finished picture, or an error."""
    chosen = _Partial(body.partial_images or 0)
    try:
        async for happening in _happenings(call, job):
            if happening is None:
                yield b": drawing\n\n"
                continue
            shown = chosen.seen(happening)
            if shown is not None:
                preview, number = shown
                data = base64.b64decode(str(preview["b64"]))
                small = await call.run(_forming, call, job, data, body)
                about = _about(job, body) | {"partial_image_index": number, "picture": preview["index"]}
                yield _event(f"{kind}.partial_image", about | {"b64_json": to_text(small)})
        last, pictures = await call.ended(job)
        if not pictures:
            raise JobError(Problem("canceled", "the job was canceled before a picture was finished"))
        for picture in pictures:
            datum = await call.run(_datum, call, picture, body, [*warnings, *last.notes], True)
            size = f"{picture.new.width}x{picture.new.height}"
            yield _event(f"{kind}.completed", _about(last, body) | datum | {"size": size, "usage": USAGE})
    except Exception as error:
        fault = await call.run(fault_of, error, call.service)
        if fault is None:
            raise
        said = {"message": fault.message, "type": error_type(fault.status), "param": fault.param, "code": fault.code}
        yield _event("error", {"error": said})


class _Partial:
    """Chooses which previews are sent: of each picture ``most``, at even distances of the job's steps."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = 0.0
        self._sent: dict[int, int] = {}

    def seen(self, happening: Happening) -> tuple[Mapping[str, Any], int] | None:
        """The preview to send now, and its number; None for none."""
        data = happening.data
        if happening.name in ("progress", "state") and data.get("total"):
            self._share = data["done"] / data["total"]
        if happening.name != "preview":
            return None
        sent = self._sent.get(data["index"], 0)
        if sent >= self._most or self._share < (sent + 1) / (self._most + 1):
            return None
        self._sent[data["index"]] = sent + 1
        return data, sent


async def _happenings(call: Call, job: Job) -> AsyncIterator[Happening | None]:
    """What happens until the job ends; None when nothing did for a while."""
    news: asyncio.Queue[Happening] = asyncio.Queue()

    async def follow() -> None:
        async for one in call.service.hub.listen(job.id):
            news.put_nowait(one)

    listening = asyncio.create_task(follow())
    ending = asyncio.create_task(call.service.ended(job.id))
    getting: asyncio.Task[Happening] | None = None
    try:
        while not (ending.done() and news.empty()):
            getting = getting or asyncio.create_task(news.get())
            await asyncio.wait({getting, ending}, timeout=BEAT, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                happening, getting = getting.result(), None
                yield happening
            elif ending.done():
                return
            else:
                yield None
    finally:
        for task in (listening, ending, getting):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


def _forming(call: Call, job: Job, preview: bytes, body: Generation) -> bytes:
    """A picture of a job that still forms, marked and logged."""
    privacy = call.service.settings.privacy
    return call.service.sent(forming(preview, body.output_format or "png", bool(job.inputs), privacy))


def _datum(call: Call, picture: Picture, body: Generation, warnings: list[str], inline: bool = False) -> dict[str, Any]:
    """A picture, as its address or its bytes, and beside it what is needed to draw it again."""
    file_format = body.output_format or "png"
    about = {"id": picture.id, "seed": picture.new.seed, "picture": picture.new.index, "warnings": warnings}
    if body.inline or inline:
        quality = body.output_compression
        smaller = None
        if quality is not None and quality < 100 and file_format != "png":
            smaller = partial(reencoded, file_format=file_format, quality=quality)
        data, _ = call.service.file(call.who, picture, format=file_format, finish=smaller)
        return {"b64_json": to_text(data)} | about
    suffix = "" if body.output_format is None else f"?format={file_format}"
    return {"url": f"{call.request.base_url}v1/images/{picture.id}{suffix}"} | about


def _about(job: Job, body: Generation) -> dict[str, Any]:
    """What every event says."""
    return {
        "created_at": int(job.created),
        "size": body.size or "auto",
        "quality": body.quality or "auto",
        "background": body.background or "auto",
        "output_format": body.output_format or "png",
    }


def _whole(job: Job, first: Picture, body: Generation) -> dict[str, Any]:
    """What is said of all pictures together; only what is known."""
    said: dict[str, Any] = {
        "created": int(job.created),
        "output_format": body.output_format or "png",
        "size": f"{first.new.width}x{first.new.height}",
        "usage": USAGE,
    }
    if body.background in ("transparent", "opaque"):
        said["background"] = body.background
    if body.quality not in (None, "auto", "standard", "hd"):
        said["quality"] = body.quality
    return said


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name} | data, ensure_ascii=False)}\n\n".encode()
