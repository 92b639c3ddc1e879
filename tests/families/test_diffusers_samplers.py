"""``compat=diffusers``: its own schedulers beside our samplers, on a model with a closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from chashka.diffusion import SAMPLERS, Denoiser, Table
from chashka.errors import InputError
from chashka.families.stable_diffusion.options import Options
from chashka.families.stable_diffusion.sampling import ROUNDED, conventions

# diffusers 0.36 to 0.42 gives tensors to numpy in a way that numpy 2 warns of
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array__ implementation")]
CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False}),
    "plms": ("PNDMScheduler", {"set_alpha_to_one": False, "skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
}
BETWEEN = ("euler", "euler_a", "heun")
"""Their timesteps are not whole, and their x is data + σ·noise."""
TABLE = Table.scaled_linear()
SHAPE = (1, 4, 8, 8)
MODES = np.random.default_rng(0).normal(0, 1, (3, *SHAPE[1:]))


def said(x: Any, t: float) -> Any:
    """The noise in x (as networks see it, float64 numpy) at t, where the data are three points with a spread of 0.3."""
    sigma = float(TABLE.t_to_sigma(t))
    noisy = x * np.sqrt(1 + sigma**2)
    spread = 0.3**2
    away = ((noisy[:, None] - MODES[None]) ** 2).sum((2, 3, 4)) / (2 * (sigma**2 + spread))
    weights = np.exp(-(away - away.min(1, keepdims=True)))
    weights /= weights.sum(1, keepdims=True)
    centre = np.einsum("bm,mchw->bchw", weights, MODES)
    denoised = (spread * noisy + sigma**2 * centre) / (sigma**2 + spread)
    return (noisy - denoised) / sigma


def network(x: Any, t: Any, cond: Any) -> Any:
    return said(x.astype(np.float64), float(t[0]))


def noise(step: int, draw: int = 0) -> Any:
    return np.random.default_rng(100 + step).normal(size=SHAPE)


def theirs(
    name: str, steps: int, karras: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], list[float], Any]:
    """Timesteps, levels (of those that have them) and the end of a run of diffusers."""
    import diffusers

    kind, extra = SCHEDULERS[name]
    module = __import__(f"diffusers.schedulers.{_module(kind)}", fromlist=["_"])
    scheduler = getattr(diffusers, kind)(**CONFIG, **extra, **({"use_karras_sigmas": True} if karras else {}))
    scheduler.set_timesteps(steps)
    if name == "euler_a":
        drawn = iter(range(steps))
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: torch.from_numpy(noise(next(drawn))))
    x = torch.from_numpy(noise(-1)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        eps = said(scheduler.scale_model_input(x, t).double().numpy(), float(t))
        x = scheduler.step(torch.from_numpy(eps), t, x).prev_sample
    sigmas = [float(s) for s in getattr(scheduler, "sigmas", ())]
    return [float(t) for t in scheduler.timesteps], sigmas, x.double().numpy()


def _module(kind: str) -> str:
    names = {"UniPCMultistepScheduler": "scheduling_unipc_multistep", "DDIMScheduler": "scheduling_ddim"}
    names |= {"PNDMScheduler": "scheduling_pndm", "HeunDiscreteScheduler": "scheduling_heun_discrete"}
    names |= {"EulerDiscreteScheduler": "scheduling_euler_discrete"}
    names |= {"EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete"}
    return names.get(kind, "scheduling_dpmsolver_multistep")


CASES = [(name, False) for name in SCHEDULERS] + [(name, True) for name in ("euler", "heun", "dpmpp_2m", "unipc")]


def ours(name: str, steps: int, karras: bool, compat: Any) -> tuple[list[float], tuple[float, ...], Any]:
    """The same of our samplers; x as it is in sigma space."""
    spacing = "karras" if karras else None
    request = Options(prompt="a", seed=1, steps=steps, sampler=name, compat=compat, spacing=spacing)
    levels = conventions(request).levels(TABLE, request, False)
    denoiser = Denoiser(network, TABLE, "eps", round_t=name in ROUNDED)
    called: list[float] = []

    def denoise(x: Any, sigma: float) -> Any:
        t = float(TABLE.sigma_to_t(sigma))
        called.append(round(t) if name in ROUNDED else t)
        return denoiser(x, sigma, {})

    x = TABLE.start(noise(-1), levels.run[0], levels.start)
    for step in SAMPLERS[name](denoise, x, levels.run, noise=noise):
        x = step.x
    return called, levels.run, x


@pytest.mark.parametrize("steps", [10, 20, 30])
@pytest.mark.parametrize(("name", "karras"), CASES)
def test_runs_of_diffusers(name: str, karras: bool, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    times, sigmas, end = theirs(name, steps, karras, monkeypatch)
    called, run, x = ours(name, steps, karras, "diffusers")
    assert len(run) == steps + 1
    if sigmas and name != "heun":  # whose list repeats itself
        # diffusers multiplies ᾱ in float32, which is 3e-6 from the products that are rounded once
        assert np.allclose(run, sigmas, rtol=4e-6, atol=0)
    # between two timesteps its Euler takes σ linearly, and the time of a σ is found along log σ
    assert np.allclose(called, times, rtol=0, atol=3e-3 if name in BETWEEN else 3e-5)
    # DDIM, PNDM and the solvers in half log-SNR keep x as networks see it
    seen = x if name in BETWEEN else x * TABLE.scale(run[-1])
    assert np.abs(seen - end).max() / np.abs(end).max() < 3e-6


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m"])
def test_own_levels_are_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above can fail."""
    end = theirs(name, 10, False, monkeypatch)[2]
    assert np.abs(ours(name, 10, False, None)[2] - end).max() / np.abs(end).max() > 1e-3


def test_pictures_begin_where_they_do() -> None:
    request = Options(prompt="a", seed=1, steps=20, sampler="dpmpp_2m", compat="diffusers", strength=0.33)
    levels = conventions(request).levels(TABLE, request, True)
    assert len(levels.run) == 7  # int(6.6) steps
    with pytest.raises(InputError, match=r"0\.01 of 20 steps is not possible with compat=diffusers"):
        conventions(request).levels(TABLE, request.with_fields(strength=0.01), True)
