"""``get_kandinsky2`` and the object it returns."""

from __future__ import annotations

import secrets
import sys
import warnings
from typing import TYPE_CHECKING, Any

from chashka.errors import ChashkaError, EngineError, InputError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

    from chashka.families import Bundle
    from chashka.request import Inputs

TASKS = ("text2img", "img2img", "inpainting")
SIDE = 512
"""img2img and inpainting of 2022 always give 512x512."""

_SAMPLERS = {"p_sampler": "ddpm", "ddim_sampler": "ddim", "plms_sampler": "plms"}
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

_warned: set[str] = set()


def get_kandinsky2(
    device: str,
    task_type: str = "text2img",
    cache_dir: str = "/tmp/kandinsky2",
    use_auth_token: str | None = None,
    model_version: str = "2.0",
    use_flash_attention: bool = False,
) -> Kandinsky2:
    """The model for ``task_type`` ('text2img', 'img2img' or 'inpainting'; ValueError otherwise).

    device: 'cpu', or 'cuda', which falls back to the CPU with one warning where it cannot be used. Nothing is downloaded,
    so that ``cache_dir`` and ``use_auth_token`` have no effect; neither have the two arguments of 2023.
    """
    if task_type not in TASKS:
        raise ValueError("Only text2img, img2img and inpainting is available")
    if model_version != "2.0":
        _warn_once(f"model_version {model_version!r} is not in this package: drawing with its own small model", 3)
    return Kandinsky2(_load(str(device)), task_type)


class Kandinsky2:
    """The object of the 2022 code: ``generate_text2img``, ``generate_img2img``, ``generate_inpainting``.

    Each returns a list of RGB PIL images. ``seed`` is ours: an integer for pictures that can be had again.
    """

    def __init__(self, bundle: Bundle, task_type: str = "text2img") -> None:
        self.bundle = bundle
        self.task_type = task_type

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
        # 1 - 0.8 is 0.19999999999999996: twelve digits are more than steps can tell apart
        share = round(1 - strength, 12)
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
        return self._draw({**fields, **size}, _inputs(pil_img, img_mask), progress, seed)

    def _draw(self, fields: dict[str, Any], inputs: Inputs | None, progress: bool, seed: int | None) -> list[Image]:
        from chashka.generate import draw

        chosen = secrets.randbelow(2**32) if seed is None else seed
        request = self.bundle.request(**fields, seed=chosen, background="white")
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
        _warn_once(f"{name} belongs to a later version of Kandinsky and has no effect here")
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


def _inputs(pil_img: Image, img_mask: Any) -> Inputs:
    """The picture squeezed to 512×512 as in 2022, and chashka's mask: 1 = repaint."""
    import numpy as np

    from chashka.request import Inputs

    picture = np.asarray(pil_img.convert("RGB").resize((SIDE, SIDE)).convert("RGBA"))
    if img_mask is None:
        return Inputs(picture)
    kept = np.asarray(img_mask, dtype=np.float32)
    if kept.ndim != 2 or not np.isfinite(kept).all():
        raise InputError(
            f"img_mask: shape {kept.shape} is not possible; allowed: numbers (H, W), 1 = keep, 0 = repaint"
        )
    return Inputs(picture, np.clip(1 - kept, 0, 1))


def _load(device: str) -> Bundle:
    """The package's model on ``device``; 'cuda' without CUDA (or without torch) is the CPU, with one warning."""
    import chashka

    if device.startswith("cuda"):
        try:
            return chashka.load(engine="torch", device=device)
        except (MissingExtraError, EngineError) as error:
            _warn_once(f"device {device!r} cannot be used ({error}); drawing on the CPU")
    elif device != "cpu":
        raise InputError(f"device: {device!r} is not possible; allowed: 'cuda' or 'cpu'")
    return chashka.load()


def _warn_once(message: str, level: int = 4) -> None:
    """Warn at the user's own line, which is ``level`` calls up, the first time that this message is said."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, UserWarning, stacklevel=level)


__all__ = ["ChashkaError", "Kandinsky2", "get_kandinsky2"]
