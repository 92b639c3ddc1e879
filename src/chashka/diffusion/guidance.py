"""Wrappers that steer: each returns a :data:`Denoise`, so they compose in reading order and work with every sampler.

What changes during a run is chosen by σ. Thresholds act on ``denoised`` after guidance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from chashka.diffusion.arrays import Array, concat, namespace, quantile
from chashka.diffusion.denoiser import Conditioning
from chashka.diffusion.noise import Noise
from chashka.errors import InputError

Denoise: TypeAlias = Callable[[Array, float], Array]
"""``(x, sigma) → denoised`` with the conditioning closed over; x in sigma space, (B, …)."""

Before: TypeAlias = Callable[[Array, float, int], Array]
"""``(x, sigma, step) → x``: what x becomes before a step, for samplers that take such."""
KNOWN = 1
"""The number of the draw, inside a step, that noise for what a mask keeps comes from."""

ConditionalDenoise: TypeAlias = Callable[[Array, float, Conditioning], Array]
"""What :class:`~chashka.diffusion.denoiser.Denoiser` is: ``(x, sigma, cond) → denoised``."""


def cfg(
    denoiser: ConditionalDenoise,
    cond: Conditioning,
    uncond: Conditioning | None,
    scale: float,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598): u + scale·(c - u), in one call of 2·B rows, conditional rows first.

    scale 1, or no ``uncond``: one call of B rows. interval: (low, high) noise levels; outside low < σ ≤ high only the
    conditional call is made (arXiv 2404.07724). rescale: φ of :func:`cfg_rescale`, 0 for none. Conditionings of one row
    serve every row of x. Token sequences of different lengths are padded with zeros to the longer one where there is a mask;
    otherwise padding would be attended to, and there is a call for each length.
    """
    return composed(denoiser, [(cond, 1.0)], uncond, scale, interval, rescale)


