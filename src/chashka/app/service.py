"""What routes and dialects call, and nothing below it: submit, upload, wait, stop, send.

Everything here may be called from any thread and blocks, except :meth:`Service.ended`. Ids that are unknown and ids of somebody
else look alike.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from chashka.app import events, kinds
from chashka.app.guard import policy
from chashka.app.guard.access import Access, Buckets, ForbiddenError, TooManyError, Who
from chashka.app.ids import ID, new_id
from chashka.app.jobs import Job, KeyReusedError, NewJob, Picture, QueueFullError
from chashka.app.keeping.blobs import StorageFullError
from chashka.app.keeping.files import Files
from chashka.app.keeping.importing import UPLOADED
from chashka.app.metrics import Metrics
from chashka.app.store.database import UnavailableError
from chashka.errors import InputError, RefusedError
from chashka.request import shown

if TYPE_CHECKING:
    from chashka.app.events import Hub
    from chashka.app.keeping.blobs import Blobs
    from chashka.app.settings import Settings
    from chashka.app.sketches import Sketches
    from chashka.app.store import Store

__all__ = ["ConflictError", "KeyReusedError", "NotFoundError", "QueueFullError", "Service", "StorageFullError"]

_LOOK = 2.0
"""Seconds after which a waiting caller looks into the store: another process may have ended the job."""
_LONGEST_KEY = 255


class ConflictError(Exception):
    """What is asked for does not go with how things are now."""


class NotFoundError(Exception):
    """There is nothing of that id, or it is somebody else's."""


