"""``get_kandinsky2`` and the object of Kandinsky 2.0 that it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kandinsky2.drawing import CELL, Drawer, given, ignored, masked, sampler_name, share_replaced
from kandinsky2.opening import NAMES, load

if TYPE_CHECKING:
    from PIL.Image import Image

    from kandinsky2.model2_1 import Kandinsky2_1
    from kandinsky2.model2_2 import Kandinsky2_2

SIDE = 512
"""img2img and inpainting of 2022 always give 512x512."""


def get_kandinsky2(
    device: str,
    task_type: str = "text2img",
    cache_dir: str = "/tmp/kandinsky2",
    use_auth_token: str | None = None,
    model_version: str = "2.0",
    use_flash_attention: bool = False,
) -> Kandinsky2 | Kandinsky2_1 | Kandinsky2_2:
    """The model for ``task_type`` ('text2img', 'img2img' or 'inpainting') of a version; ValueError for another of either.

    The published files are looked for in ``cache_dir`` (there also in ``2_0`` and ``kandinsky-2.0``, and so on) and in the folder
    that the variable CHASHKA_MODELS names. Where they are not, the small model inside the package draws, after one warning;
    nothing is downloaded, so that ``use_auth_token`` has no effect, and neither has ``use_flash_attention``. device: 'cpu', or
    'cuda', which falls back to the CPU with a warning where it cannot be used. model_version: the paper's, 2.0, unless said
    otherwise; the code of 2023 took its newest.
    """
    from kandinsky2.model2_1 import Kandinsky2_1
    from kandinsky2.model2_2 import Kandinsky2_2

    versions: dict[str, Any] = {"2.0": Kandinsky2, "2.1": Kandinsky2_1, "2.2": Kandinsky2_2}
    if str(model_version) not in versions:
        raise ValueError("Only 2.0, 2.1 and 2.2 is available")
    if task_type not in NAMES:
        raise ValueError("Only text2img, img2img and inpainting is available")
    bundle = load(str(device), task_type, str(cache_dir), str(model_version))
    made: Kandinsky2 | Kandinsky2_1 | Kandinsky2_2 = versions[str(model_version)](bundle, task_type)
    return made


class Kandinsky2(Drawer):
    """The object of the 2022 code: ``generate_text2img``, ``generate_img2img``, ``generate_inpainting``.

    Each returns a list of RGB PIL images. With the published weights the numbers are those of 2022 (docs/kandinsky.md, ``compat``).
    """

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
        **others: Any,
    ) -> list[Image]:
        """``batch_size`` pictures of ``prompt``, h×w. Sizes are rounded up to 64 inside and cut to h×w, as in 2022."""
        fields = _fields(
            prompt, num_steps, guidance_scale, dynamic_threshold_v, denoised_type, sampler, ddim_eta, others
        )
        return self._draw({**fields, "n": batch_size}, None, (w, h), progress, seed)

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
        **others: Any,
    ) -> list[Image]:
        """One 512×512 picture from ``pil_img``, aspect ignored. strength: the share that is KEPT, 1 = the picture itself."""
        share = share_replaced(strength, self.published)
        fields = _fields(
            prompt, num_steps, guidance_scale, dynamic_threshold_v, denoised_type, sampler, ddim_eta, others
        )
        size = (SIDE, SIDE)
        return self._draw({**fields, "strength": share}, given(pil_img, size), size, progress, seed)

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
        **others: Any,
    ) -> list[Image]:
        """One 512×512 picture; img_mask: numbers (H, W), 1 = KEEP, 0 = repaint, which is the opposite of chashka's masks."""
        fields = _fields(
            prompt, num_steps, guidance_scale, dynamic_threshold_v, denoised_type, sampler, ddim_eta, others
        )
        size = (SIDE, SIDE)
        inputs = masked(pil_img, size, img_mask, cell=CELL if self.published else 1)
        return self._draw(fields, inputs, size, progress, seed)


def _fields(
    prompt: str,
    num_steps: int,
    guidance_scale: float,
    dynamic_threshold_v: float,
    denoised_type: str,
    sampler: str,
    ddim_eta: float,
    others: dict[str, Any],
) -> dict[str, Any]:
    """chashka's fields for the arguments that the three methods share. A negative prompt is taken from the later versions."""
    negative = others.pop("negative_decoder_prompt", "")
    ignored(others, "2.0")
    fields = {
        "prompt": prompt,
        "negative_prompt": negative or "",
        "steps": num_steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler_name(sampler),
        # in 2022 any other word meant: leave it as it is
        "denoised_type": denoised_type if denoised_type in ("dynamic_threshold", "clip_denoised") else "none",
        "dynamic_threshold_v": dynamic_threshold_v,
    }
    return {**fields, "eta": ddim_eta} if sampler == "ddim_sampler" else fields
