"""``get_kandinsky2`` and the object it returns."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

from chashka.errors import InputError
from kandinsky2.opening import NAMES, load, warn_once

if TYPE_CHECKING:
    from PIL.Image import Image

    from chashka.families import Bundle
    from chashka.request import Inputs

SIDE = 512
"""img2img and inpainting of 2022 always give 512x512."""
CELL = 8
"""Pixels per latent of the published model."""

_SAMPLERS = {"p_sampler": "p_sampler", "ddim_sampler": "ddim", "plms_sampler": "plms"}
_LATER = frozenset(
    [
        "prior_cf_scale",
        "prior_steps",
        "negative_prior_prompt",
        "negative_decoder_prompt",
        "decoder_guidance_scale",
        "prior_guidance_scale",
        "decoder_steps",
    ]
)
"""Keywords of versions 2.1 and 2.2, which describe parts that this model does not have."""


def get_kandinsky2(
    device: str,
    task_type: str = "text2img",
    cache_dir: str = "/tmp/kandinsky2",
    use_auth_token: str | None = None,
    model_version: str = "2.0",
    use_flash_attention: bool = False,
) -> Kandinsky2:
    """The model for ``task_type`` ('text2img', 'img2img' or 'inpainting'; ValueError otherwise).

    The published files are looked for in ``cache_dir`` (there also in ``2_0`` and ``kandinsky-2.0``) and in the folder that the
    variable CHASHKA_MODELS names. Where they are not, the small model inside the package draws, after one warning; nothing is
    downloaded, so that ``use_auth_token`` has no effect, and neither has ``use_flash_attention``. device: 'cpu', or 'cuda', which
    falls back to the CPU with a warning where it cannot be used.
    """
    if task_type not in NAMES:
        raise ValueError("Only text2img, img2img and inpainting is available")
    return Kandinsky2(load(str(device), task_type, str(cache_dir), str(model_version)), task_type)


class Kandinsky2:
    """The object of the 2022 code: ``generate_text2img``, ``generate_img2img``, ``generate_inpainting``.

    Each returns a list of RGB PIL images. ``seed`` is ours: an integer for pictures that can be had again. With the published
    weights the numbers are those of 2022 (docs/kandinsky.md, ``compat``).
    """

    def __init__(self, bundle: Bundle, task_type: str = "text2img") -> None:
        self.bundle = bundle
        self.task_type = task_type

    @property
    def published(self) -> bool:
        """Whether the published weights draw, or the small model inside the package."""
        return self.bundle.preset.free

    def generate_text2img(
        self,
        prompt: str,
        num_steps: int = 100,
        batch_size: int = 1,
        guidance_scale: float = 7,
        progress: bool = True,
        dynamic_threshold_v: float = 99.5,
        denoised_type: str = "dynamic_threshold",
        h: int = SIDE,
        w: int = SIDE,
        sampler: str = "ddim_sampler",
        ddim_eta: float = 0.05,
        *,
        seed: int | None = None,
        **later: Any,
    ) -> list[Image]:
        """``batch_size`` pictures of ``prompt``, h×w. Sizes are rounded up to 64 inside and cut to h×w, as in 2022."""
        high, wide = -(-int(h) // 64) * 64, -(-int(w) // 64) * 64
        fields = _common(
            prompt, num_steps, guidance_scale, dynamic_threshold_v, denoised_type, sampler, ddim_eta, later
        )
        drawn = self._draw({**fields, "n": batch_size, "width": wide, "height": high}, None, progress, seed)
        return [image.crop((0, 0, int(w), int(h))) for image in drawn]

    def generate_img2img(
        self,
        prompt: str,
        pil_img: Image,
        strength: float = 0.7,
        num_steps: int = 100,
        guidance_scale: float = 7,
        progress: bool = True,
        dynamic_threshold_v: float = 99.5,
        denoised_type: str = "dynamic_threshold",
        sampler: str = "ddim_sampler",
        ddim_eta: float = 0.05,
        *,
        seed: int | None = None,
        **later: Any,
    ) -> list[Image]:
        """One 512×512 picture from ``pil_img``, aspect ignored. strength: the share that is KEPT, 1 = the picture itself."""
        if not 0 <= strength <= 1:
            raise InputError(f"strength: {strength!r} is not possible; allowed: a number from 0 to 1")
        fields = _common(
            prompt, num_steps, guidance_scale, dynamic_threshold_v, denoised_type, sampler, ddim_eta, later
        )
        size = {"width": SIDE, "height": SIDE}
        # 1 - 0.8 is 0.19999999999999996, of which the original makes 9 of 50 steps; ours round, and twelve digits are enough
        share = 1 - strength if self.published else round(1 - strength, 12)
        return self._draw({**fields, **size, "strength": share}, _inputs(pil_img, None), progress, seed)

    def generate_inpainting(
        self,
        prompt: str,
        pil_img: Image,
        img_mask: Any,
        num_steps: int = 100,
        guidance_scale: float = 7,
        progress: bool = True,
        dynamic_threshold_v: float = 99.5,
        denoised_type: str = "dynamic_threshold",
        sampler: str = "ddim_sampler",
        ddim_eta: float = 0.05,
        *,
        seed: int | None = None,
        **later: Any,
    ) -> list[Image]:
        """One 512×512 picture; img_mask: numbers (H, W), 1 = KEEP, 0 = repaint, which is the opposite of chashka's masks."""
        fields = _common(
            prompt, num_steps, guidance_scale, dynamic_threshold_v, denoised_type, sampler, ddim_eta, later
        )
        size = {"width": SIDE, "height": SIDE}
        inputs = _inputs(pil_img, img_mask, CELL if self.published else 1)
        return self._draw({**fields, **size}, inputs, progress, seed)

    def _draw(self, fields: dict[str, Any], inputs: Inputs | None, progress: bool, seed: int | None) -> list[Image]:
        from chashka.generate import draw

        chosen = secrets.randbelow(2**32) if seed is None else seed
        numbers = {"compat": "original"} if self.published else {}
        request = self.bundle.request(**fields, **numbers, seed=chosen, background="white")
        if not progress or not sys.stderr.isatty():
            return [picture.image() for picture in draw(self.bundle, request, inputs)]
        from tqdm import tqdm

        with tqdm(unit="step") as bar:

            def advance(state: Any) -> None:
                bar.total = state.total
                bar.update(state.done - bar.n)

            return [picture.image() for picture in draw(self.bundle, request, inputs, advance)]


