"""What the native API sends and takes, as types: the OpenAPI document is made of them. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from chashka.app import events
from chashka.app.jobs import Job, Picture
from chashka.app.service import Service

State = Literal["queued", "running", "done", "failed", "canceled"]
Privacy = Literal["full", "provenance", "none"]
Format = Literal["png", "jpeg", "webp"]
Name = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$", max_length=200)]
"""A name that people give: it begins with no blank, and has no control characters."""


class Shape(BaseModel):
    """What is sent and taken has exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Asked(Shape):
    """What is taken: 0 is not false, and "1" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ProgressShape(Shape):
    """Steps of a job."""

    done: int
    total: int


class ProblemShape(Shape):
    """Why a job failed."""

    code: str = Field(description="worker_died, hung, out_of_memory, input, weights, engine, …")
    message: str


class JobPicture(Shape):
    """A picture of a job."""

    id: str
    index: int = Field(description="its number within the job")
    url: str
    thumbnail: str
    width: int
    height: int
    seed: int | None


class JobShape(Shape):
    """A job, as it is now."""

    id: str
    kind: str
    state: State
    model: str
    fields: dict[str, Any] = Field(description="what to draw with, complete but for the model's own defaults")
    parents: dict[str, str] = Field(description="ids of the given pictures by their use")
    progress: ProgressShape
    position: int | None = Field(description="in the queue, from 1; null when it does not wait")
    estimate: float | None = Field(description="about so many seconds until it ends; null when nothing is known")
    attempts: int
    stop: Literal["", "now", "after"] = Field(description="what it was asked: to stop at once, or after these pictures")
    pictures: list[JobPicture]
    problem: ProblemShape | None
    notes: list[str] = Field(description="what differs from what was asked, one sentence each")
    result: dict[str, Any] | None = Field(description="what is not a picture, of kinds that make such")
    created: float
    started: float | None
    finished: float | None


class JobList(Shape):
    """Jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[JobShape]
    next: str | None = Field(description="give it as `after` for the next page; null on the last one")


class Move(Asked):
    """Where a waiting job shall stand."""

    before: str | None = Field(None, description="the id of the job to stand before; null: at the end")


class PictureShape(Shape):
    """A picture of the gallery."""

    id: str
    url: str
    thumbnail: str
    job: str | None
    index: int
    width: int
    height: int
    bytes: int
    media_type: str
    prompt: str
    negative_prompt: str
    model: str
    family: str
    seed: int | None
    source: str = Field(description="drawn, uploaded or imported")
    created: float
    favourite: bool
    deleted: float | None = Field(description="when it was deleted; until it is gone for good it can be restored")


class PictureList(Shape):
    """Pictures, newest first."""

    object: Literal["list"] = "list"
    data: list[PictureShape]
    next: int | None = Field(description="give it as `before` for the next page; null on the last one")


class PictureChange(Asked):
    """What shall be different; what is absent stays."""

    favourite: bool | None = None
    collect: list[str] = Field([], description="ids of collections to put it into", max_length=50)
    uncollect: list[str] = Field([], description="ids of collections to take it out of", max_length=50)


class MetadataShape(Shape):
    """What is known of a picture."""

    picture: PictureShape
    metadata: dict[str, Any] = Field(description="with what it was drawn; of uploads what the file said")


class LinkShape(Shape):
    """``child`` was made from ``parent``."""

    child: str
    parent: str
    use: str = Field(description="init, mask, picture 0, …")


class LineageShape(Shape):
    """Where a picture comes from, and what came of it: ids, the nearest first."""

    id: str
    ancestors: list[str]
    descendants: list[str]
    links: list[LinkShape]


class Download(Asked):
    """Which pictures, and how."""

    ids: list[str] = Field(description="ids of pictures", min_length=1, max_length=500)
    privacy: Privacy | None = Field(None, description="what the files say about themselves; null: the server's setting")
    format: Format | None = Field(None, description="null: as they are")


class CollectionShape(Shape):
    """A collection of pictures."""

    id: str
    name: str
    created: float
    pictures: int = Field(description="how many there are in it")


class CollectionList(Shape):
    """All collections, by name."""

    object: Literal["list"] = "list"
    data: list[CollectionShape]


class CollectionNamed(Asked):
    """What a collection is called."""

    name: Name


def job_shape(service: Service, job: Job) -> JobShape:
    """A job with its pictures and its place in the queue."""
    position = service.position(job)
    told = events.told(job)
    return JobShape(
        id=job.id,
        kind=job.kind,
        state=job.state,  # type: ignore[arg-type]
        model=str(job.fields.get("model", "")),
        fields=dict(job.fields),
        parents=dict(job.parents),
        progress=ProgressShape(done=job.total if job.state == "done" and not job.stop else job.done, total=job.total),
        position=position,
        estimate=service.estimate(job, position),
        attempts=job.attempts,
        stop=job.stop,  # type: ignore[arg-type]
        pictures=[_of_job(picture) for picture in service.pictures_of(job)],
        problem=told["problem"],
        notes=told["notes"],
        result=told["result"],
        created=job.created,
        started=job.started,
        finished=job.finished,
    )


def picture_shape(picture: Picture) -> PictureShape:
    """A picture as the gallery shows it."""
    new = picture.new
    return PictureShape(
        id=picture.id,
        url=f"/v1/images/{picture.id}",
        thumbnail=f"/v1/images/{picture.id}/thumbnail",
        job=picture.job,
        index=new.index,
        width=new.width,
        height=new.height,
        bytes=new.bytes,
        media_type=new.media_type,
        prompt=new.prompt,
        negative_prompt=new.negative_prompt,
        model=new.model,
        family=new.family,
        seed=new.seed,
        source=new.source,
        created=picture.created,
        favourite=picture.favourite,
        deleted=picture.deleted,
    )


def metadata_shape(picture: Picture) -> MetadataShape:
    """A picture with everything that is known of it."""
    metadata: Mapping[str, Any] = picture.new.metadata
    return MetadataShape(picture=picture_shape(picture), metadata=dict(metadata))


def _of_job(picture: Picture) -> JobPicture:
    shape = picture_shape(picture)
    return JobPicture(**{name: getattr(shape, name) for name in JobPicture.model_fields})
