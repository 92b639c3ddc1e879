"""A1111's routes for pictures that are there already: what they say, and larger ones of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from starlette.responses import JSONResponse, Response

from chashka.app.dialects import a1111_models as models
from chashka.app.dialects.a1111_texts import parameters
from chashka.app.dialects.calls import Call, JobError
from chashka.app.dialects.fields import Body, FieldError, Flag, number, parsed, whole
from chashka.app.dialects.pictures import from_text, opened, to_text
from chashka.app.jobs import Problem
from chashka.enlarge import FACTORS, LONGEST
from chashka.images.privacy import with_privacy

PLAIN = ("None", "Lanczos", "Nearest")
"""Ways of enlarging that need no model."""
_BATCH = 64


class PngInfo(Body):
    """POST /png-info."""

    image: str


class Extra(Body):
    """What extra-single-image and extra-batch-images have in common."""

    resize_mode: whole(0, 1) | None = None  # type: ignore[valid-type]
    show_extras_results: Flag | None = None
    gfpgan_visibility: number(0, 1) | None = None  # type: ignore[valid-type]
    codeformer_visibility: number(0, 1) | None = None  # type: ignore[valid-type]
    codeformer_weight: number(0, 1) | None = None  # type: ignore[valid-type]
    upscaling_resize: number(0, 8) | None = None  # type: ignore[valid-type]
    upscaling_resize_w: whole(1, 8192) | None = None  # type: ignore[valid-type]
    upscaling_resize_h: whole(1, 8192) | None = None  # type: ignore[valid-type]
    upscaling_crop: Flag | None = None
    upscaler_1: str | None = None
    upscaler_2: str | None = None
    extras_upscaler_2_visibility: number(0, 1) | None = None  # type: ignore[valid-type]
    upscale_first: Flag | None = None
    consent: Flag | None = None


class ExtraSingle(Extra):
    """POST /extra-single-image."""

    image: str


class Named(Body):
    """A picture of a batch."""

    data: str
    name: str | None = None


class ExtraBatch(Extra):
    """POST /extra-batch-images."""

    imageList: Annotated[list[Named], Field(min_length=1, max_length=_BATCH)]  # noqa: N815  (the client's name)


@dataclass(frozen=True, slots=True)
class Way:
    """How a picture is enlarged. by: what its sides are multiplied with; or size: what they become, cropped or not."""

    upscaler: str
    by: float
    size: tuple[int, int] | None
    crop: bool

    def target(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) before anything is cropped."""
        if self.size is None:
            return max(round(width * self.by), 1), max(round(height * self.by), 1)
        scales = self.size[0] / width, self.size[1] / height
        scale = max(scales) if self.crop else min(scales)
        return max(round(width * scale), 1), max(round(height * scale), 1)


async def png_info(call: Call) -> Response:
    """What a picture says about itself, whichever program made it."""
    from chashka.images.foreign import read_foreign
    from chashka.images.metadata import told

    body = parsed(PngInfo, (await call.said()).fields)
    data = from_text(body.image, "image")
    await call.run(call.service.look, call.who)
    await call.run(opened, data, call.service.settings.max_picture, "image")
    text = (await call.run(told, data)).parameters
    if text is None:
        foreign = await call.run(read_foreign, data)
        text = "" if foreign is None else foreign.parameters()
    return JSONResponse(
        {"info": text, "items": {"parameters": text} if text else {}, "parameters": parameters(text) if text else {}}
    )


async def extra_single(call: Call) -> Response:
    """A larger one of a picture."""
    body = parsed(ExtraSingle, (await call.said()).fields)
    way, notes = await _way(call, body)
    await _reserve(call, way, 1)
    image = await _enlarged(call, from_text(body.image, "image"), way, bool(body.consent))
    return JSONResponse({"image": to_text(image), "html_info": _html(way, notes)})


async def extra_batch(call: Call) -> Response:
    """Larger ones of several pictures."""
    body = parsed(ExtraBatch, (await call.said()).fields)
    if len(body.imageList) > call.service.settings.max_n:
        raise FieldError(
            "imageList", f"imageList: {len(body.imageList)}; allowed: at most {call.service.settings.max_n}"
        )
    way, notes = await _way(call, body)
    given = [await call.run(from_text, one.data, "imageList") for one in body.imageList]
    await _reserve(call, way, len(given))
    images = [await _enlarged(call, data, way, bool(body.consent)) for data in given]
    return JSONResponse({"images": [to_text(data) for data in images], "html_info": _html(way, notes)})


