"""A1111's txt2img and img2img.

There picture i of a request has the seed ``seed + i``, and asking for that seed alone gives that very picture. Here picture i of a
seed is another one than picture 0 of the next seed. So every picture of such a request is a job of its own: number 0 of its own
seed.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from chashka.app.dialects import a1111_info as info
from chashka.app.dialects import a1111_models as models
from chashka.app.dialects import a1111_texts as texts
from chashka.app.dialects.a1111_fields import (
    CLIP_SKIP,
    SEEDS,
    Drawing,
    ImageToImage,
    TextToImage,
    clip_skip,
    masked_fields,
    request_fields,
)
from chashka.app.dialects.a1111_tasks import Task, Tasks
from chashka.app.dialects.calls import Call
from chashka.app.dialects.fields import FieldError, parsed
from chashka.app.dialects.pictures import cropped, from_text, mask_of_a1111
from chashka.app.jobs import Job, Picture
from chashka.app.service import NotFoundError
from chashka.errors import InputError

if TYPE_CHECKING:
    from chashka.app.settings import Settings
    from chashka.request import Request as Options

FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


class ScriptError(Exception):
    """A script was asked for, and there is none."""


@dataclass(slots=True)
class Asked:
    """A request in our words. fields: of each of its jobs, but for the seeds. starts: ids of given pictures, for jobs in turn."""

    body: Drawing
    model: str
    fields: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    mask: str | None = None

    @property
    def pictures(self) -> int:
        """How many are drawn."""
        return _pictures(self.body, len(self.starts))


@dataclass(frozen=True, slots=True)
class Seeds:
    """Seeds of a request's pictures, as A1111 counts them."""

    seed: int
    subseed: int
    varied: bool

    def of(self, number: int) -> tuple[int, int]:
        """(seed, subseed) of picture ``number``: with variations the seed is the same for all."""
        return self.seed + (0 if self.varied else number), self.subseed + number


async def txt2img(tasks: Tasks, call: Call) -> Response:
    """Pictures from words."""
    body = parsed(TextToImage, (await call.said()).fields)
    with tasks.answering(call.who, "txt2img", body.force_task_id) as task:
        asked = await _asked(tasks, call, body)
        await _reserve(call, asked.pictures)
        return await _answered(tasks, call, task, asked)


async def img2img(tasks: Tasks, call: Call) -> Response:
    """Pictures from pictures and words; with a mask, parts of them."""
    body = parsed(ImageToImage, (await call.said()).fields)
    if not body.init_images:
        raise NotFoundError("Init image not found")
    with tasks.answering(call.who, "img2img", body.force_task_id) as task:
        asked = await _asked(tasks, call, body)
        await _given(call, body, asked)
        return await _answered(tasks, call, task, asked)


async def _asked(tasks: Tasks, call: Call, body: Drawing) -> Asked:
    """A request's fields. Raises for what is wrong with it before anything is kept."""
    from chashka import families

    if body.script_name and body.script_name != "None":
        raise ScriptError(body.script_name)
    settings, warnings = call.service.settings, list[str]()
    full = texts.completed(body, warnings)
    said = texts.parameters(body.infotext or "")
    chosen = (body.override_settings or {}).get("sd_model_checkpoint")
    if not chosen:
        chosen, told = await call.run(models.meant, said, settings)
        warnings += told
        chosen = chosen or tasks.settings(call.who).get("sd_model_checkpoint")
    model = await call.run(models.named, str(chosen), settings) if chosen else settings.model
    declaration, preset = families.find(model, settings.models)
    options: type[Options] = declaration.options
    fields = request_fields(full, options, warnings)
    set_ = tasks.settings(call.who) | (full.override_settings or {})
    fields |= clip_skip(set_.get(CLIP_SKIP, 1), options, warnings)
    vae = set_.get("sd_vae", models.OWN)
    if models.asks(str(vae)):
        fields |= await call.run(_autoencoder, str(vae), preset.adapters, settings, warnings)
        if "vae" in fields and said.get("VAE") == vae and said.get("VAE hash"):
            warnings += await call.run(models.changed, fields["vae"], said["VAE hash"], settings)
    if full.styles:
        fields = texts.styled(fields, full.styles, texts.styles(settings.data), warnings)
    return Asked(full, model, fields, warnings)


def _autoencoder(said: str, takes: bool, settings: Settings, warnings: list[str]) -> dict[str, str]:
    """The job's field. takes: whether the model takes another autoencoder."""
    name = models.autoencoder(said, settings)
    if takes and name is not None:
        return {"vae": name}
    why = "is not on this server" if takes else "is for checkpoints of Stable Diffusion"
    warnings.append(f"sd_vae: {said[:60]!r} {why}; the model's own autoencoder was used")
    return {}


