"""The object of Kandinsky 2.1, with the methods and defaults of the 2023 code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kandinsky2.drawing import CELL, Drawer, given, ignored, masked, mixed, sampler_name, share_replaced

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "2.1"


class Kandinsky2_1(Drawer):  # noqa: N801  # the name that the original has
    """``generate_text2img``, ``mix_images``, ``generate_img2img``, ``generate_inpainting``; each returns a list of RGB PIL images.

    strength is the share that is KEPT, and a mask is 1 where the picture is kept, as in 2.0.
    """

    def generate_text2img(
        self,
        prompt: str,
        num_steps: int = 100,
        batch_size: int = 1,
        guidance_scale: float = 7,
        h: int = 512,
        w: int = 512,
        sampler: str = "ddim_sampler",
        prior_cf_scale: float = 4,
        prior_steps: str = "25",
        negative_prior_prompt: str = "",
        negative_decoder_prompt: str = "",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """``batch_size`` pictures of ``prompt``, h×w."""
        fields = self._fields(num_steps, guidance_scale, sampler, prior_cf_scale, prior_steps, others)
        negative = self._negative(negative_prior_prompt, negative_decoder_prompt)
        return self._draw({**fields, **negative, "prompt": prompt, "n": batch_size}, None, (w, h), True, seed)

    def mix_images(
        self,
        images_texts: Sequence[Any],
        weights: Sequence[float],
        num_steps: int = 100,
        batch_size: int = 1,
        guidance_scale: float = 7,
        h: int = 512,
        w: int = 512,
        sampler: str = "ddim_sampler",
        prior_cf_scale: float = 4,
        prior_steps: str = "25",
        negative_prior_prompt: str = "",
        negative_decoder_prompt: str = "",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """Pictures of the weighted sum of what PIL images and texts are; the published weights take the sum as it is."""
        from chashka.request import Inputs

        fields = self._fields(num_steps, guidance_scale, sampler, prior_cf_scale, prior_steps, others)
        negative = self._negative(negative_prior_prompt, negative_decoder_prompt)
        parts, pictures = mixed(images_texts, weights)
        whole = {**fields, **negative, "prompt": "", "mix": parts, "n": batch_size}
        return self._draw(whole, Inputs(pictures=pictures), (w, h), True, seed)

    def generate_img2img(
        self,
        prompt: str,
        pil_img: Image,
        strength: float = 0.7,
        num_steps: int = 100,
        batch_size: int = 1,
        guidance_scale: float = 7,
        h: int = 512,
        w: int = 512,
        sampler: str = "ddim_sampler",
        prior_cf_scale: float = 4,
        prior_steps: str = "25",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """Pictures from ``pil_img``, squeezed to h×w."""
        share = share_replaced(strength, self.published)
        fields = self._fields(num_steps, guidance_scale, sampler, prior_cf_scale, prior_steps, others)
        whole = {**fields, "prompt": prompt, "strength": share, "n": batch_size}
        return self._draw(whole, given(pil_img, (w, h)), (w, h), True, seed)

    def generate_inpainting(
        self,
        prompt: str,
        pil_img: Image,
        img_mask: Any,
        num_steps: int = 100,
        batch_size: int = 1,
        guidance_scale: float = 7,
        h: int = 512,
        w: int = 512,
        sampler: str = "ddim_sampler",
        prior_cf_scale: float = 4,
        prior_steps: str = "25",
        negative_prior_prompt: str = "",
        negative_decoder_prompt: str = "",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """Pictures in which ``img_mask`` (numbers (H, W)) is 0 where they are drawn anew, 1 where they are kept."""
        fields = self._fields(num_steps, guidance_scale, sampler, prior_cf_scale, prior_steps, others)
        negative = self._negative(negative_prior_prompt, negative_decoder_prompt)
        inputs = masked(pil_img, (w, h), img_mask, cell=CELL if self.published else 1)
        return self._draw({**fields, **negative, "prompt": prompt, "n": batch_size}, inputs, (w, h), True, seed)

    def _fields(
        self,
        num_steps: int,
        guidance_scale: float,
        sampler: str,
        prior_cf_scale: float,
        prior_steps: str,
        others: dict[str, Any],
    ) -> dict[str, Any]:
        """chashka's fields; the small model has no prior."""
        ignored(others, VERSION)
        fields = {"steps": num_steps, "guidance_scale": guidance_scale, "sampler": sampler_name(sampler)}
        prior = {"prior_steps": int(prior_steps), "prior_guidance_scale": prior_cf_scale}
        return {**fields, **prior} if self.published else fields

    def _negative(self, prior: str, decoder: str) -> dict[str, str]:
        return {"negative_prompt": decoder} | ({"negative_prior_prompt": prior} if self.published else {})