async def upscalers(call: Call) -> list[dict[str, Any]]:
    """What GET /upscalers says: the plain ones first, then models that have a network for it."""
    names = [*PLAIN, *await call.run(models.enlarging, call.service.settings)]
    return [
        {
            "name": name,
            "model_name": None,
            "model_path": None,
            "model_url": None,
            "scale": None if name in PLAIN else 4.0,
        }
        for name in names
    ]


async def _way(call: Call, body: Extra) -> tuple[Way, list[str]]:
    """What is asked for, and what of it has no effect."""
    name = body.upscaler_1 or "None"
    known = [row["name"] for row in await upscalers(call)]
    found = next((one for one in known if one.lower() == name.lower()), None)
    if found is None:
        raise FieldError("upscaler_1", f"upscaler_1: {name[:60]!r} is not on this server; allowed: {', '.join(known)}")
    notes = []
    if body.gfpgan_visibility or body.codeformer_visibility:
        notes.append("faces are not restored by this server")
    if body.upscaler_2 not in (None, "None", "") and body.extras_upscaler_2_visibility:
        notes.append("a second upscaler had no effect")
    size = None
    if body.resize_mode == 1:
        size = (body.upscaling_resize_w or 512, body.upscaling_resize_h or 512)
    by = 2.0 if body.upscaling_resize is None else float(body.upscaling_resize)
    if by <= 0:
        raise FieldError("upscaling_resize", "upscaling_resize: 0 is not possible; allowed: more than 0, up to 8")
    return Way(found, by, size, body.upscaling_crop is not False), notes


async def _reserve(call: Call, way: Way, pictures: int) -> None:
    """Count at once what so many pictures become: nothing, a picture that is kept, or a job between two of them."""
    if way.upscaler != "None":
        jobs = 0 if way.upscaler in PLAIN else pictures
        await call.run(call.service.reserve, call.who, jobs, pictures + jobs)


async def _enlarged(call: Call, data: bytes, way: Way, consent: bool) -> bytes:
    """A PNG of the picture, enlarged; both are kept in the gallery, so that a mark that is lost can be found again."""
    settings = call.service.settings
    image = await call.run(opened, data, settings.max_picture, "image")
    if way.upscaler == "None":  # as A1111 does: a picture goes through as it is
        return (await call.run(with_privacy, data, "full", "png"))[0]
    size = way.target(image.width, image.height)
    if max(size) > LONGEST or size[0] * size[1] > settings.max_pixels:
        allowed = f"at most {LONGEST} on each side and {settings.max_pixels} in all"
        raise FieldError(
            "upscaling_resize", f"upscaling_resize: {size[0]}x{size[1]} pixels are too many; allowed: {allowed}"
        )
    if way.upscaler not in PLAIN:
        data = await _by_model(call, data, way.upscaler, size[0] / image.width, consent)
    result = await call.run(_scaled, data, size, way, settings.max_pixels)
    kept = await call.upload(result, consent)
    sent, _ = await call.run(call.service.file, call.who, kept, format="png")
    return sent


async def _by_model(call: Call, data: bytes, model: str, by: float, consent: bool) -> bytes:
    """The picture at least ``by`` times as large, at most four times, by a model's upscaler: a job."""
    factor = next((one for one in sorted(FACTORS) if one >= by), max(FACTORS))
    given = await call.upload(data, consent)
    said = {"kind": "upscale", "model": model, "by": factor, "inputs": {"init": given.id}}
    job, _ = await call.run(call.service.submit, call.who, said, reserved=True)
    _, pictures = await call.ended(job)
    if not pictures:
        raise JobError(Problem("canceled", "the job was canceled before the picture was finished"))
    return (await call.run(call.service.file, call.who, pictures[0]))[0]


def _scaled(data: bytes, size: tuple[int, int], way: Way, most: int) -> bytes:
    """Exactly the target's size, cropped if so asked; what the file said of itself stays."""
    import numpy as np
    from PIL import Image

    from chashka.images.privacy import compact_alpha, label_in
    from chashka.images.writing import encode

    image = opened(data, max(most, 4 * LONGEST * LONGEST), "image").convert("RGBA")
    how = Image.Resampling.NEAREST if way.upscaler == "Nearest" else Image.Resampling.LANCZOS
    if image.size != size:
        image = image.convert("RGBa").resize(size, how).convert("RGBA")  # colours of transparent parts do not bleed
    if way.size is not None and way.crop:
        left, top = (size[0] - way.size[0]) // 2, (size[1] - way.size[1]) // 2
        image = image.crop((left, top, left + way.size[0], top + way.size[1]))
    return encode(compact_alpha(np.asarray(image)), label_in(data), Path("picture.png"))


def _html(way: Way, notes: list[str]) -> str:
    """A1111's ``html_info``: here plain sentences, none of which a client says."""
    return "; ".join([f"upscaler: {way.upscaler}", *notes])