class Service:
    """One for a server. token: the server's own, with which commands on the same machine ask."""

    def __init__(self, settings: Settings, store: Store, blobs: Blobs, hub: Hub, *, token: str = "") -> None:
        self.settings, self.store, self.blobs, self.hub = settings, store, blobs, hub
        self.metrics = Metrics()
        self.collections = store.pictures.collections
        self.access = Access(settings, store.keys, token)
        self.draining = False
        self.closing = False
        self._buckets = Buckets(settings.submits_per_minute)
        self._sketch_buckets = Buckets(settings.sketches_per_minute, "sketches", "sketches_per_minute")
        self._upload_buckets = Buckets(settings.uploads_per_minute, "uploaded pictures", "uploads_per_minute")
        self.sketches: Sketches | None = None
        """What draws sketches; None where nothing is computed."""
        self._files = Files(settings, store, blobs)
        self._throughput = (0.0, float("-inf"))

    def submit(
        self,
        who: Who,
        said: Mapping[str, Any],
        *,
        key: str | None = None,
        body: str | None = None,
        reserved: bool = False,
    ) -> tuple[Job, bool]:
        """Check what a client said and put it into the queue, durably: the job, and whether it is a new one.

        said: {kind (draw), model, inputs {use: picture id}, consent} and the fields of the model's options. key: the client's
        Idempotency-Key; body: sha256 of what it sent. The same again gets its job whatever else is full by then. reserved: it was
        counted before (:meth:`reserve`). Raises InputError, RefusedError, NotFoundError (a given picture), ForbiddenError,
        TooManyError, QueueFullError, KeyReusedError, StorageFullError.
        """
        known = self.known(who, key, body)
        if known is not None:
            return known, False
        fields = dict(said)
        own = {"kind": "draw", "inputs": {}, "consent": False}
        kind, given, consent = (fields.pop(name) if fields.get(name) is not None else own[name] for name in own)
        fields = {name: value for name, value in fields.items() if name not in own}
        _plain(fields)
        if not isinstance(kind, str) or kind not in kinds.KINDS:
            raise InputError(f"kind: {shown(kind)} is not possible; allowed: {', '.join(kinds.KINDS)}")
        if not isinstance(consent, bool):
            raise InputError(f"consent: {shown(consent)} is not possible; allowed: true or false")
        if not who.may(kinds.KINDS[kind].scope):
            raise ForbiddenError(f"{kind} needs a key with the scope {kinds.KINDS[kind].scope}")
        if not reserved:
            self._buckets.take(who)
        pictures = self._given(who, given)
        sizes = {use: (one.new.width, one.new.height) for use, one in pictures.items()}
        checked = kinds.check(kind, fields, sizes, self.settings)
        self._allowed(who, lambda: policy.check(checked.texts))
        if self.blobs.low():
            raise _storage_full()
        inputs = {use: one.new.sha256 for use, one in pictures.items()}
        parents = {use: one.id for use, one in pictures.items()}
        new = NewJob(new_id("job"), kind, who.id, checked.fields, inputs, parents, key, body, consent)
        job, fresh = self.store.jobs.submit(new, self.settings.max_queue)
        if fresh:  # nobody can be listening yet; whoever does gets the state from the store
            self.hub.wake()
            self.metrics.count("chashka_submitted_total", kind=kind)
        return job, fresh

    def known(self, who: Who, key: str | None, body: str | None) -> Job | None:
        """The job that this Idempotency-Key began before. Raises InputError (no key can look so), KeyReusedError."""
        _check_key(key)
        return None if key is None else self.store.jobs.of_key(who.id, key, body)

    def reserve(self, who: Who, jobs: int = 0, uploads: int = 0) -> None:
        """Count what one request will submit and upload, at once and before any of it is kept.

        Raises TooManyError, InputError (it is more than there is ever room for), QueueFullError, StorageFullError.
        """
        if self.blobs.low():
            raise _storage_full()
        limit = self.settings.max_queue
        if jobs > limit:
            raise InputError(f"request: it is {jobs} jobs; allowed: at most {limit} that wait; ask for fewer at once")
        if jobs > 1 and (waiting := self.store.jobs.counts()["queued"]) + jobs > limit:
            raise QueueFullError(f"{waiting} jobs wait, and these are {jobs}; allowed: {limit}; try again later")
        self._buckets.take(who, jobs)
        try:
            self._upload_buckets.take(who, uploads)
        except (TooManyError, InputError):
            self._buckets.give_back(who, jobs)
            raise

    def sketch(self, who: Who, said: Mapping[str, Any]) -> tuple[bytes, str]:
        """One picture of what a client said, drawn now with the model's quick settings and not kept: the file and its media type.

        said: as for :meth:`submit`, without kind, inputs and consent. Raises InputError, RefusedError, TooManyError, and
        as ``Sketches.draw``.
        """
        fields = {"fast": True} | {name: value for name, value in said.items() if value is not None}
        _plain(fields)
        self._sketch_buckets.take(who)
        checked = kinds.check("draw", fields, {}, self.settings)
        self._allowed(who, lambda: policy.check(checked.texts))
        if self.sketches is None:
            raise UnavailableError("this server draws nothing itself")
        made = self.sketches.draw(who.id, checked.fields | {"n": 1})
        self.metrics.count("chashka_sketches_total")
        return self._files.send(made, self.settings.privacy)

    def upload(
        self, who: Who, data: bytes, *, consent: bool = False, source: str = UPLOADED, reserved: bool = False
    ) -> Picture:
        """Keep a picture as it was sent, found in the gallery from now on.

        consent: the tick that a shared server asks for, and keeps in its audit. source: "uploaded" or "imported". reserved: it
        was counted before (:meth:`reserve`). Raises FileError, RefusedError, TooManyError, StorageFullError.
        """
        if not reserved:
            self._upload_buckets.take(who)
        self._allowed(who, lambda: policy.check_upload(self.settings.policy, consent))
        picture = self._files.take(who, data, source)
        if self.settings.policy == "shared":
            self.store.keys.note(who.id, "consent", picture.new.sha256)
        self.metrics.count("chashka_uploaded_bytes_total", len(data))
        return picture

    def job(self, who: Who, id: str) -> Job:
        """One job. Raises NotFoundError."""
        found = self.store.jobs.get(id) if ID.fullmatch(id) else None
        if found is None or not who.sees(found.owner):
            raise NotFoundError("there is no such job")
        return found

    def picture(self, who: Who, id: str) -> Picture:
        """One picture, deleted ones too. Raises NotFoundError."""
        found = self.store.pictures.get(id) if ID.fullmatch(id) else None
        if found is None or not who.sees(found.owner):
            raise NotFoundError("there is no such picture")
        return found

    def pictures_of(self, job: Job) -> list[Picture]:
        """Its published pictures by their index, without those that were deleted."""
        if job.state == "queued" and not job.attempts:
            return []
        found = [picture for picture in self.store.pictures.of_job(job.id) if picture.deleted is None]
        return sorted(found, key=lambda picture: picture.new.index)

    def stop(self, who: Who, id: str, how: str) -> Job:
        """End a job: "now", or "after" the pictures that are being drawn. One that has ended stays as it is."""
        job = self.job(who, id)
        if job.ended:
            return job
        job = self.store.jobs.cancel(id, how)
        self.hub.publish(id, "state", events.told(job))
        return job

    def move(self, who: Who, id: str, before: str | None) -> Job:
        """Put a waiting job before another one, or at the end. Raises ConflictError if one of them does not wait."""
        for one in (id, before):
            if one is not None and self.job(who, one).state != "queued":
                raise ConflictError("only jobs that wait can be moved; this one does not wait any more")
        return self.store.jobs.move(id, before)

    def file(
        self,
        who: Who,
        picture: Picture,
        *,
        privacy: str | None = None,
        format: str | None = None,
        finish: Callable[[bytes], bytes] | None = None,
    ) -> tuple[bytes, str]:
        """A picture's bytes and media type, with as much metadata as ``privacy`` (the settings' if None) lets out.

        These very bytes are to be sent, and are logged: what encodes them once more is given as ``finish``. Raises
        NotFoundError, InputError (no such privacy or format for this picture), FileError (its file is gone).
        """
        if not who.sees(picture.owner):
            raise NotFoundError("there is no such picture")
        data, media_type = self._files.give(picture, privacy or self.settings.privacy, format, finish)
        self.metrics.count("chashka_sent_bytes_total", len(data))
        return data, media_type

    def sent(self, data: bytes) -> bytes:
        """The same bytes, logged: a file that is sent and is no picture of the gallery (a sheet, a picture that still forms)."""
        self.metrics.count("chashka_sent_bytes_total", len(data))
        return self._files.loose(data, "none" if self.settings.privacy == "none" else "provenance")

    def thumbnail(self, who: Who, picture: Picture) -> bytes:
        """A small WebP, at most 256 pixels a side."""
        if not who.sees(picture.owner):
            raise NotFoundError("there is no such picture")
        return self._files.read(picture.new.thumbnail)

    async def ended(self, id: str, timeout: float | None = None) -> Job | None:
        """The job once it has ended; None when ``timeout`` seconds are over before, or there is no such job."""
        until = None if timeout is None else time.monotonic() + timeout
        listening = asyncio.ensure_future(self._listen(id))
        try:
            while True:
                job = await asyncio.to_thread(self.store.jobs.get, id)
                if job is None or job.ended:
                    return job
                left = _LOOK if until is None else min(_LOOK, until - time.monotonic())
                if left <= 0 or self.closing:
                    return None
                if listening.done():
                    await asyncio.sleep(min(left, 0.05))
                else:
                    await asyncio.wait({listening}, timeout=left)
        finally:
            listening.cancel()

    def look(self, who: Who) -> None:
        """Count a file that is looked at and not kept. Raises TooManyError."""
        self._upload_buckets.take(who)

    def verify(self, who: Who, data: bytes) -> dict[str, Any]:
        """What a file says of its origin, as JSON. Raises FileError, TooManyError."""
        self.look(who)
        return self._files.verify(data)

    def writable(self) -> bool:
        """Whether new work can be kept."""
        return not self.blobs.low()

    def measured(self) -> str:
        """Everything that is counted, as Prometheus reads it."""
        jobs = [({"state": state}, float(number)) for state, number in self.store.jobs.counts().items()]
        return self.metrics.text(
            {
                "chashka_jobs": jobs,
                "chashka_jobs_per_second": [({}, self._rate())],
                "chashka_job_seconds": self._durations(),
                "chashka_pictures": [({}, float(self.store.pictures.count()))],
                "chashka_disk_free_bytes": [({}, float(self.blobs.free()))],
                "chashka_policy_refusals_total": [
                    ({"rule": rule}, float(number)) for rule, number in policy.counts().items()
                ],
                "chashka_draining": [({}, float(self.draining))],
            }
        )

    def retry_after(self, jobs: int = 1) -> int:
        """Whole seconds after which so many jobs will have ended, from what was measured; between 1 and 600."""
        rate = self._rate()
        return round(min(600.0, max(1.0, jobs / rate if rate > 0 else 5.0)))

    def position(self, job: Job) -> int | None:
        """Of a job that waits its place in the queue, from 1."""
        found = self.store.jobs.position(job.id) if job.state == "queued" else None
        return None if found is None else found + 1

    def estimate(self, job: Job, position: int | None) -> float | None:
        """About so many seconds until a job ends; None where nothing was measured yet."""
        if job.ended:
            return None
        if job.state == "running" and job.started and job.done and job.total:
            passed = max(0.0, time.time() - job.started)
            return round(passed / job.done * (job.total - job.done), 1)
        rate = self._rate()
        return round((position or 1) / rate, 1) if rate > 0 else None

    def expected(self, job: Job) -> float | None:
        """:meth:`estimate`, wherever the job is in the queue."""
        return self.estimate(job, self.position(job))

    def _rate(self) -> float:
        """Jobs that end in a second, as it was measured at most a second ago."""
        measured, at = self._throughput
        if time.monotonic() - at > 1.0:
            measured = self.store.jobs.throughput()
            self._throughput = measured, time.monotonic()
        return measured

    async def _listen(self, id: str) -> None:
        """Until a job ends here."""
        async for _ in self.hub.listen(id):
            pass

    def _durations(self) -> list[tuple[dict[str, str], float]]:
        """Quantiles of how long jobs were drawn."""
        done = self.store.jobs.list(state="done", limit=100)
        took = sorted(job.finished - job.started for job in done if job.finished and job.started)
        return [({"quantile": f"{q:g}"}, took[round(q * (len(took) - 1))]) for q in (0.5, 0.95, 1.0) if took]

    def _allowed(self, who: Who, check: Callable[[], None]) -> None:
        """Ask the policy. A shared server notes a refusal, with the sha256 of what was asked."""
        try:
            check()
        except RefusedError as refused:
            if self.settings.policy == "shared":
                self.store.keys.note(who.id, f"refused: {refused.rule}", refused.sha256)
            raise

    def _given(self, who: Who, given: Any) -> dict[str, Picture]:
        """Pictures by their use, of their ids by their use."""
        if not isinstance(given, Mapping) or not all(isinstance(value, str) for value in given.values()):
            raise InputError(
                "inputs: not possible; allowed: an object of uses and ids of pictures (POST /v1/images gives one)"
            )
        if len(given) > 18:
            raise InputError(f"inputs: {len(given)} pictures; allowed: at most 18")
        return {use: self.picture(who, id) for use, id in given.items()}


def hashed(data: bytes) -> str:
    """The sha256 that :meth:`Service.submit` takes as ``body``."""
    return hashlib.sha256(data).hexdigest()


def _storage_full() -> StorageFullError:
    return StorageFullError("the disk is nearly full; free some space, or delete pictures, and try again")


def _check_key(key: str | None) -> None:
    """Raises InputError for an Idempotency-Key that cannot be kept."""
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isprintable()):
        raise InputError(f"Idempotency-Key: not possible; allowed: 1 to {_LONGEST_KEY} printable characters")


def _plain(value: Any, name: str = "request") -> None:
    """Raises InputError for texts that no database can keep: with NUL in them, or half a surrogate pair."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise InputError(f"{name}: not valid Unicode text; allowed: text without NUL and without lone surrogates")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _plain(key, "request")
            _plain(inner, key[:40])
    elif isinstance(value, list):
        for inner in value:
            _plain(inner, name)
