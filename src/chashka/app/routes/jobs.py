"""``/v1/jobs``: submit, look, stop, reorder; ``/events``: what happens to one, as it happens."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

from chashka.app import events
from chashka.app.events import Happening
from chashka.app.guard.access import Who
from chashka.app.jobs import ENDED, Job
from chashka.app.routes.asking import json_object, needs, plainly_typed, raw
from chashka.app.routes.errors import BODY, documented
from chashka.app.routes.examples import example, options_schema
from chashka.app.routes.shapes import JobList, JobShape, Move, State, job_shape
from chashka.app.service import Service, hashed

HEARTBEAT = 10.0
"""Seconds after which a comment is sent, so that nothing between takes the connection for dead."""
_LOOK = 2.0
"""Seconds after which the store is asked as well: another process may work on the job."""
_EVENT = {
    "type": "object",
    "description": "each event of the stream",
    "properties": {
        "id": {"type": "string", "description": "for Last-Event-ID"},
        "event": {"type": "string", "enum": ["state", "queue", "progress", "preview", "picture"]},
        "data": {"type": "string", "description": "JSON"},
    },
}
_ACCEPTED = {"description": "Accepted and durable.", "headers": {"Location": {"schema": {"type": "string"}}}}


def router(service: Service) -> APIRouter:
    """The routes of jobs."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    reads, makes = Depends(needs(service, "read")), Depends(needs(service, "generate"))

    @routes.post(
        "",
        status_code=202,
        response_model=JobShape,
        summary="Submit a job",
        responses={202: _ACCEPTED, **documented(404, 429, 507, *BODY)},
        openapi_extra=example("submit", options_schema()),
    )
    def submit_job(
        body: Annotated[bytes, Depends(raw)],
        who: Who = makes,
        idempotency_key: Annotated[
            str | None, Header(max_length=255, description="the same key and body: the same job")
        ] = None,
    ) -> Response:
        """Put a job into the queue; the answer comes when it is on the disk.

        Besides `kind`, `model`, `inputs` and `consent` the body has the fields of the model's options (`GET /v1/options/{family}`).
        With `Idempotency-Key` the same body gives the same job, and another body is refused (422).
        """
        job, _ = service.submit(
            who, plainly_typed(json_object(body)), key=idempotency_key, body=hashed(body) if idempotency_key else None
        )
        return _answer(service, job, 202, {"Location": f"/v1/jobs/{job.id}"})

    @routes.get("", summary="List jobs", responses=documented(404, 422), openapi_extra=example("jobs"))
    def list_jobs(
        who: Who = reads,
        state: Annotated[State | None, Query(description="only those in this state")] = None,
        after: Annotated[
            str | None, Query(description="`next` of the page before", pattern=r"^job_[0-9a-z]{26}$")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> JobList:
        """One's own jobs, newest first; with the scope admin everybody's."""
        owner = None if who.may("admin") else who.id
        if after is not None:
            service.job(who, after)
        found = service.store.jobs.list(owner=owner, state=state, after=after, limit=limit + 1)
        more = found[limit - 1].id if len(found) > limit else None
        return JobList(data=[job_shape(service, job) for job in found[:limit]], next=more)

    _about_one(routes, service)
    _following(routes, service)
    return routes


def _answer(service: Service, job: Job, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A job as JSON, made here: FastAPI would go to a second thread to look at what comes from the first."""
    return Response(job_shape(service, job).model_dump_json(), status, headers, "application/json")


def _about_one(routes: APIRouter, service: Service) -> None:
    """What is done with one job."""
    reads, makes = Depends(needs(service, "read")), Depends(needs(service, "generate"))

    @routes.get(
        "/{id}",
        response_model=JobShape,
        summary="Look at a job",
        responses=documented(404, 422),
        openapi_extra=example("job"),
    )
    def get_job(id: str, who: Who = reads) -> Response:
        """A job with its pictures, its place in the queue and an estimate."""
        return _answer(service, service.job(who, id))

    @routes.post(
        "/{id}/cancel", summary="Cancel a job", responses=documented(404, *BODY), openapi_extra=example("cancel")
    )
    def cancel_job(id: str, who: Who = makes) -> JobShape:
        """Stop within a step; nothing more is published. A job that has ended stays as it is."""
        return job_shape(service, service.stop(who, id, "now"))

    @routes.post(
        "/{id}/stop", summary="Stop a job softly", responses=documented(404, *BODY), openapi_extra=example("stop")
    )
    def stop_job(id: str, who: Who = makes) -> JobShape:
        """Finish the pictures that are being drawn and begin no more."""
        return job_shape(service, service.stop(who, id, "after"))

    @routes.post(
        "/{id}/move", summary="Move a waiting job", responses=documented(404, 409, *BODY), openapi_extra=example("move")
    )
    def move_job(id: str, to: Move, who: Who = makes) -> JobShape:
        """Put a job that waits before another one that waits, or at the end."""
        return job_shape(service, service.move(who, id, to.before))


def _following(routes: APIRouter, service: Service) -> None:
    """What happens to a job, while it happens."""
    reads = Depends(needs(service, "read"))

    @routes.get(
        "/{id}/events",
        summary="Listen to a job",
        response_class=StreamingResponse,
        responses={
            200: {"description": "Events as they happen.", "content": {"text/event-stream": {"schema": _EVENT}}},
            **documented(404, 422),
        },
        openapi_extra=example("events"),
    )
    async def job_events(
        id: str,
        who: Who = reads,
        last_event_id: Annotated[
            str | None, Header(description="the id of the last event that arrived", max_length=40)
        ] = None,
    ) -> StreamingResponse:
        """Server-sent events: `state`, `queue`, `progress`, `preview`, `picture`.

        First comes how it stands now. While the job waits, `queue` has its `position`, from 1, and the `estimate`, about so many
        seconds until it ends (null where nothing was measured yet): at the start, and again when the place has changed. The state
        that a job ends in is the last event, and comes again to whoever connects later.
        """
        job = await asyncio.to_thread(service.job, who, id)
        last = last_event_id or ""
        number = int(last) if re.fullmatch(r"[0-9]{1,18}", last) else 0
        return StreamingResponse(_stream(service, job, number), media_type="text/event-stream")


async def _stream(service: Service, job: Job, after: int) -> AsyncIterator[bytes]:
    """How the job stands, then what happens until it has ended, with a comment where nothing happens for a while."""
    if job.ended and not _remembered(service, job):
        yield _ending(service, job)
        return
    if not after and not any(one.name == "state" for one in service.hub.newest(job.id)):
        yield _event("state", events.told(job), None)
    place = await asyncio.to_thread(_place, service, job)
    if place is not None:
        yield _event("queue", place, None)
    listening = service.hub.listen(job.id, after)
    coming: asyncio.Task[Happening] | None = None
    quiet = 0.0
    try:
        while not service.closing:
            coming = coming or asyncio.ensure_future(anext(listening))
            done, _ = await asyncio.wait({coming}, timeout=_LOOK)
            if done:
                quiet = 0.0
                happening = coming.result()
                coming = None
                yield _event(happening.name, happening.data, happening.number)
                if happening.name == "state":
                    place = None  # it may wait again
                    if happening.data.get("state") in ENDED:
                        return
                continue
            now = await asyncio.to_thread(service.store.jobs.get, job.id)
            if now is None or now.ended:
                yield _ending(service, now or job)
                return
            before, place = place, await asyncio.to_thread(_place, service, now)
            if place is not None and _moved(before, place):
                yield _event("queue", place, None)
            quiet += _LOOK
            if quiet >= HEARTBEAT:
                quiet = 0.0
                yield b": still here\n\n"
    except StopAsyncIteration:
        return
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        await listening.aclose()  # type: ignore[attr-defined]


def _place(service: Service, job: Job) -> dict[str, Any] | None:
    """Where a job waits, and how long about; None if it does not."""
    position = service.position(job)
    return None if position is None else {"position": position, "estimate": service.estimate(job, position)}


def _moved(before: dict[str, Any] | None, place: dict[str, Any]) -> bool:
    """Whether a place is news: an estimate alone changes with every look."""
    if before is None:
        return True
    measured = before["estimate"] is None and place["estimate"] is not None
    return measured or before["position"] != place["position"]


def _remembered(service: Service, job: Job) -> bool:
    """Whether the end of a job is still among what happened lately."""
    return any(one.name == "state" and one.data.get("state") in ENDED for one in service.hub.newest(job.id))


def _ending(service: Service, job: Job) -> bytes:
    """The last event of a job that has ended, from the store."""
    return _event("state", events.told(job), None)


def _event(name: str, data: Any, number: int | None) -> bytes:
    """One event as the format wants it; JSON has no line breaks of its own."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")