def composed(
    denoiser: ConditionalDenoise,
    conds: Sequence[tuple[Conditioning, float]],
    uncond: Conditioning | None,
    scale: float,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoise:
    """Guidance towards several conditionings with weights (arXiv 2206.01714): u + scale·Σ w·(c - u); see :func:`cfg`.

    Where only conditional calls are made, their mean by weight counts.
    """
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise InputError(f"guidance interval: {interval!r} is not possible; give (low, high) with 0 <= low < high")
    weights = [weight for _, weight in conds]

    def denoise(x: Array, sigma: float) -> Array:
        inside = interval is None or interval[0] < sigma <= interval[1]
        if uncond is None or not inside or (scale == 1 and weights == [1.0]):
            return _mean(_each(denoiser, x, sigma, [cond for cond, _ in conds]), weights)
        *said, u = _each(denoiser, x, sigma, [*(cond for cond, _ in conds), uncond])
        towards = weights[0] * (said[0] - u)
        for weight, c in zip(weights[1:], said[1:], strict=True):
            towards = towards + weight * (c - u)
        guided = u + scale * towards
        return cfg_rescale(guided, _mean(said, weights), rescale) if rescale else guided

    return denoise


def _each(denoiser: ConditionalDenoise, x: Array, sigma: float, conds: Sequence[Conditioning]) -> list[Array]:
    """What each conditioning gives, in as few calls as their lengths allow."""
    rows = x.shape[0]
    repeated = [repeat_rows(cond, rows) for cond in conds]
    groups: dict[int, list[int]] = {}
    for i, cond in enumerate(repeated):
        length = cond["tokens"].shape[1] if "tokens" in cond and "mask" not in cond else 0
        groups.setdefault(length, []).append(i)
    said: dict[int, Array] = {}
    for members in groups.values():
        whole = repeated[members[0]]
        for i in members[1:]:
            whole = join(whole, repeated[i])
        out = denoiser(concat([x] * len(members), axis=0) if len(members) > 1 else x, sigma, whole)
        said |= {i: out[place * rows : (place + 1) * rows] for place, i in enumerate(members)}
    return [said[i] for i in range(len(conds))]


def _mean(said: Sequence[Array], weights: Sequence[float]) -> Array:
    """By weight; plainly where the weights add up to nothing."""
    if len(said) == 1:
        return said[0]
    whole = sum(weights)
    parts = [weight / whole for weight in weights] if whole else [1 / len(said)] * len(said)
    total = parts[0] * said[0]
    for part, value in zip(parts[1:], said[1:], strict=True):
        total = total + part * value
    return total


def cfg_rescale(guided: Array, conditional: Array, phi: float) -> Array:
    """Bring the contrast of ``guided`` back to that of ``conditional`` (arXiv 2305.08891, equations 14 to 16).

    phi: 0 changes nothing, 1 gives every sample the conditional one's standard deviation. Applied to denoised pictures,
    which is where the over-exposure shows, rather than to network outputs.
    """
    if not 0 <= phi <= 1:
        raise InputError(f"rescale: {phi!r} is not possible; give a number from 0 to 1")
    xp = namespace(guided)
    axes = tuple(range(1, guided.ndim))
    wanted = xp.std(conditional, axis=axes, keepdims=True)
    actual = xp.std(guided, axis=axes, keepdims=True)
    # a constant picture has no contrast to restore
    ratio = wanted / xp.where(actual > 0, actual, xp.ones_like(actual))
    return guided * (phi * ratio + (1 - phi))


def dynamic_threshold(denoise: Denoise, q: float = 0.995, first_only: bool = False, most: float = math.inf) -> Denoise:
    """Clip every sample at its own ``q``-quantile of abs(D) and divide by it, where that exceeds 1.

    Imagen, arXiv 2205.11487, section 2.3.

    q: 0 to 1; Kandinsky's ``dynamic_threshold_v`` is 100·q. first_only: take the first sample's quantile for the whole
    batch, as Kandinsky 2.0 (2022) does by mistake; pictures then depend on their neighbours. most: where the quantile is
    cut off (diffusers' ``sample_max_value``).
    """
    if not 0 <= q <= 1:
        raise InputError(f"dynamic threshold: quantile {q!r} is not possible; give a number from 0 to 1, such as 0.995")

    def thresholded(x: Array, sigma: float) -> Array:
        denoised = denoise(x, sigma)
        xp = namespace(denoised)
        limit = xp.clip(quantile(xp.abs(denoised), q), 1.0, most)
        if first_only:
            limit = limit[:1]
        limit = limit.reshape((-1,) + (1,) * (denoised.ndim - 1))
        return xp.minimum(xp.maximum(denoised, -limit), limit) / limit

    return thresholded


def static_threshold(denoise: Denoise, limit: float = 1.0) -> Denoise:
    """Clip D to [-limit, limit]: ``clip_denoised`` of guided-diffusion with limit 1."""
    if not limit > 0:
        raise InputError(f"static threshold: {limit!r} is not possible; give a number above 0")

    def thresholded(x: Array, sigma: float) -> Array:
        denoised = denoise(x, sigma)
        return namespace(denoised).clip(denoised, -limit, limit)

    return thresholded


def gradient(denoise: Denoise, grad: Callable[[Array, float], Array]) -> Denoise:
    """Add σ²·grad(x, σ), with grad = ∇ₓ log p(y | x) in sigma space (arXiv 2105.05233, algorithm 2).

    Equals guided-diffusion's ``condition_score``. A gradient g taken in network space, at x·α, is α·g here.
    """
    return lambda x, sigma: denoise(x, sigma) + (sigma * sigma) * grad(x, sigma)


def inpaint(denoise: Denoise, known: Array, mask: Array) -> Denoise:
    """Keep ``known`` where the mask is 0; mask 1 (white) = repaint. Blends denoised pictures, soft masks allowed.

    known: data, (B or 1, C, H, W). mask: (B or 1, 1 or C, H, W) in [0, 1].
    """
    return lambda x, sigma: denoise(x, sigma) * mask + known * (1.0 - mask)


def noised_known(known: Array, mask: Array, noise: Noise) -> Before:
    """Put ``known`` into x where the mask is 0, before every step and with noise of its level: CompVis' ``q_sample`` of x0.

    known, mask: as for :func:`inpaint`. noise: its draw ``KNOWN`` of each step; samplers' own are draw 0.
    """
    return lambda x, sigma, step: x * mask + (known + sigma * noise(step, KNOWN)) * (1.0 - mask)


def mask_channels(known: Array, mask: Array) -> Array:
    """What inpainting networks take beside x (``concat``): the mask, then the data outside of it, (B, 1 + C, H, W).

    known: data, (B, C, H, W). mask: (B, 1, H, W), 1 = repaint. The order is that of latent diffusion's nine channels
    (x, mask, masked latents); a mask of ones says that nothing is known.
    """
    return concat([mask, known * (1.0 - mask)], axis=1)


def repeat_rows(cond: Conditioning, rows: int) -> Conditioning:
    """``cond`` with one row repeated ``rows`` times; already ``rows`` long: itself. Raises InputError otherwise."""
    repeated: Conditioning = {}
    for name, value in cond.items():
        if value.shape[0] == rows:
            repeated[name] = value
        elif value.shape[0] == 1:
            repeated[name] = concat([value] * rows, axis=0)
        else:
            raise InputError(f"conditioning {name!r} has {value.shape[0]} rows; expected 1 or {rows}, one per picture")
    return repeated


def join(first: Conditioning, second: Conditioning) -> Conditioning:
    """Rows of ``first``, then rows of ``second``; tokens and mask are padded with zeros to the longer sequence."""
    if first.keys() != second.keys():
        raise InputError(f"conditionings differ: one has {sorted(first)}, the other {sorted(second)}")
    joined: Conditioning = {}
    for name, value in first.items():
        other = second[name]
        if name in ("tokens", "mask"):
            length = max(value.shape[1], other.shape[1])
            value, other = pad_tokens(value, length), pad_tokens(other, length)
        joined[name] = concat([value, other], axis=0)
    return joined


def pad_tokens(value: Array, length: int) -> Array:
    """(B, L, …) to (B, length, …) with zeros at the end."""
    missing = length - value.shape[1]
    if missing <= 0:
        return value
    xp = namespace(value)
    zeros = xp.zeros((value.shape[0], missing, *value.shape[2:]), dtype=value.dtype, device=value.device)
    return concat([value, zeros], axis=1)
