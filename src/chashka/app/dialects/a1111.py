"""A1111's API (``/sdapi/v1``), as its clients speak it: the table of its routes. What each means here is in docs/dialects.md."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from chashka.app.dialects import a1111_documents as documents
from chashka.app.dialects import a1111_draw as draw
from chashka.app.dialects import a1111_extras as extras
from chashka.app.dialects import a1111_lists as lists
from chashka.app.dialects import a1111_names as names
from chashka.app.dialects.a1111_tasks import Tasks
from chashka.app.dialects.calls import Call, Fault, Handler, Speaker

if TYPE_CHECKING:
    from chashka.app.service import Service

ROOT = "/sdapi/v1"
NOTHING: dict[str, Any] = {
    f"GET {ROOT}/hypernetworks": [],
    f"GET {ROOT}/face-restorers": [],
    f"GET {ROOT}/realesrgan-models": [],
    f"GET {ROOT}/extensions": [],
    f"GET {ROOT}/script-info": [],
    f"GET {ROOT}/scripts": {"txt2img": [], "img2img": []},
    f"GET {ROOT}/samplers": names.sampler_list(),
    f"GET {ROOT}/schedulers": names.scheduler_list(),
    f"GET {ROOT}/latent-upscale-modes": [{"name": name} for name in lists.LATENT_MODES],
    "GET /controlnet/version": {"version": 0},
    "GET /controlnet/model_list": {"model_list": []},
    "GET /controlnet/module_list": {"module_list": [], "module_detail": {}},
    "GET /controlnet/control_types": {"control_types": {}},
    "GET /controlnet/settings": {"control_net_unit_count": 0},
    f"POST {ROOT}/refresh-checkpoints": None,
    f"POST {ROOT}/refresh-vae": None,
    f"POST {ROOT}/refresh-embeddings": None,
    f"POST {ROOT}/refresh-loras": None,
    f"POST {ROOT}/unload-checkpoint": {},
    f"POST {ROOT}/reload-checkpoint": {},
}
"""Routes whose answer never changes: lists of what is not here, tables of names, and orders for which there is nothing to do
(folders are read at every request; models are opened and closed as they are needed)."""
MISSING = {
    f"POST {ROOT}/interrogate": "Interrogation is not available: this server has no model that describes pictures",
    "POST /controlnet/detect": "ControlNet is not available on this server",
}


def router(service: Service) -> APIRouter:
    """All routes."""
    speaker = Speaker(APIRouter(tags=["A1111"]), service, shown)
    tasks = Tasks()
    drawing: list[tuple[str, Handler]] = [
        ("POST txt2img", partial(_or_sampler, partial(draw.txt2img, tasks))),
        ("POST img2img", partial(_or_sampler, partial(draw.img2img, tasks))),
        ("POST extra-single-image", extras.extra_single),
        ("POST extra-batch-images", extras.extra_batch),
        ("POST interrupt", partial(lists.interrupt, tasks)),
        ("POST skip", partial(lists.skip, tasks)),
        ("POST options", partial(lists.change_options, tasks)),
    ]
    reading: list[tuple[str, Handler]] = [
        ("POST png-info", extras.png_info),
        ("GET progress", partial(lists.progress, tasks)),
        ("GET options", partial(lists.options, tasks)),
        ("GET sd-models", lists.sd_models),
        ("GET upscalers", _upscalers),
        ("GET prompt-styles", lists.prompt_styles),
        ("GET loras", lists.loras),
        ("GET embeddings", lists.embeddings),
        ("GET sd-vae", lists.sd_vae),
        ("GET memory", lists.memory),
        ("GET cmd-flags", lists.cmd_flags),
        ("POST /internal/progress", partial(lists.internal_progress, tasks)),
        ("GET /internal/pending-tasks", partial(lists.pending_tasks, tasks)),
    ]
    reading += [(route, partial(_same, answer)) for route, answer in NOTHING.items()]
    reading += [(route, partial(_missing, why)) for route, why in MISSING.items()]
    for scope, routes in (("generate", drawing), ("read", reading)):
        for route, handler in routes:
            method, _, name = route.partition(" ")
            path = name if name.startswith("/") else f"{ROOT}/{name}"
            speaker.add(method, path, handler, scope, **documents.document(method, path))
    return speaker.router


def shown(fault: Fault) -> Response:
    """An error as A1111's clients read it: its four keys, and ``detail`` as FastAPI has it, a list where a field is wrong."""
    headers = dict(fault.headers)
    if fault.status == 401:
        headers["www-authenticate"] = 'Basic realm="chashka"'
    wrong = fault.code in ("invalid_value", "invalid_image")
    detail: Any = fault.message
    if wrong and fault.place:
        detail = [{"loc": ["body", *fault.place], "msg": fault.message, "type": "value_error"}]
    said = {"error": "HTTPException", "detail": detail, "body": "", "errors": fault.message}
    return JSONResponse(said, 422 if wrong else fault.status, headers)


async def _or_sampler(handler: Handler, call: Call) -> Response:
    """A drawing route, with A1111's own answers for samplers and scripts that do not exist."""
    try:
        return await handler(call)
    except names.SamplerNotFoundError as error:
        known = ", ".join(one["name"] for one in names.sampler_list())
        errors = f"sampler_name: {str(error)[:60]!r} is not here; allowed: {known}"
        return _refused(400, "Sampler not found", errors)
    except draw.ScriptError as error:
        return _refused(
            422, "Script not found", f"script_name: {str(error)[:60]!r} is not here; this server has no scripts"
        )


def _refused(status: int, detail: str, errors: str) -> Response:
    return JSONResponse({"error": "HTTPException", "detail": detail, "body": "", "errors": errors}, status)


async def _same(answer: Any, call: Call) -> Response:
    return JSONResponse(answer)


async def _missing(why: str, call: Call) -> Response:
    return _refused(404, why, why)


async def _upscalers(call: Call) -> Response:
    return JSONResponse(await extras.upscalers(call))