async def _given(call: Call, body: ImageToImage, asked: Asked) -> None:
    """Keep the given pictures and the mask."""
    most, consent = call.service.settings.max_picture, bool(body.consent)
    images = [await call.run(from_text, text, "init_images") for text in body.init_images or ()]
    if len(images) > call.service.settings.max_n:
        raise FieldError("init_images", f"init_images: {len(images)}; allowed: at most {call.service.settings.max_n}")
    whole = body.mask is not None and body.inpaint_full_res is not False
    mask = None
    if body.mask is not None:
        inverted = bool(body.inpainting_mask_invert)
        rounded = body.mask_round is not False
        mask = await call.run(mask_of_a1111, from_text(body.mask, "mask"), most, invert=inverted, rounded=rounded)
        asked.fields |= masked_fields(body, asked.warnings)
    width, height = asked.fields.get("width"), asked.fields.get("height")
    if body.resize_mode == 1 and width and height and not whole:
        images = [await call.run(cropped, data, width, height, most, "init_images") for data in images]
        mask = None if mask is None else await call.run(cropped, mask, width, height, most, "mask")
    if body.resize_mode == 2:
        asked.warnings.append("resize_mode: 2 (fill) is not possible here; the picture was stretched (0)")
    if asked.body.denoising_strength is not None:
        asked.fields["strength"] = asked.body.denoising_strength
    await _reserve(call, _pictures(asked.body, len(images)), len(images) + (mask is not None))
    asked.starts = [(await call.upload(data, consent)).id for data in images]
    if mask is not None:
        asked.mask = (await call.upload(mask, consent)).id


def _pictures(body: Drawing, given: int) -> int:
    """How many are drawn: of several given pictures each, as often as is asked."""
    return max(body.batch_size or 1, given) * (body.n_iter or 1)


async def _reserve(call: Call, pictures: int, uploads: int = 0) -> None:
    """Count all jobs and all given pictures of a request at once. Raises before anything is kept."""
    most = call.service.settings.max_n
    if pictures > most:
        raise InputError(f"batch_size: {pictures} pictures with n_iter; allowed: at most {most}")
    await call.run(call.service.reserve, call.who, pictures, uploads)


async def _answered(tasks: Tasks, call: Call, task: Task, asked: Asked) -> Response:
    """Draw, and say what was drawn."""
    seeds = _seeds(asked.body)
    try:
        for number in range(asked.pictures):
            job, _ = await call.run(call.service.submit, call.who, _job(asked, seeds, number), reserved=True)
            task.jobs.append(job.id)
            if task.interrupted:
                await call.run(call.service.stop, call.who, job.id, "now")
                break
        drawn = [await _drawn(call, id) for id in task.jobs]
    except (Exception, asyncio.CancelledError) as error:
        if not isinstance(
            error, asyncio.CancelledError
        ):  # a client that went away: what it asked for is drawn and kept
            for id in task.jobs:
                await call.run(call.service.stop, call.who, id, "now")
        raise
    if task.interrupted or task.skipped:
        asked.warnings.append("interrupted: these are the pictures that were finished")
    wanted = tasks.settings(call.who) | (asked.body.override_settings or {})
    file_format = FORMATS.get(str(wanted.get("samples_format", "png")).lower(), "png")
    answer = await call.run(info.answer, call, asked, seeds, drawn, file_format)
    return JSONResponse(answer)


async def _drawn(call: Call, id: str) -> tuple[Job, Picture | None]:
    """A job when it has ended, and its picture; None if it was interrupted."""
    job, pictures = await call.ended(await call.run(call.service.job, call.who, id))
    return job, pictures[0] if pictures else None


def _job(asked: Asked, seeds: Seeds, number: int) -> dict[str, Any]:
    """What is submitted for one picture."""
    seed, subseed = seeds.of(number)
    said = asked.fields | {
        "kind": "draw",
        "model": asked.model,
        "n": 1,
        "seed": seed,
        "consent": bool(asked.body.consent),
    }
    if seeds.varied:
        said |= {"subseed": subseed, "subseed_strength": asked.body.subseed_strength}
    if asked.starts:
        said |= {"kind": "edit", "inputs": {"init": asked.starts[number % len(asked.starts)]}}
        if asked.mask is not None:
            said["inputs"]["mask"] = asked.mask
    return said


def _seeds(body: Drawing) -> Seeds:
    """Those that were said; -1 and none: chosen now, and told in the answer."""
    seed, subseed = (
        secrets.randbelow(SEEDS) if said is None or said < 0 else said for said in (body.seed, body.subseed)
    )
    return Seeds(seed, subseed, bool(body.subseed_strength))
