"""The object of Kandinsky 2.2, with the methods and defaults of the 2023 code, which hands everything to diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kandinsky2.drawing import CELL, Drawer, given, ignored, masked, mixed

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "2.2"


class Kandinsky2_2(Drawer):  # noqa: N801  # the name that the original has
    """``generate_text2img``, ``generate_img2img``, ``mix_images``, ``generate_inpainting``; each returns a list of RGB PIL images.

    As in diffusers, strength is the share that is REPLACED here, and a mask is 1 where the picture is drawn anew.
    """

    def generate_text2img(
        self,
        prompt: str,
        batch_size: int = 1,
        decoder_steps: int = 50,
        prior_steps: int = 25,
        decoder_guidance_scale: float = 4,
        prior_guidance_scale: float = 4,
        h: int = 512,
        w: int = 512,
        negative_prior_prompt: str = "",
        negative_decoder_prompt: str = "",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """``batch_size`` pictures of ``prompt``, h×w."""
        fields = self._fields(decoder_steps, prior_steps, decoder_guidance_scale, prior_guidance_scale, others)
        negative = self._negative(negative_prior_prompt, negative_decoder_prompt)
        return self._draw({**fields, **negative, "prompt": prompt, "n": batch_size}, None, (w, h), True, seed)

    def generate_img2img(
        self,
        prompt: str,
        image: Image,
        strength: float = 0.4,
        batch_size: int = 1,
        decoder_steps: int = 100,
        prior_steps: int = 25,
        decoder_guidance_scale: float = 4,
        prior_guidance_scale: float = 4,
        h: int = 512,
        w: int = 512,
        negative_prior_prompt: str = "",
        negative_decoder_prompt: str = "",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """Pictures from ``image``, squeezed to h×w."""
        fields = self._fields(decoder_steps, prior_steps, decoder_guidance_scale, prior_guidance_scale, others)
        negative = self._negative(negative_prior_prompt, negative_decoder_prompt)
        whole = {**fields, **negative, "prompt": prompt, "strength": strength, "n": batch_size}
        return self._draw(whole, given(image, (w, h)), (w, h), True, seed)

    def mix_images(
        self,
        images_texts: Sequence[Any],
        weights: Sequence[float],
        batch_size: int = 1,
        decoder_steps: int = 50,
        prior_steps: int = 25,
        decoder_guidance_scale: float = 4,
        prior_guidance_scale: float = 4,
        h: int = 512,
        w: int = 512,
        negative_prior_prompt: str = "",
        negative_decoder_prompt: str = "",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """Pictures of the weighted sum of what PIL images and texts are; the published weights take the sum as it is."""
        from chashka.request import Inputs

        fields = self._fields(decoder_steps, prior_steps, decoder_guidance_scale, prior_guidance_scale, others)
        negative = self._negative(negative_prior_prompt, negative_decoder_prompt)
        parts, pictures = mixed(images_texts, weights)
        whole = {**fields, **negative, "prompt": "", "mix": parts, "n": batch_size}
        return self._draw(whole, Inputs(pictures=pictures), (w, h), True, seed)

    def generate_inpainting(
        self,
        prompt: str,
        pil_img: Image,
        img_mask: Any,
        batch_size: int = 1,
        decoder_steps: int = 50,
        prior_steps: int = 25,
        decoder_guidance_scale: float = 4,
        prior_guidance_scale: float = 4,
        h: int = 512,
        w: int = 512,
        negative_prior_prompt: str = "",
        negative_decoder_prompt: str = "",
        *,
        seed: int | None = None,
        **others: Any,
    ) -> list[Image]:
        """Pictures in which ``img_mask`` (numbers (H, W)) is 1 where they are drawn anew, 0 where they are kept."""
        fields = self._fields(decoder_steps, prior_steps, decoder_guidance_scale, prior_guidance_scale, others)
        negative = self._negative(negative_prior_prompt, negative_decoder_prompt)
        inputs = masked(pil_img, (w, h), img_mask, keep=0, cell=CELL if self.published else 1)
        return self._draw({**fields, **negative, "prompt": prompt, "n": batch_size}, inputs, (w, h), True, seed)

    def _fields(
        self, steps: int, prior_steps: int, guidance: float, prior_guidance: float, others: dict[str, Any]
    ) -> dict[str, Any]:
        """chashka's fields; the small model has no prior."""
        ignored(others, VERSION)
        fields = {"steps": steps, "guidance_scale": guidance, "sampler": "p_sampler"}
        prior = {"prior_steps": int(prior_steps), "prior_guidance_scale": prior_guidance}
        return {**fields, **prior} if self.published else fields

    def _negative(self, prior: str, decoder: str) -> dict[str, str]:
        return {"negative_prompt": decoder} | ({"negative_prior_prompt": prior} if self.published else {})