def _common(
    prompt: str,
    num_steps: int,
    guidance_scale: float,
    dynamic_threshold_v: float,
    denoised_type: str,
    sampler: str,
    ddim_eta: float,
    later: dict[str, Any],
) -> dict[str, Any]:
    """chashka's fields for the arguments that the three methods share."""
    unknown = sorted(set(later) - _LATER)
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; this is the interface of Kandinsky 2.0")
    for name in sorted(later):
        if name == "negative_decoder_prompt":
            continue
        warn_once(name, f"{name} belongs to a later version of Kandinsky and has no effect here", 4)
    if sampler not in _SAMPLERS:
        raise InputError(f"sampler: {sampler!r} is not possible; allowed: {', '.join(_SAMPLERS)}")
    fields = {
        "prompt": prompt,
        "negative_prompt": later.get("negative_decoder_prompt") or "",
        "steps": num_steps,
        "guidance_scale": guidance_scale,
        "sampler": _SAMPLERS[sampler],
        # in 2022 any other word meant: leave it as it is
        "denoised_type": denoised_type if denoised_type in ("dynamic_threshold", "clip_denoised") else "none",
        "dynamic_threshold_v": dynamic_threshold_v,
    }
    return {**fields, "eta": ddim_eta} if sampler == "ddim_sampler" else fields


def _inputs(pil_img: Image, img_mask: Any, cell: int = 1) -> Inputs:
    """The picture squeezed to 512×512 as in 2022, and chashka's mask: 1 = repaint.

    cell: the mask is brought to one number for so many pixels first, by the nearest one, as the original does.
    """
    import numpy as np

    from chashka.request import Inputs

    picture = np.asarray(prepared(pil_img, SIDE).convert("RGBA"))
    if img_mask is None:
        return Inputs(picture)
    kept = np.asarray(img_mask, dtype=np.float32)
    if kept.ndim != 2 or not kept.size or not np.isfinite(kept).all():
        raise InputError(
            f"img_mask: shape {kept.shape} is not possible; allowed: numbers (H, W), 1 = keep, 0 = repaint"
        )
    if cell > 1:
        rows, columns = (np.arange(SIDE // cell) * side // (SIDE // cell) for side in kept.shape)
        kept = kept[rows][:, columns].repeat(cell, axis=0).repeat(cell, axis=1)
    return Inputs(picture, np.clip(1 - kept, 0, 1))


def prepared(pil_img: Image, side: int) -> Image:
    """2022's ``prepare_image``: squeezed to a square, bicubic, aspect ignored."""
    from PIL.Image import Resampling

    resized: Image = pil_img.resize((side, side), resample=Resampling.BICUBIC, reducing_gap=1)
    return resized.convert("RGB")


__all__ = ["Kandinsky2", "get_kandinsky2", "prepared"]
