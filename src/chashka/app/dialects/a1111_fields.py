"""What A1111's clients say, and what it means here: bodies of its two drawing routes, and their fields as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from chashka.app.dialects import a1111_names as names
from chashka.app.dialects.fields import Body, FieldError, Flag, number, whole
from chashka.errors import InputError
from chashka.request import Request, shown

SEEDS = 2**32
"""What a seed of -1 is chosen from."""
CLIP_SKIP = "CLIP_stop_at_last_layers"
SETTINGS = ("sd_model_checkpoint", "samples_format", "sd_vae", CLIP_SKIP)
"""Those of override_settings that mean something here."""
LAYERS = 12
"""The most that a clip skip can be."""


class Drawing(Body):
    """What txt2img and img2img have in common. Fields that are not said are the model's own choice, not A1111's."""

    prompt: str | None = None
    negative_prompt: str | None = None
    styles: list[str] | None = None
    seed: whole(-1) | None = None  # type: ignore[valid-type]
    subseed: whole(-1) | None = None  # type: ignore[valid-type]
    subseed_strength: number(0, 1) | None = None  # type: ignore[valid-type]
    seed_resize_from_h: whole() | None = None  # type: ignore[valid-type]
    seed_resize_from_w: whole() | None = None  # type: ignore[valid-type]
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: whole(1, 64) | None = None  # type: ignore[valid-type]
    n_iter: whole(1, 64) | None = None  # type: ignore[valid-type]
    steps: whole(1, 1000) | None = None  # type: ignore[valid-type]
    cfg_scale: number(0, 50) | None = None  # type: ignore[valid-type]
    width: whole(64, 2048) | None = None  # type: ignore[valid-type]
    height: whole(64, 2048) | None = None  # type: ignore[valid-type]
    restore_faces: Flag | None = None
    tiling: Flag | None = None
    do_not_save_samples: Flag | None = None
    do_not_save_grid: Flag | None = None
    eta: number() | None = None  # type: ignore[valid-type]
    denoising_strength: number(0, 1) | None = None  # type: ignore[valid-type]
    s_min_uncond: number() | None = None  # type: ignore[valid-type]
    s_churn: number() | None = None  # type: ignore[valid-type]
    s_tmax: number() | None = None  # type: ignore[valid-type]
    s_tmin: number() | None = None  # type: ignore[valid-type]
    s_noise: number() | None = None  # type: ignore[valid-type]
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: Flag | None = None
    refiner_checkpoint: str | None = None
    refiner_switch_at: number() | None = None  # type: ignore[valid-type]
    disable_extra_networks: Flag | None = None
    comments: dict[str, Any] | None = None
    script_name: str | None = None
    script_args: list[Any] | None = None
    send_images: Flag | None = None
    save_images: Flag | None = None
    alwayson_scripts: dict[str, Any] | None = None
    force_task_id: Annotated[str, Field(max_length=200)] | None = None
    infotext: str | None = None
    return_grid: Flag | None = None
    first: whole(0, 1_000_000) | None = None  # type: ignore[valid-type]
    consent: Flag | None = None


class TextToImage(Drawing):
    """POST /sdapi/v1/txt2img."""

    enable_hr: Flag | None = None
    firstphase_width: whole() | None = None  # type: ignore[valid-type]
    firstphase_height: whole() | None = None  # type: ignore[valid-type]
    firstpass_image: str | None = None
    hr_scale: number(0, 16) | None = None  # type: ignore[valid-type]
    hr_upscaler: str | None = None
    hr_second_pass_steps: whole(0, 1000) | None = None  # type: ignore[valid-type]
    hr_resize_x: whole(0, 8192) | None = None  # type: ignore[valid-type]
    hr_resize_y: whole(0, 8192) | None = None  # type: ignore[valid-type]
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = None
    hr_negative_prompt: str | None = None


class ImageToImage(Drawing):
    """POST /sdapi/v1/img2img."""

    init_images: list[str] | None = None
    resize_mode: whole(0, 3) | None = None  # type: ignore[valid-type]
    image_cfg_scale: number() | None = None  # type: ignore[valid-type]
    mask: str | None = None
    mask_blur: number(0, 64) | None = None  # type: ignore[valid-type]
    mask_blur_x: number(0, 64) | None = None  # type: ignore[valid-type]
    mask_blur_y: number(0, 64) | None = None  # type: ignore[valid-type]
    mask_round: Flag | None = None
    inpainting_fill: whole(0, 3) | None = None  # type: ignore[valid-type]
    inpaint_full_res: Flag | None = None
    inpaint_full_res_padding: whole(0, 512) | None = None  # type: ignore[valid-type]
    inpainting_mask_invert: whole(0, 1) | None = None  # type: ignore[valid-type]
    initial_noise_multiplier: number() | None = None  # type: ignore[valid-type]
    latent_mask: str | None = None
    include_init_images: Flag | None = None


WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "restore_faces": (False,),
    "seed_resize_from_h": (0, -1),
    "seed_resize_from_w": (0, -1),
    "s_min_uncond": (0,),
    "s_churn": (0,),
    "s_noise": (1,),
    "refiner_checkpoint": ("", "None"),
    "firstpass_image": ("",),
    "firstphase_width": (0,),
    "firstphase_height": (0,),
    "hr_upscaler": ("", "None", "Lanczos"),
    "hr_checkpoint_name": ("", "Use same checkpoint"),
    "hr_sampler_name": ("", "Use same sampler"),
    "hr_scheduler": ("", "Use same scheduler"),
    "hr_prompt": ("",),
    "hr_negative_prompt": ("",),
    "latent_mask": ("",),
}
"""Fields that mean nothing here, and the values with which they mean nothing at A1111's either; with others there is a warning."""


