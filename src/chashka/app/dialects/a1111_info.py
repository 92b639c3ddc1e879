"""What A1111's clients are answered: pictures in base64, and ``info``, JSON in a string."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chashka
from chashka.app.dialects import a1111_models as models
from chashka.app.dialects.a1111_fields import ImageToImage
from chashka.app.dialects.a1111_names import SCHEDULER_NAMES, sampler_label
from chashka.app.dialects.calls import Call
from chashka.app.dialects.pictures import to_text
from chashka.app.jobs import Job, Picture

if TYPE_CHECKING:
    from chashka.app.dialects.a1111_draw import Asked, Seeds

Drawn = list[tuple[Job, Picture | None]]


def answer(call: Call, asked: Asked, seeds: Seeds, drawn: Drawn, file_format: str) -> dict[str, Any]:
    """The answer of txt2img and img2img. drawn: jobs in their order, with the picture of each that was finished."""
    finished = [(number, picture) for number, (_, picture) in enumerate(drawn) if picture is not None]
    files = [call.service.file(call.who, picture, format=file_format)[0] for _, picture in finished]
    notes = [note for job, _ in drawn for note in job.notes]
    warnings = list(dict.fromkeys([*asked.warnings, *notes]))
    images = [to_text(data) for data in files] if asked.body.send_images is not False else []
    if (
        asked.body.return_grid
        and len({(one.new.width, one.new.height) for _, one in finished}) == 1 < len(files)
        and images
    ):
        images.append(to_text(call.service.sent(_grid(files, file_format))))
    said = _info(call, asked, seeds, finished, files, warnings)
    return {"images": images, "parameters": _echo(asked), "info": json.dumps(said, ensure_ascii=False)}


def _info(
    call: Call,
    asked: Asked,
    seeds: Seeds,
    finished: list[tuple[int, Picture]],
    files: list[bytes],
    warnings: list[str],
) -> dict[str, Any]:
    """A1111's ``info``, of what was really drawn. all_seeds: of the pictures that are there."""
    first = finished[0][1] if finished else None
    used: Mapping[str, Any] = {} if first is None else first.new.metadata.get("request", {})
    numbers = [seeds.of(number) for number, _ in finished]
    prompt, negative = asked.fields["prompt"], asked.fields["negative_prompt"]
    row = models.one(asked.model, call.service.settings) or {}
    scheduler = next((one.label for one in SCHEDULER_NAMES if one.ours == used.get("spacing")), used.get("spacing"))
    extra: dict[str, Any] = {"Schedule type": scheduler} if scheduler else {}
    if warnings:
        extra["Warnings"] = warnings
    return {
        "prompt": prompt,
        "all_prompts": [prompt] * len(finished),
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(finished),
        "seed": numbers[0][0] if numbers else seeds.seed,
        "all_seeds": [seed for seed, _ in numbers],
        "subseed": numbers[0][1] if numbers else seeds.subseed,
        "all_subseeds": [subseed for _, subseed in numbers],
        "subseed_strength": asked.body.subseed_strength or 0,
        "width": asked.fields.get("width") if first is None else first.new.width,
        "height": asked.fields.get("height") if first is None else first.new.height,
        "sampler_name": sampler_label(used.get("sampler")),
        "cfg_scale": used.get("guidance_scale"),
        "steps": used.get("steps"),
        "batch_size": asked.body.batch_size or 1,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": asked.model,
        "sd_model_hash": row.get("hash"),
        "sd_vae_name": asked.fields.get("vae"),
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": used.get("strength", used.get("hires_strength") if "hires_scale" in used else None),
        "extra_generation_params": extra,
        "index_of_first_image": 0,
        "infotexts": [_infotext(data) for data in files],
        "styles": asked.body.styles or [],
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(None if first is None else first.created)),
        "clip_skip": used.get("clip_skip", 1),
        "is_using_inpainting_conditioning": False,
        "version": f"chashka {chashka.__version__}",
        "ids": [picture.id for _, picture in finished],
    }


def _infotext(data: bytes) -> str:
    """The A1111 text in a file; nothing where the server's privacy leaves it out."""
    from chashka.images.metadata import told

    return told(data).parameters or ""


def _echo(asked: Asked) -> dict[str, Any]:
    """What was asked, without the pictures unless it asks for them back."""
    said = asked.body.said() | dict(asked.body.model_extra or {})
    if isinstance(asked.body, ImageToImage) and not asked.body.include_init_images:
        said |= {"init_images": None, "mask": None}
    return said


def _grid(files: list[bytes], file_format: str) -> bytes:
    """All pictures on one sheet, marked as they are."""
    import numpy as np
    from PIL import Image

    from chashka import images
    from chashka.images.privacy import label_in, limited
    from chashka.images.writing import encode

    pictures = []
    for data in files:
        with Image.open(io.BytesIO(data)) as image:
            pictures.append(np.asarray(image.convert("RGBA")))
    label = limited(label_in(files[0]), "provenance")
    return encode(images.grid(pictures), label, Path(f"grid.{file_format}"))
