"""One adapter from networks to denoised pictures: D(x, σ) = c_skip·x + c_out·F(c_in·x, t(σ)).

Sampling uses these scalings to turn F into D; training uses the same ones to turn data into a target for F, so the two
cannot drift apart. The form is that of EDM (arXiv 2206.00364, equation 7) and of k-diffusion's ``external.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from chashka.diffusion.arrays import Array, Level, as_rows, asarray, cast, concat, is_scalar
from chashka.diffusion.schedule import NoiseSchedule
from chashka.errors import InputError, WeightsError

Conditioning: TypeAlias = dict[str, Array]
"""Arrays under fixed names: tokens (B, L, D), mask (B, L), pooled (B, D), added (B, D), concat (B, C, H, W)."""


class Network(Protocol):
    """What engines provide: ``(x, t, cond) → out``; x f32 (B, C, H, W) in network space, t f32 (B,) in [0, 1000].

    out: f32 (B, C', H, W), with C' = C, or 2·C where the variance was learned as well.
    """

    def __call__(self, x: Array, t: Array, cond: Conditioning, /) -> Array:
        """Predict; ``cond`` holds the names this network was built for."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network was trained to say.

    scalings(σ) → (c_skip, c_out); weights(σ) → (of x0, of noise): the target is their weighted sum. Both follow from
    one another by c_skip·x + c_out·target = x0 and work on numbers and on arrays of shape (B,).
    """

    scalings: Callable[[Level], tuple[Level, Level]]
    weights: Callable[[Level], tuple[Level, Level]]


PREDICTIONS: dict[str, Prediction] = {
    # the noise itself (DDPM equation 14)
    "eps": Prediction(lambda s: (1.0, -s), lambda s: (0.0, 1.0)),
    # v = α·ε - s·x0 of variance preserving schedules (arXiv 2202.00512, appendix D)
    "v": Prediction(
        lambda s: (1.0 / (1.0 + s * s), -s * (1.0 + s * s) ** -0.5),
        lambda s: (-s * (1.0 + s * s) ** -0.5, (1.0 + s * s) ** -0.5),
    ),
    # the data
    "x0": Prediction(lambda s: (0.0, 1.0), lambda s: (1.0, 0.0)),
    # the velocity ε - x0 of the straight path (arXiv 2209.03003)
    "flow": Prediction(lambda s: (1.0 / (1.0 + s), -s / (1.0 + s)), lambda s: (-1.0, 1.0)),
}


@dataclass(frozen=True, slots=True)
class Denoiser:
    """A network, its schedule and its prediction as one function ``(x, sigma, cond) → denoised``.

    x: (B, C, H, W) in sigma space (data + σ·noise), numpy or torch. sigma: a Python float, or one value per row
    (training). dtype: what the network is given ("float32", "float16", …; None: the dtype of x); the result has the
    dtype of x. round_t: give the network the nearest integer timestep, as k-diffusion's ``quantize`` does. Networks
    with learned variance return 2·C channels: the second half is dropped.

    data_std: the prediction is about data divided by this number, x/data_std = x0/data_std + (σ/data_std)·noise. With
    "v" that is EDM's preconditioning with σ_data (arXiv 2206.00364, table 1): at high noise the network says the data
    alone and need not repeat the noise, which matters where the data are small beside it.
    """

    network: Network
    schedule: NoiseSchedule
    prediction: str = "eps"
    dtype: str | None = "float32"
    round_t: bool = False
    data_std: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.data_std < float("inf"):
            raise InputError(f"data_std is {self.data_std!r}; a standard deviation above 0 is needed")
        if self.prediction not in PREDICTIONS:
            raise InputError(f"prediction {self.prediction!r} does not exist; use one of {', '.join(PREDICTIONS)}")

    def scalings(self, sigma: Level) -> tuple[Level, Level, Level]:
        """(c_skip, c_out, c_in) at ``sigma``: a number for a number, (B,) for an array (constants stay numbers)."""
        c_skip, c_out = PREDICTIONS[self.prediction].scalings(sigma / self.data_std)
        return c_skip, self.data_std * c_out, self.schedule.scale(sigma)

    def t(self, sigma: Level) -> Level:
        """What the network is told about the noise: a number in [0, 1000], or (B,) of them."""
        t = self.schedule.sigma_to_t(sigma) * self.schedule.t_scale
        if not self.round_t:
            return t
        return float(round(t)) if is_scalar(t) else t.round()

    def target(self, x0: Array, noise: Array, sigma: Level) -> Array:
        """What F should have said for x = x0 + σ·noise: ε, v, x0 or ε - x0 of the data over ``data_std``. Shapes as ``x0``."""
        of_x0, of_noise = PREDICTIONS[self.prediction].weights(_level(sigma, x0) / self.data_std)
        return as_rows(of_x0, x0) * (x0 / self.data_std) + as_rows(of_noise, x0) * noise

    def output(self, x: Array, sigma: Level, cond: Conditioning | None = None) -> Array:
        """F itself, (B, C, H, W), to be compared with :meth:`target`; ``x`` in sigma space."""
        sigma = _level(sigma, x)
        given = dict(cond or {})
        inner = x * as_rows(self.schedule.scale(sigma), x)
        if "concat" in given:  # inpainting networks take more channels, already in network space
            inner = concat([inner, cast(given.pop("concat"), inner.dtype)], axis=1)
        if self.dtype is not None:
            inner = cast(inner, self.dtype)
        t = self.t(sigma)
        times = asarray([t] * x.shape[0] if is_scalar(t) else t, x, "float32")
        out = self.network(inner, times, given)
        channels = x.shape[1]
        if out.shape[1] == 2 * channels:
            out = out[:, :channels]
        if out.shape != x.shape:
            raise WeightsError(
                f"the network returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}; "
                f"expected {channels} channels, or {2 * channels} with learned variance"
            )
        return cast(out, x.dtype)

    def __call__(self, x: Array, sigma: Level, cond: Conditioning | None = None) -> Array:
        """The expected data given ``x`` at ``sigma``: (B, C, H, W) like ``x``."""
        level = _level(sigma, x)
        c_skip, c_out, _ = self.scalings(level)
        return as_rows(c_skip, x) * x + as_rows(c_out, x) * self.output(x, level, cond)


def _level(sigma: Level, x: Array) -> Level:
    """A Python float, or an array (B,) of the kind of ``x``."""
    return as_rows(sigma, x) if is_scalar(sigma) else as_rows(sigma, x).reshape(-1)