def request_fields(body: Drawing, options: type[Request], warnings: list[str]) -> dict[str, Any]:
    """Our fields, but for model, seeds and pictures. options: what requests to the model are.

    warnings: what has no effect is added, a sentence each. Raises names.SamplerNotFoundError.
    """
    said: dict[str, Any] = {"prompt": body.prompt or "", "negative_prompt": body.negative_prompt or ""}
    ours = {"steps": body.steps, "guidance_scale": body.cfg_scale, "width": body.width, "height": body.height}
    said |= {name: value for name, value in ours.items() if value is not None}
    said |= _sampling(body, options, warnings)
    if body.first:  # of pictures that were drawn as number i of a seed, elsewhere than here
        said["first"] = body.first
    if body.tiling:
        said["tiling"] = "xy"
    if isinstance(body, TextToImage):
        said |= _second_pass(body)
    for name, nothing in WITHOUT_EFFECT.items():
        value = getattr(body, name, None)
        if (
            value is not None
            and value not in nothing
            and (not name.startswith("hr_") or getattr(body, "enable_hr", False))
        ):
            warnings.append(f"{name}: this server does not do that; it had no effect")
    warnings += [f"{name}: this is not known here and had no effect" for name in body.unknown()]
    warnings += [
        f"{name}: this script is not here; it had no effect"
        for name in sorted(body.alwayson_scripts or {})
        if _on(body, name)
    ]
    for name in sorted(body.override_settings or {}):
        if name not in SETTINGS:
            warnings.append(f"override_settings: {name[:40]} is not a setting of this server; it had no effect")
    return said


def clip_skip(value: Any, options: type[Request], warnings: list[str]) -> dict[str, int]:
    """Our field. value: A1111's setting, of which 1 is what a model does by itself. Raises FieldError."""
    try:
        number = 1 if value is None else int(str(value))
    except ValueError:
        number = 0
    if not 1 <= number <= LAYERS:
        rule = f"{shown(value)} is not possible; allowed: a whole number from 1 to {LAYERS}"
        raise FieldError("override_settings", f"override_settings: {CLIP_SKIP} {rule}")
    if number == 1:
        return {}
    if "clip_skip" in options.model_fields:
        return {"clip_skip": number}
    warnings.append(f"{CLIP_SKIP}: this model's text encoders have no layers to choose from; it had no effect")
    return {}


def masked_fields(body: ImageToImage, warnings: list[str]) -> dict[str, Any]:
    """Our fields of a request with a mask."""
    soft = [value for value in (body.mask_blur_x, body.mask_blur_y) if value is not None]
    blur = body.mask_blur if body.mask_blur is not None else max(soft, default=4.0)
    said: dict[str, Any] = {"mask_blur": blur, "only_masked": body.inpaint_full_res is not False}
    if said["only_masked"]:
        said["mask_padding"] = body.inpaint_full_res_padding or 0
    if body.inpainting_fill not in (None, 1):
        warnings.append(
            "inpainting_fill: what is drawn anew begins with what was there (1); denoising_strength 1 leaves none of it"
        )
    return said


def _sampling(body: Drawing, options: type[Request], warnings: list[str]) -> dict[str, Any]:
    """Sampler, spacing and eta."""
    said: dict[str, Any] = {}
    name = body.sampler_name or body.sampler_index
    if name:
        said["sampler"], spacing = names.sampler(name)
        if spacing is not None:
            said["spacing"] = spacing
    if body.scheduler:
        spacing, note = names.spacing(body.scheduler, tables=not _takes(options, "shifted"))
        if spacing is not None:
            said["spacing"] = spacing
        if note:
            warnings.append(note)
    if body.eta is not None and "eta" in options.model_fields and names.takes_eta(said.get("sampler", "")):
        if 0 <= body.eta <= 1:
            said["eta"] = body.eta
        else:
            warnings.append(f"eta: {body.eta:g} is not possible here (0 to 1); it had no effect")
    return said


def _second_pass(body: TextToImage) -> dict[str, Any]:
    """What enable_hr means: a second pass over the enlarged picture."""
    if not body.enable_hr:
        return {}
    scale = body.hr_scale or 2.0
    if body.hr_resize_x and body.width:
        scale = body.hr_resize_x / body.width
    elif body.hr_resize_y and body.height:
        scale = body.hr_resize_y / body.height
    if scale <= 1:
        return {}
    said: dict[str, Any] = {"hires_scale": scale, "hires_strength": 0.75}
    if body.denoising_strength is not None:
        said["hires_strength"] = body.denoising_strength
    if body.hr_second_pass_steps:
        said["hires_steps"] = body.hr_second_pass_steps
    return said


def _takes(options: type[Request], spacing: str) -> bool:
    """Whether requests to a model may name this spacing; one that refuses those of flows has tables of noise levels."""
    try:
        options(prompt="-", spacing=spacing)
    except InputError:
        return False
    return True


def _on(body: Drawing, name: str) -> bool:
    """Whether a script of alwayson_scripts is asked to do something: clients send those that are off as well."""
    script = (body.alwayson_scripts or {}).get(name)
    args = script.get("args") if isinstance(script, dict) else script
    if isinstance(args, list):
        return any(arg.get("enabled", True) if isinstance(arg, dict) else bool(arg) for arg in args)
    return bool(args)
