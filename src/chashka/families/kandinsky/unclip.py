"""Drawing with Kandinsky 2.1 and 2.2: the prior gives each picture an embedding, the U-Net draws the picture of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chashka.diffusion import Conditioning, Denoise, Noise, dynamic_threshold, static_threshold
from chashka.errors import InputError
from chashka.families.family import Bundle, Meter, Plan
from chashka.families.kandinsky.options import OWN_SAMPLER, Options, Part
from chashka.families.kandinsky.prior import DRAW, PicturePrior
from chashka.families.kandinsky.published_sampling import known_to_the_network, steered
from chashka.families.kandinsky.published_text import BigEncoder, meter
from chashka.families.latents import Float, Graph
from chashka.prompts import clip_words

CLAMP = 2.0
"""Where ``p_sampler`` of 2.1 cuts estimates of the finished picture."""
PERCENTILE = 0.995
"""And the percentile of the threshold behind it, whatever is asked."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """diffusers' dynamic threshold: the ``ratio`` quantile, at most ``most``. Without a ratio: a cut at ``most``."""

    ratio: float | None
    most: float

    def __call__(self, result: Denoise) -> Denoise:
        if self.ratio is None:
            return static_threshold(result, self.most)
        return dynamic_threshold(result, self.ratio, most=self.most)


@dataclass(frozen=True, slots=True)
class Unclip:
    """What 2.1 and 2.2 have beyond a bundle: prior, head (joins embedding and text), 2.1's text encoder, 2.2's threshold."""

    prior: PicturePrior
    head: Graph
    text: BigEncoder | None = None
    threshold: Threshold | None = None


class PriorText:
    """2.2's texts, for which CLIP's tower in the prior is all there is."""

    def __init__(self, prior: PicturePrior) -> None:
        self._prior = prior

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """CLIP's pooled texts: the decoder is told of them by embeddings alone."""
        return {"pooled": self._prior.pooled(texts)}

    def pooled(self, texts: Sequence[str]) -> Float:
        return self._prior.pooled(texts)

    def meter(self, text: str) -> Meter:
        limit, count = clip_words.LENGTH - 2, len(clip_words.encode(text))
        return Meter(min(count, limit), max(count - limit, 0), limit)


class EncodedText:
    """2.1's texts: XLM-R's, as the decoder is told of them. The prior reads by CLIP's words, which are more for most languages."""

    def __init__(self, encoder: BigEncoder) -> None:
        self._encoder = encoder

    def encode(self, texts: Sequence[str], pooled: Mapping[int, Any] | None = None) -> Conditioning:
        """tokens1 and pooled1 of every text; ``pooled`` in place of some rows' own."""
        tokens1, whole = self._encoder(texts)
        for row, value in (pooled or {}).items():
            whole[row : row + 1] = value
        return {"tokens1": tokens1, "pooled1": whole}

    def pooled(self, texts: Sequence[str]) -> Float:
        return self._encoder(texts)[1]

    def meter(self, text: str) -> Meter:
        return meter(self._encoder.words, text)


def denoise(bundle: Bundle, request: Options, plan: Plan, *, unclip: Unclip) -> Denoise:
    """Embeddings by the prior → guidance → the model's thresholds and blending (docs/kandinsky.md)."""
    assert plan.noise is not None
    noise = plan.noise(unclip.prior.mean.shape)
    wanted, other = embeddings(request, plan.pictures, plan.rows, noise, unclip.prior)
    unclip.prior.close()
    seen = {"concat": known_to_the_network(plan)} if bundle.masked else {}
    cond, uncond = joined(unclip, [request.prompt], wanted) | seen, joined(unclip, [""], other) | seen
    before, after = _thresholds(request, unclip, plan.mask is not None)
    ignored = request.compat is not None and request.sampler != OWN_SAMPLER
    return steered(bundle, request, plan, cond, uncond, before, after, blended=not ignored)


def embeddings(
    request: Options, pictures: Sequence[NDArray[np.uint8]], rows: int, noise: Noise, prior: PicturePrior
) -> tuple[Float, Float]:
    """(rows, D) of what is wanted, and (1 or rows, D) of what guidance goes away from: the negative prompt's, or no picture's."""
    steps = request.prior_steps if request.prior_steps is not None else 25
    scale = request.prior_guidance_scale if request.prior_guidance_scale is not None else 4.0
    drawn = partial(
        prior.sample, negative=request.negative_prior_prompt, steps=steps, guidance_scale=scale, noise=noise
    )
    if request.mix is None:
        if pictures:
            raise InputError("pictures: given, but the request mixes none of them; say how with mix")
        wanted = drawn([request.prompt] * rows)
    else:
        wanted = mixture(request.mix, pictures, rows, prior, drawn, relative=request.compat is None)
    if request.negative_prompt:
        return wanted, drawn([request.negative_prompt] * rows, draw=DRAW + 1)
    return wanted, prior.nothing()


def mixture(
    parts: Sequence[Part],
    pictures: Sequence[NDArray[np.uint8]],
    rows: int,
    prior: PicturePrior,
    drawn: Any,
    *,
    relative: bool,
) -> Float:
    """The weighted sum of pictures' embeddings and of those that the prior draws of texts. relative: weights add up to one."""
    named = {part.picture for part in parts if part.picture is not None}
    if named != set(range(len(pictures))):
        raise InputError(
            f"mix: names the pictures {sorted(named)}, given were {len(pictures)}; allowed: each of them, counted from 0"
        )
    seen = prior.pictures(pictures) if pictures else None
    whole = sum(part.weight for part in parts) if relative else 1.0
    total = np.zeros((rows, *prior.mean.shape), np.float32)
    for i, part in enumerate(parts):
        if part.picture is not None:
            assert seen is not None
            value = seen[part.picture]
        else:
            value = drawn([part.text] * rows, draw=DRAW + 2 + i)
        total += np.float32(part.weight / whole) * value
    return total


def joined(unclip: Unclip, texts: Sequence[str], picture: Float) -> Conditioning:
    """``tokens`` and ``added`` for embeddings (B, D) with one text for all of them."""
    told: dict[str, Float] = {"picture": np.ascontiguousarray(picture, dtype=np.float32)}
    if unclip.text is not None:
        tokens1, pooled1 = unclip.text(texts)
        told |= {name: np.repeat(v, len(picture), axis=0) for name, v in (("tokens1", tokens1), ("pooled1", pooled1))}
    out = unclip.head(told)
    return {"tokens": out["tokens"], "added": out["added"]}


def _thresholds(request: Options, unclip: Unclip, masked: bool) -> tuple[Callable[[Denoise], Denoise], ...]:
    """What estimates go through before the blending of what a mask keeps, and after it; without a mask the first alone counts."""
    nothing: Callable[[Denoise], Denoise] = _same
    if request.denoised_type is not None:
        kinds: dict[str, Callable[[Denoise], Denoise]] = {
            "none": nothing,
            "clip_denoised": static_threshold,
            "dynamic_threshold": partial(dynamic_threshold, q=request.dynamic_threshold_v / 100),
        }
        return kinds[request.denoised_type], kinds[request.denoised_type]
    if unclip.threshold is not None:
        return unclip.threshold, nothing
    if request.sampler != OWN_SAMPLER:
        return nothing, nothing
    cut = partial(static_threshold, limit=CLAMP)
    percentile = partial(dynamic_threshold, q=PERCENTILE, first_only=request.compat is not None)
    return (cut, percentile) if masked else (lambda result: percentile(cut(result)), nothing)


def _same(result: Denoise) -> Denoise:
    return result
