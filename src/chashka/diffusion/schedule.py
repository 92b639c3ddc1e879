"""Noise schedules: between timesteps t, which networks know, and noise levels σ, which everything else speaks.

The one language of noise is x = data + σ·noise ("sigma space"). What a network sees ("network space") is x·scale(σ):
α·data + s·noise with α² + s² = 1 for tables (variance preserving), or α + s = 1 for flows. All numbers are Python
floats computed in float64; where a level may differ per row (training), numpy arrays and torch tensors of shape (B,)
pass through the same methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from chashka.diffusion import spacings
from chashka.diffusion.arrays import Array, Level, asarray, is_scalar
from chashka.diffusion.respacing import check_steps, ddim_respacing, section_respacing
from chashka.errors import InputError

_SNAP = 1e-6  # a timestep this near to an integer is that integer: networks were trained on integers


class NoiseSchedule(Protocol):
    """How noise grows with time. ``t`` is in the schedule's unit: 0 … 999 for a table of 1000, 0 … 0.999 for a flow."""

    @property
    def t_scale(self) -> float:
        """Factor from ``t`` to the number in [0, 1000] that networks are given."""

    @property
    def max_sigma(self) -> float:
        """σ of the noisiest level."""

    @property
    def min_sigma(self) -> float:
        """σ of the least noisy level that a network was trained on; above 0."""

    def t_to_sigma(self, t: Level) -> Level:
        """Timestep to noise level; clamped to the schedule's ends."""

    def sigma_to_t(self, sigma: Level) -> Level:
        """Noise level to timestep; clamped to the schedule's ends."""

    def scale(self, sigma: Level) -> Level:
        """α: the factor from sigma space to network space, 1 at σ = 0."""

    def spaced(self, steps: int, spacing: str | None = None, last: float = 0.0) -> tuple[float, ...]:
        """Descending noise levels of a run, ending with ``last``; one more number than there are steps."""

    def start(self, noise: Array, sigma: float, kind: str | None = None) -> Array:
        """The x (sigma space) that a run starts from at level ``sigma``, out of unit noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The discrete process of DDPM (arXiv 2006.11239): β_0 … β_{T-1}, ᾱ_t = Π(1 - β), σ_t = √((1 - ᾱ_t)/ᾱ_t).

    betas: T numbers in (0, 1). single: round ᾱ to float32 first, as CompVis and Stability buffers are (their samplers
    compute from the rounded numbers). t_scale: 1000/T unless given, guided-diffusion's ``rescale_timesteps``.
    """

    betas: Sequence[float]
    single: bool = False
    t_scale: float = 0.0
    alphas_cumprod: tuple[float, ...] = field(init=False)
    sigmas: tuple[float, ...] = field(init=False)
    _log_sigmas: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, dtype=np.float64)
        if betas.ndim != 1 or betas.size < 2 or not np.all((betas > 0) & (betas < 1)):
            raise InputError("betas: expected a list of at least 2 numbers between 0 and 1, both excluded")
        products = np.cumprod(1.0 - betas)
        if self.single:
            products = products.astype(np.float32).astype(np.float64)
        sigmas = np.sqrt((1.0 - products) / products)
        put = object.__setattr__
        put(self, "betas", tuple(betas.tolist()))
        put(self, "t_scale", float(self.t_scale) or 1000 / betas.size)
        put(self, "alphas_cumprod", tuple(products.tolist()))
        put(self, "sigmas", tuple(sigmas.tolist()))
        put(self, "_log_sigmas", np.log(sigmas))

    @classmethod
    def linear(cls, start: float = 1e-4, end: float = 0.02, total: int = 1000, *, single: bool = False) -> Table:
        """β linear in t (DDPM; Kandinsky 2.0 with the defaults). Disco scales both ends by 1000/total itself."""
        return cls(np.linspace(start, end, total, dtype=np.float64).tolist(), single)

    @classmethod
    def scaled_linear(
        cls, start: float = 0.00085, end: float = 0.012, total: int = 1000, *, single: bool = False
    ) -> Table:
        """√β linear in t: Stable Diffusion 1.x and 2.x with the defaults (CompVis calls it "linear")."""
        roots = np.linspace(math.sqrt(start), math.sqrt(end), total, dtype=np.float64)
        return cls((roots * roots).tolist(), single)

    @classmethod
    def squared_cosine(cls, total: int = 1000, offset: float = 0.008, limit: float = 0.999) -> Table:
        """ᾱ(u) = cos²((u + offset)/(1 + offset)·π/2), β ≤ limit (arXiv 2102.09672, equation 17)."""

        def level(u: float) -> float:
            return math.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2

        return cls([min(1 - level((i + 1) / total) / level(i / total), limit) for i in range(total)])

    def respaced(self, timesteps: Sequence[int]) -> Table:
        """The shorter process that visits only ``timesteps`` (ascending): same ᾱ there, new betas (guided-diffusion).

        Its t counts the retained timesteps, so give the original t to a network; ``at`` is usually what you want.
        """
        kept = [1.0] + [self.alphas_cumprod[t] for t in timesteps]
        return Table([1 - b / a for a, b in pairwise(kept)], t_scale=self.t_scale)

    @property
    def max_sigma(self) -> float:
        """σ of the last timestep."""
        return self.sigmas[-1]

    @property
    def min_sigma(self) -> float:
        """σ of timestep 0: where runs of CompVis end (``set_alpha_to_one=False`` in diffusers)."""
        return self.sigmas[0]

    def t_to_sigma(self, t: Level) -> Level:
        """σ at ``t`` in 0 … T-1; between integers log σ is linear. Exact at integers."""
        if is_scalar(t):
            t = min(max(float(t), 0.0), len(self.sigmas) - 1.0)
            if t.is_integer():
                return self.sigmas[int(t)]
        return _through_numpy(lambda v: np.exp(np.interp(v, np.arange(len(self.sigmas)), self._log_sigmas)), t)

    def sigma_to_t(self, sigma: Level) -> Level:
        """t in 0 … T-1 at ``sigma``, linear in log σ, snapped to an integer within 1e-6; σ = 0 gives 0."""

        def invert(values: Array) -> Array:
            logs = np.log(np.maximum(values, np.finfo(np.float64).tiny))
            t = np.interp(logs, self._log_sigmas, np.arange(len(self.sigmas)))
            return np.where(np.abs(t - np.rint(t)) < _SNAP, np.rint(t), t)

        return _through_numpy(invert, sigma)

    def scale(self, sigma: Level) -> Level:
        """√ᾱ = 1/√(1 + σ²)."""
        return (1.0 + sigma * sigma) ** -0.5

    def at(self, timesteps: Sequence[float], last: float = 0.0) -> tuple[float, ...]:
        """Noise levels of a run over ``timesteps``, in either order, ending with ``last``."""
        sigmas = [float(self.t_to_sigma(t)) for t in sorted(timesteps, reverse=True)]
        return _ended(sigmas, last)

    def spaced(self, steps: int, spacing: str | None = None, last: float = 0.0) -> tuple[float, ...]:
        """Noise levels of a run. ``spacing``: one of ``TABLE_SPACINGS``, ``linspace`` when None.

        last: 0, or ``min_sigma`` for runs that end like CompVis. Exactly ``steps`` steps, except ``ddim``
        (Kandinsky 2.0, CompVis) and ``ddim0`` (Disco), whose stride is rounded down: 75 → 77. Levels
        that do not lie above ``last`` are left out: linspace with ``min_sigma`` has one step less.
        """
        total = len(self.sigmas)
        check_steps(steps, total)
        name = spacing or "linspace"
        if name in _T_SPACINGS:
            return self.at(_T_SPACINGS[name](steps, total), last)
        if name in spacings.AYS_TIMESTEPS:
            base = [self.sigmas[t * (total - 1) // 999] for t in spacings.AYS_TIMESTEPS[name]]
            return _ended(spacings.resample_log(base, steps + 1)[:-1], last)
        return _ended(_sigma_spacing(name, steps, self, TABLE_SPACINGS), last)

    def start(self, noise: Array, sigma: float, kind: str | None = None) -> Array:
        """x at ``sigma`` from unit noise. ``vp`` (default): √(1 + σ²)·ε: the network sees exactly ε; ``sigma``: σ·ε."""
        return _start(noise, sigma, kind or "vp")


@dataclass(frozen=True, slots=True)
class Flow:
    """The straight path of rectified flow (arXiv 2209.03003, 2210.02747): x_t = (1 - t)·data + t·noise, σ = t/(1 - t).

    shift: s > 1 spends more steps at high noise, t ← s·t/(1 + (s - 1)·t) (arXiv 2403.03206, equation 23), which is σ
    ← s·σ. t is cut at 0.999 (σ = 999), where σ would be infinite.
    """

    shift: float = 1.0
    max_t: float = 0.999

    def __post_init__(self) -> None:
        if not self.shift > 0 or not 0 < self.max_t < 1:
            raise InputError(f"Flow: shift {self.shift!r} must be above 0 and max_t {self.max_t!r} between 0 and 1")

    @property
    def t_scale(self) -> float:
        """Networks are given 1000·t."""
        return 1000.0

    @property
    def max_sigma(self) -> float:
        """σ at t = 0.999: 999."""
        return self.max_t / (1.0 - self.max_t)

    @property
    def min_sigma(self) -> float:
        """σ at t = 0.001."""
        return 0.001 / 0.999

    def t_to_sigma(self, t: Level) -> Level:
        """t/(1 - t), with t cut to [0, 0.999]."""
        t = min(max(float(t), 0.0), self.max_t) if is_scalar(t) else t.clip(0.0, self.max_t)
        return t / (1.0 - t)

    def sigma_to_t(self, sigma: Level) -> Level:
        """σ/(1 + σ)."""
        return sigma / (1.0 + sigma)

    def shifted(self, t: Level) -> Level:
        """t after the shift, for drawing training times the way runs are spaced; works on arrays of shape (B,)."""
        return self.shift * t / (1.0 + (self.shift - 1.0) * t)

    def scale(self, sigma: Level) -> Level:
        """1 - t = 1/(1 + σ)."""
        return 1.0 / (1.0 + sigma)

    def at(self, timesteps: Sequence[float], last: float = 0.0) -> tuple[float, ...]:
        """Noise levels of a run over ``timesteps`` (in [0, 1], either order), ending with ``last``."""
        return _ended([float(self.t_to_sigma(t)) for t in sorted(timesteps, reverse=True)], last)

    def spaced(self, steps: int, spacing: str | None = None, last: float = 0.0) -> tuple[float, ...]:
        """Noise levels of a run. ``spacing``: one of ``FLOW_SPACINGS``, ``shifted`` when None.

        ``uniform``: t = 1, 1 - 1/N, …, 1/N; ``shifted``: the same through ``shift``. Where several of them lie above
        ``max_t`` they are spread evenly from there down to the next one, so that levels always fall.
        """
        check_steps(steps, 1000)
        name = spacing or "shifted"
        if name in ("uniform", "shifted"):
            times = [1.0 - i / steps for i in range(steps)]
            return self.at(self._below_max([self.shifted(t) for t in times] if name == "shifted" else times), last)
        return _ended(_sigma_spacing(name, steps, self, FLOW_SPACINGS), last)

    def _below_max(self, times: Sequence[float]) -> list[float]:
        """Falling times of which those above ``max_t`` are spread evenly from ``max_t`` down to the first one below."""
        high = sum(t >= self.max_t for t in times)
        after = times[high] if high < len(times) else 0.0
        return [self.max_t + (after - self.max_t) * i / high for i in range(high)] + list(times[high:])

    def start(self, noise: Array, sigma: float, kind: str | None = None) -> Array:
        """x at ``sigma`` from unit noise. ``flow`` (default): (σ + 1)·t·ε = σ·ε; ``sigma`` and ``vp`` as in Table."""
        return _start(noise, sigma, kind or "flow")


def spacing_names() -> tuple[str, ...]:
    """Every spacing that some schedule knows, sorted: for help texts."""
    return tuple(sorted({*TABLE_SPACINGS, *FLOW_SPACINGS}))


_T_SPACINGS: dict[str, Callable[[int, int], Sequence[float]]] = {
    "linspace": spacings.linspace,
    "leading": spacings.leading,
    "trailing": spacings.trailing,
    "ddim": ddim_respacing,
    "ddim0": lambda steps, total: ddim_respacing(steps, total, offset=0),
    "even": section_respacing,
}
_SIGMA_SPACINGS: dict[str, Callable[[int, float, float], list[float]]] = {
    "karras": spacings.karras,
    "exponential": spacings.exponential,
}
TABLE_SPACINGS: tuple[str, ...] = (*_T_SPACINGS, *_SIGMA_SPACINGS, *spacings.AYS_TIMESTEPS)
FLOW_SPACINGS: tuple[str, ...] = ("uniform", "shifted", *_SIGMA_SPACINGS)


def _sigma_spacing(name: str, steps: int, schedule: NoiseSchedule, known: Sequence[str]) -> list[float]:
    if name not in _SIGMA_SPACINGS:
        raise InputError(
            f"spacing {name!r} does not exist for {type(schedule).__name__}; use one of {', '.join(known)}"
        )
    return _SIGMA_SPACINGS[name](steps, schedule.min_sigma, schedule.max_sigma)


def _ended(sigmas: Sequence[float], last: float) -> tuple[float, ...]:
    if not last >= 0:
        raise InputError(f"last sigma: {last!r} is not possible; give 0 or a small positive number")
    # a level at or below the end is no step (linspace reaches t = 0, where CompVis-like runs end)
    return (*(s for s in sigmas if s > last), float(last))


def _start(noise: Array, sigma: float, kind: str) -> Array:
    if kind == "vp":
        return noise * math.sqrt(1.0 + sigma * sigma)
    if kind in ("sigma", "flow"):
        return noise * float(sigma)
    raise InputError(f"start noise {kind!r} does not exist; use one of vp, sigma, flow")


def _through_numpy(function: Callable[[Array], Array], value: Level) -> Level:
    """Apply a float64 numpy function to a number (→ Python float) or to an array or tensor (→ the same kind)."""
    if is_scalar(value):
        return float(function(np.float64(value)))
    if isinstance(value, np.ndarray | list | tuple):
        return function(np.asarray(value, dtype=np.float64))
    result = function(np.asarray(value.detach().cpu(), dtype=np.float64))
    return asarray(result, value, value.dtype)
