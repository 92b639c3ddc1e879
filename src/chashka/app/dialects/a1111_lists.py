"""A1111's routes that tell what there is: samplers, models, styles, settings, progress; and those that stop what is drawn."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from starlette.responses import JSONResponse, Response

from chashka.app.dialects import a1111_models as models
from chashka.app.dialects import a1111_tasks as tasks
from chashka.app.dialects import a1111_texts as texts
from chashka.app.dialects.a1111_draw import FORMATS
from chashka.app.dialects.a1111_fields import CLIP_SKIP, LAYERS, SETTINGS
from chashka.app.dialects.a1111_tasks import Task, Tasks
from chashka.app.dialects.calls import Call
from chashka.app.dialects.fields import Body, FieldError, Flag, parsed, whole
from chashka.app.jobs import ENDED

LATENT_MODES = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)


class ProgressAsked(Body):
    """POST /internal/progress."""

    id_task: str | None = None
    id_live_preview: whole() | None = None  # type: ignore[valid-type]
    live_preview: Flag | None = None


class ProgressQuery(Body):
    """GET /progress."""

    skip_current_image: Flag | None = None


class Options(Body):
    """POST /options: a part of the settings."""

    sd_model_checkpoint: str | None = Field(
        None, description="the model of requests that name none: title, name or hash"
    )
    samples_format: str | None = Field(None, description="png, jpg or webp")
    CLIP_stop_at_last_layers: whole(1, LAYERS) | None = None  # type: ignore[valid-type]
    sd_vae: str | None = Field(None, description="the autoencoder: a name of GET /sd-vae, Automatic or None")


async def sd_models(call: Call) -> Response:
    """Models whose files are here."""
    return JSONResponse(await call.run(models.models, call.service.settings))


async def prompt_styles(call: Call) -> Response:
    """The styles of the data folder's styles.csv."""
    return JSONResponse(await call.run(texts.styles, call.service.settings.data))


async def loras(call: Call) -> Response:
    """LoRAs in the folder of models."""
    rows = await call.run(_adapters, call, "loras")
    return JSONResponse([{"name": name, "alias": name, "path": name, "metadata": {}} for name in rows])


async def embeddings(call: Call) -> Response:
    """Textual inversions in the folder of models; of what shape they are is seen when a model opens them."""
    rows = await call.run(_adapters, call, "embeddings")
    unknown = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": None, "vectors": None}
    return JSONResponse({"loaded": {name: dict(unknown) for name in rows}, "skipped": {}})


async def sd_vae(call: Call) -> Response:
    """Autoencoders in the folder of models."""
    rows = await call.run(models.autoencoders, call.service.settings)
    return JSONResponse([{"model_name": name, "filename": name} for name in rows])


async def options(known: Tasks, call: Call) -> Response:
    """Settings as A1111 names them: some that can be changed, and a few that clients look for."""
    set_ = known.settings(call.who)
    name = set_.get("sd_model_checkpoint", call.service.settings.model)
    row = await call.run(models.one, name, call.service.settings) or {"title": name, "sha256": None}
    return JSONResponse(
        {
            "sd_model_checkpoint": row["title"],
            "sd_checkpoint_hash": row["sha256"],
            "sd_vae": set_.get("sd_vae", models.OWN),
            "samples_format": set_.get("samples_format", "png"),
            "samples_save": True,
            "grid_save": False,
            "return_grid": False,
            CLIP_SKIP: set_.get(CLIP_SKIP, 1),
        }
    )


async def change_options(known: Tasks, call: Call) -> Response:
    """Change the caller's model, autoencoder, clip skip or format, until the server stops; other settings have no effect."""
    body = parsed(Options, (await call.said()).fields)
    values: dict[str, Any] = {}
    if body.sd_model_checkpoint is not None:
        values["sd_model_checkpoint"] = await call.run(models.named, body.sd_model_checkpoint, call.service.settings)
    if body.samples_format is not None:
        if body.samples_format.lower() not in FORMATS:
            allowed = ", ".join(FORMATS)
            raise FieldError(
                "samples_format", f"samples_format: {body.samples_format[:40]!r} is not possible; allowed: {allowed}"
            )
        values["samples_format"] = body.samples_format.lower()
    if body.sd_vae is not None:
        if await call.run(models.autoencoder, body.sd_vae, call.service.settings) is None and models.asks(body.sd_vae):
            names = await call.run(models.autoencoders, call.service.settings)
            allowed = ", ".join([*models.NONE, *names])
            raise FieldError("sd_vae", f"sd_vae: {body.sd_vae[:60]!r} is not on this server; allowed: {allowed}")
        values["sd_vae"] = body.sd_vae
    if body.CLIP_stop_at_last_layers is not None:
        values[CLIP_SKIP] = body.CLIP_stop_at_last_layers
    assert set(values) <= set(SETTINGS)
    known.change(call.who, values)
    return JSONResponse(None)


