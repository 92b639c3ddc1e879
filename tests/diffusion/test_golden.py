"""Parity with the originals (tests/golden/diffusion/README.md) by their recorded network outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chashka.diffusion import (
    SAMPLERS,
    Denoiser,
    Table,
    cfg,
    dynamic_threshold,
    forward,
    levels,
    static_threshold,
)
from chashka.diffusion.respacing import ddim_respacing, parse_respacing

FOLDER = Path(__file__).parent.parent / "golden" / "diffusion"
CASES = {"none": lambda d: d, "clip_denoised": static_threshold}
Draw = Callable[..., Any]


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    return dict(np.load(FOLDER / "k20_diffusion.npz"))


@pytest.fixture(scope="module")
def k20() -> dict[str, Any]:
    return dict(np.load(FOLDER / "k20_pipelines.npz")) | dict(np.load(FOLDER / "k20_samplers2023.npz"))


@pytest.fixture(scope="module")
def ldm() -> dict[str, Any]:
    return dict(np.load(FOLDER / "ldm_runs.npz"))


def relative(x: Any, golden: Any) -> float:
    return float(np.abs(np.asarray(x, np.float64) - golden).max() / np.abs(golden).max())


def replay(outputs: Any, times: Any) -> Any:
    """A network that returns what the original returned, and insists on being asked at the same t."""
    pairs: Iterator[Any] = iter(zip(outputs, times, strict=True))

    def network(x: Any, t: Any, cond: Any) -> Any:
        out, expected = next(pairs)
        assert np.abs(t - expected).max() < 2e-3, (t, expected)
        return out[: x.shape[0]]

    return network


def test_respacings(single: dict[str, Any]) -> None:
    names = [k.removeprefix("respace.") for k in single if k.startswith("respace.")]
    assert len(names) == 14
    for name in names:
        assert parse_respacing(name) == single[f"respace.{name}"].tolist(), name


def test_respacings_of_disco() -> None:
    """No offset, over a table of (1000 // steps)·steps."""
    golden = dict(np.load(FOLDER / "disco_respacing.npz"))
    assert len(golden) == 7
    for key, expected in golden.items():
        steps, total = (int("".join(c for c in part if c.isdigit())) for part in key.split(".")[1:])
        assert ddim_respacing(steps, total, offset=0) == expected.tolist(), key


def test_tables(single: dict[str, Any]) -> None:
    table = Table.linear()
    # the original divides products of betas again, and so do we
    assert np.array_equal(table.respaced(range(1000)).betas, single["betas1000"])
    assert np.allclose(table.betas, single["betas1000"], rtol=1e-12, atol=0)
    short = table.respaced(ddim_respacing(75))
    assert np.allclose(short.alphas_cumprod, single["ddim75.alphas_cumprod"], rtol=1e-12, atol=0)
    assert np.allclose(short.betas, single["ddim75.betas"], rtol=1e-9, atol=0)
    # what ddpm (eta 1) adds is the posterior deviation β̃, in sigma space divided by α
    sigmas = table.at(ddim_respacing(75))[::-1]  # 0, σ_1, …: ascending
    for i in (1, 30, 76):
        s, following = sigmas[i + 1], sigmas[i]
        added = following * math.sqrt(1 - (following / s) ** 2) * table.scale(following)
        assert added**2 == pytest.approx(single["ddim75.posterior_variance"][i], rel=1e-9)
        # and its mean is c1·x0 + c2·x_t
        down = following**2 / s**2
        c2 = down * table.scale(following) / table.scale(s)
        assert (1 - down) * table.scale(following) == pytest.approx(single["ddim75.posterior_mean_coef1"][i], rel=1e-9)
        assert c2 == pytest.approx(single["ddim75.posterior_mean_coef2"][i], rel=1e-9)


@pytest.mark.parametrize("kind", ["none", "clip_denoised", "dynamic_threshold"])
@pytest.mark.parametrize("index", [0, 1, 5, 9])
def test_single_ddim_steps_of_kandinsky(single: dict[str, Any], index: int, kind: str) -> None:
    """Process ddim10, η 0.3, percentile 95 of the first sample for all; model output with learned variance."""
    table = Table.linear()
    times = ddim_respacing(10)

    def step(dtype: Any) -> Any:
        denoiser = Denoiser(lambda x, t, cond: single["step.model_out"].astype(dtype), table, dtype=None)
        denoise: Any = denoiser
        if kind == "clip_denoised":
            denoise = static_threshold(denoise)
        if kind == "dynamic_threshold":
            denoise = dynamic_threshold(denoise, 0.95, first_only=True)
        sigma = table.sigmas[times[index]]
        following = table.sigmas[times[index - 1]] if index else 0.0
        x = (single["step.x"].astype(np.float64) / table.scale(sigma)).astype(dtype)
        noise: Draw = lambda step, draw=0: single["step.noise"].astype(dtype)  # noqa: E731
        (result,) = SAMPLERS["ddim"](denoise, x, (sigma, following), noise=noise, eta=0.3)
        return result.x * table.scale(following), result.denoised, sigma

    sample, denoised, sigma = step(np.float32)
    exact_sample, exact_denoised, _ = step(np.float64)
    golden, golden_x0 = (single[f"step.ddim.{index}.{kind}.{name}"] for name in ("sample", "pred_xstart"))
    # 1e-5, or not farther from the float64 evaluation than the golden number itself
    truth = relative(golden, exact_sample)
    assert relative(sample, golden) < 1e-5 or relative(sample, exact_sample) <= truth
    bound = 4 * 2.0**-23 * sigma * np.abs(single["step.model_out"][:, :4]).max()
    error = np.abs(denoised - golden_x0).max()
    assert error <= max(1e-5 * np.abs(golden_x0).max(), bound)
    assert relative(exact_denoised, golden_x0) < 1e-4


@pytest.mark.parametrize(
    ("run", "steps", "scale", "eta", "wrap"),
    [
        ("t2i_ddim_eta0.01_dyn", 10, 10.0, 0.01, lambda d: dynamic_threshold(d, 0.995, first_only=True)),
        ("t2i_ddim_eta0_clip_75", 7, 4.0, 0.0, static_threshold),
        ("i2i_ddim_s0.7", 20, 7.0, 0.05, lambda d: dynamic_threshold(d, 0.995, first_only=True)),
    ],
)
def test_whole_runs_of_kandinsky(
    k20: dict[str, Any], run: str, steps: int, scale: float, eta: float, wrap: Callable[[Any], Any]
) -> None:
    table = Table.linear()
    trace, times = k20[f"{run}.trace_x"], k20[f"{run}.trace_t"]
    rows = trace.shape[1]
    sigmas = table.at([t for t in ddim_respacing(steps) if t <= times[0, 0]])
    assert len(sigmas) == len(trace) + 1
    denoiser = Denoiser(replay(k20[f"{run}.trace_out"], times[:, :1]), table)
    draws = [k20[k] for k in sorted(k for k in k20 if k.startswith(f"{run}.draw"))][-len(trace) :]
    cond = {"added": np.zeros((1, 1))}
    denoise = wrap(cfg(denoiser, cond, cond, scale))
    x = table.start(trace[0], sigmas[0])
    states = [x * table.scale(sigmas[0])]
    for step in SAMPLERS["ddim"](denoise, x, sigmas, noise=lambda i, draw=0: draws[i][:rows], eta=eta):
        states.append(step.x * table.scale(step.sigma))
    for ours, golden in zip(states[:-1], trace, strict=True):
        assert relative(ours, golden) < 1e-5
    assert relative(states[-1], k20[f"{run}.latents"]) < 1e-5


@pytest.mark.parametrize(("run", "steps", "name"), [("ddim20_eta_ignored", 20, "ddim"), ("plms15", 15, "plms")])
def test_kandinsky_of_2023(k20: dict[str, Any], run: str, steps: int, name: str) -> None:
    """Its DDIM ignores ddim_eta and ends at σ of t = 0; its PLMS makes one call more than it has steps."""
    table = Table.linear(single=True)
    trace, times = k20[f"{run}.trace_x"], k20[f"{run}.trace_t"]
    sigmas = table.at(ddim_respacing(steps), table.min_sigma)
    cond = {"added": np.zeros((1, 1))}
    denoise = cfg(Denoiser(replay(k20[f"{run}.trace_out"], times[:, :1]), table), cond, cond, 2.0)
    seen: list[Any] = []

    def watched(x: Any, sigma: float) -> Any:
        seen.append(x * table.scale(sigma))
        return denoise(x, sigma)

    *_, last = SAMPLERS[name](watched, table.start(trace[0], sigmas[0]), sigmas)
    assert last.calls == len(trace) and all(relative(a, b) < 1e-5 for a, b in zip(seen, trace, strict=True))
    assert relative(last.x * table.scale(last.sigma), k20[f"{run}.latents"]) < 1e-5


@pytest.mark.parametrize(
    ("who", "prediction", "run", "steps", "scale", "name"),
    [
        ("compvis", "eps", "ddim10_cfg7.5", 10, 7.5, "ddim"),
        ("compvis", "eps", "ddim30_cfg1", 30, 1.0, "ddim"),
        ("compvis", "eps", "plms10_cfg7.5", 10, 7.5, "plms"),
        ("stability", "v", "ddim10_cfg7.5", 10, 7.5, "ddim"),
        ("stability", "v", "ddim30_cfg1", 30, 1.0, "ddim"),
    ],
)
def test_runs_of_stable_diffusion(
    ldm: dict[str, Any], who: str, prediction: str, run: str, steps: int, scale: float, name: str
) -> None:
    table = Table.scaled_linear(single=True)
    key = f"{who}.{run}"
    assert np.array_equal(np.float32(table.alphas_cumprod), ldm[f"{who}.alphas_cumprod"])
    assert ddim_respacing(steps) == ldm[f"{key}.timesteps"].tolist()
    sigmas = table.at(ddim_respacing(steps), table.min_sigma)
    alphas = [1 / (1 + s * s) for s in sigmas[::-1]]
    assert np.allclose(alphas[1:], ldm[f"{key}.alphas"], rtol=1e-6) and np.allclose(
        alphas[:-1], ldm[f"{key}.alphas_prev"]
    )
    denoiser = Denoiser(replay(ldm[f"{key}.out"], ldm[f"{key}.t"]), table, prediction)
    cond = {"added": np.zeros((1, 1))}
    x = table.start(ldm[f"{who}.xT"], sigmas[0])
    for step in SAMPLERS[name](cfg(denoiser, cond, cond, scale), x, sigmas):
        assert relative(step.x * table.scale(step.sigma), ldm[f"{key}.x_inter"][step.index + 1]) < 1e-5
    assert relative(step.x * table.scale(step.sigma), ldm[f"{key}.samples"]) < 1e-5


def test_timesteps_of_stable_diffusion(ldm: dict[str, Any]) -> None:
    """75 asked are 77 steps; all three originals agree."""
    runway = dict(np.load(FOLDER / "ldm_masks.npz"))
    asked = ddim_respacing(75)
    assert len(asked) == 77
    for golden in (ldm["compvis.timesteps.S75"], ldm["stability.timesteps.S75"], runway["runway.timesteps.S75"]):
        assert asked == golden.tolist()
    assert ddim_respacing(30) == runway["runway.ddim30_cfg1.timesteps"].tolist()
    table = Table.scaled_linear(single=True)
    alphas = [1 / (1 + s * s) for s in table.spaced(30, "ddim", table.min_sigma)[::-1]]
    assert np.allclose(alphas[1:], runway["runway.ddim30_cfg1.alphas"], rtol=1e-6, atol=0)
    assert np.allclose(alphas[:-1], runway["runway.ddim30_cfg1.alphas_prev"], rtol=1e-6, atol=0)


def test_dpm_solver_of_compvis(ldm: dict[str, Any]) -> None:
    """Multistep order 2, data prediction, uniform in time from t = 1 to 1/1000, last step of first order."""
    table = Table.scaled_linear(single=True)
    sigmas = table.at([999 - 99.9 * i for i in range(10)], table.min_sigma)
    recorded = "compvis.dpm10_cfg3"
    # it interpolates log α where we interpolate log σ
    assert np.allclose(sigmas, ldm[f"{recorded}.sigmas"], rtol=1e-5)
    denoiser = Denoiser(replay(ldm[f"{recorded}.out"], ldm[f"{recorded}.t"]), table)
    cond = {"added": np.zeros((1, 1))}
    x = table.start(ldm["compvis.xT"], sigmas[0])
    *_, step = SAMPLERS["dpmpp_2m"](cfg(denoiser, cond, cond, 3.0), x, sigmas, lower_order_final=True)
    assert relative(step.x * table.scale(step.sigma), ldm[f"{recorded}.samples"]) < 1e-4


def test_noising_and_v_of_stable_diffusion(ldm: dict[str, Any]) -> None:
    table = Table.scaled_linear(single=True)
    for who in ("compvis", "stability"):
        t = int(ldm[f"{who}.i2i.timesteps"][int(ldm[f"{who}.i2i.t_enc"])])
        encoded = forward(ldm[f"{who}.i2i.z0"], ldm[f"{who}.i2i.noise"], table, t=t)
        assert relative(encoded, ldm[f"{who}.i2i.encoded"]) < 1e-6
    x, v, times = (ldm[f"stability.{name}"] for name in ("x", "unet_out", "t"))
    sigma = table.t_to_sigma(times.astype(np.float64))
    denoiser = Denoiser(lambda x, t, cond: v, table, "v")
    alphas = np.array([levels(table, float(t))[0] for t in times]).reshape(-1, 1, 1, 1)
    denoised = denoiser((x / alphas).astype(np.float32), sigma)
    assert relative(denoised, ldm["stability.x0_from_v"]) < 1e-5
    eps = (x / alphas - denoised) / sigma.reshape(-1, 1, 1, 1)
    assert relative(eps, ldm["stability.eps_from_v"]) < 1e-5