async def progress(known: Tasks, call: Call) -> Response:
    """How far the caller's oldest request is."""
    asked = parsed(ProgressQuery, dict(call.request.query_params))
    running = known.of(call.who)
    if not running:
        return JSONResponse(tasks.idle())
    now = await call.run(tasks.standing, call, running[0])
    image = None
    if not asked.skip_current_image:
        image = await call.run(tasks.preview, call, now.job)
    said = {
        "progress": round(now.share, 4),
        "eta_relative": round(now.remaining(running[0]), 1),
        "state": tasks.state(running[0], now),
        "current_image": image,
        "textinfo": None if now.running else "waiting",
    }
    return JSONResponse(said)


async def internal_progress(known: Tasks, call: Call) -> Response:
    """How far a request is that the client gave a name (``force_task_id``)."""
    body = parsed(ProgressAsked, (await call.said()).fields)
    id = body.id_task or ""
    task = next((task for task in known.of(call.who) if task.id == id), None)
    said: dict[str, Any] = {"active": False, "queued": False, "completed": known.ended(call.who, id)}
    said |= {"progress": None, "eta": None, "live_preview": None, "id_live_preview": -1, "textinfo": None}
    if task is None:
        return JSONResponse(said)
    now = await call.run(tasks.standing, call, task)
    said |= {"active": now.running, "queued": not now.running, "textinfo": None if now.running else "waiting"}
    if now.running:
        said |= {"progress": round(now.share, 4), "eta": round(now.remaining(task), 1)}
    seen = now.number * 1000 + now.done  # grows; the client says which it has
    if body.live_preview is not False and seen > (-1 if body.id_live_preview is None else body.id_live_preview):
        image = await call.run(tasks.preview, call, now.job)
        if image is not None:
            said |= {"live_preview": f"data:image/png;base64,{image}", "id_live_preview": seen}
    return JSONResponse(said)


async def pending_tasks(known: Tasks, call: Call) -> Response:
    """Requests of the caller's that wait."""
    waiting = [task.id for task in known.of(call.who) if not (await call.run(tasks.standing, call, task)).running]
    return JSONResponse({"size": len(waiting), "tasks": waiting})


async def interrupt(known: Tasks, call: Call) -> Response:
    """Stop what the caller asked for here; the requests are answered with the pictures that are finished."""
    for task in known.of(call.who):
        task.interrupted = True
        await _stop(call, task, len(task.jobs))
    return JSONResponse({})


async def skip(known: Tasks, call: Call) -> Response:
    """Stop the picture that is drawn now, and go on with the next."""
    for task in known.of(call.who)[:1]:
        task.skipped = True
        await _stop(call, task, 1)
    return JSONResponse(None)


async def memory(call: Call) -> Response:
    """The machine's memory; how much a GPU has is not known to the server, which does not compute."""
    import psutil

    ram = psutil.virtual_memory()
    said = {"ram": {"free": ram.available, "used": ram.used, "total": ram.total}}
    return JSONResponse(said | {"cuda": {"error": "not known to this process"}})


async def cmd_flags(call: Call) -> Response:
    """What A1111 would have been started with."""
    settings = call.service.settings
    return JSONResponse(
        {"api": True, "nowebui": False, "port": settings.port, "server_name": settings.host, "listen": False}
    )


async def _stop(call: Call, task: Task, most: int) -> None:
    """Stop the first ``most`` jobs of a task that have not ended."""
    for id in list(task.jobs):
        if most and (await call.run(call.service.job, call.who, id)).state not in ENDED:
            await call.run(call.service.stop, call.who, id, "now")
            most -= 1


def _adapters(call: Call, kind: str) -> list[str]:
    folder = call.service.settings.models
    if folder is None or not (folder / kind).is_dir():
        return []
    files = (folder / kind).rglob("*")
    return sorted(
        {file.stem for file in files if file.suffix.lower() in (".safetensors", ".pt", ".bin") and file.is_file()}
    )
