"""Samplers on Gaussian data, where the answer is known."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import MEAN, STD, exact_denoise, flow_to

from chashka.diffusion import (
    SAMPLERS,
    Flow,
    PictureNoise,
    Table,
    sampler,
    sampler_name,
    samplers_along,
    spaced_sampler,
    with_sampler,
)
from chashka.diffusion.sampler_names import SAMPLER_NAMES
from chashka.errors import InputError

LOW, HIGH = 0.05, 20.0
DETERMINISTIC = {"ddim": 1.0, "euler": 1.0, "heun": 2.0, "dpmpp_2m": 2.0, "unipc": 3.0, "plms": 2.0}
STOCHASTIC = ("ddpm", "euler_a", "dpmpp_2m_sde")


def log_sigmas(steps: int, low: float = LOW) -> tuple[float, ...]:
    return tuple(math.exp(math.log(HIGH) + i / steps * math.log(low / HIGH)) for i in range(steps + 1))


def run(name: str, x: Any, sigmas: tuple[float, ...], denoise: Any = exact_denoise, **options: Any) -> Any:
    *_, step = SAMPLERS[name](denoise, x, sigmas, **options)
    return step


def forbidden_noise(step: int, draw: int = 0) -> Any:
    raise AssertionError("a deterministic sampler drew noise")


def error_at(name: str, steps: int, **options: Any) -> float:
    x = np.linspace(-30.0, 30.0, 9).reshape(1, 1, 3, 3)
    step = run(name, x, log_sigmas(steps), noise=forbidden_noise, **options)
    return float(np.abs(step.x - flow_to(x, HIGH, LOW)).max())


@pytest.mark.parametrize(("name", "order"), DETERMINISTIC.items())
def test_deterministic_samplers_converge_at_their_order(name: str, order: float) -> None:
    if name == "plms":  # its weights assume even steps in t; σ itself plays t here
        x = np.linspace(-3.0, 3.0, 9).reshape(1, 1, 3, 3)
        errors = []
        for steps in (40, 80, 160):
            sigmas = tuple(2.0 + i / steps * (LOW - 2.0) for i in range(steps + 1))
            errors.append(float(np.abs(run(name, x, sigmas).x - flow_to(x, 2.0, LOW)).max()))
    else:
        errors = [error_at(name, steps) for steps in (40, 80, 160)]
    measured = math.log2(errors[1] / errors[2])
    assert measured > order - 0.15, (errors, measured)
    if order == 1.0:
        assert measured < 1.3
    assert errors[2] < errors[0]


@pytest.mark.parametrize("name", ["heun", "plms"])
def test_slopes_are_mixed_along_the_straight_path_of_a_flow(name: str) -> None:
    """From σ = 999 in few steps: in σ their mean is worse than Euler's one, in t it converges at its order."""
    errors: dict[str, list[float]] = {"plain": [], "straight": [], "euler": []}
    for steps in (12, 24):
        sigmas = Flow(shift=0.5).spaced(steps)
        x = 999 * np.array([0.7, -1.1])
        wanted = flow_to(x, sigmas[0], 0.0)
        chosen = {"plain": SAMPLERS[name], "straight": samplers_along(Flow())[name], "euler": SAMPLERS["euler"]}
        for kind, method in chosen.items():
            ran = list(method(exact_denoise, x, sigmas))
            assert tuple(step.sigma for step in ran) == tuple(sigmas[1:])
            errors[kind].append(float(np.abs(ran[-1].x - wanted).max()))
    assert errors["straight"][0] < 0.3 * errors["euler"][0] and errors["plain"][0] > errors["euler"][0]
    assert errors["straight"][1] < 0.4 * errors["straight"][0]
    assert samplers_along(Table.scaled_linear()) is SAMPLERS
    for bad in ((), (1.0,), (1.0, 2.0, 0.0)):
        with pytest.raises(InputError, match="strictly descending"):
            list(samplers_along(Flow())[name](exact_denoise, np.ones(2), bad))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_gains_an_order_by_its_corrector(order: int) -> None:
    measured = math.log2(error_at("unipc", 80, order=order) / error_at("unipc", 160, order=order))
    assert order + 0.8 < measured < order + 1.2


def test_lower_final_orders_change_only_the_end() -> None:
    x = np.linspace(-30.0, 30.0, 9).reshape(1, 1, 3, 3)
    for name in ("unipc", "dpmpp_2m"):
        plain = list(SAMPLERS[name](exact_denoise, x, log_sigmas(6)))
        lower = list(SAMPLERS[name](exact_denoise, x, log_sigmas(6), lower_order_final=True))
        assert all(np.array_equal(a.x, b.x) for a, b in zip(plain[:-1], lower[:-1], strict=True))
        # the last one is a step of DDIM from where the run has come to (unipc corrects first)
        if name == "dpmpp_2m":
            ddim = run("ddim", lower[-2].x, log_sigmas(6)[-2:])
            assert np.allclose(lower[-1].x, ddim.x, atol=1e-12)
        assert np.abs(plain[-1].x - lower[-1].x).max() > 1e-6


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_plms_orders(order: int) -> None:
    x = np.full((1, 1, 1, 1), 2.5)

    def error(steps: int) -> float:
        sigmas = tuple(2.0 + i / steps * (0.5 - 2.0) for i in range(steps + 1))
        return abs(float(run("plms", x, sigmas, order=order).x[0, 0, 0, 0]) - float(flow_to(2.5, 2.0, 0.5)))

    # the low-order start limits the global order to 3 (its local error is of order 3)
    assert math.log2(error(80) / error(160)) > min(order, 3) - 0.3


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_give_the_mean_and_variance_of_the_data(name: str) -> None:
    noise = PictureNoise([5], (1, 80, 80))
    sigmas = (*log_sigmas(100, low=0.02), 0.0)
    step = run(name, HIGH * noise.start(), sigmas, noise=noise)
    # 6400 numbers: the mean is known to 0.006, the deviation to 0.0045
    assert abs(step.x.mean() - MEAN) < 0.025
    assert abs(step.x.std() - STD) < 0.02
    assert not np.allclose(step.x, flow_to(HIGH * noise.start(), HIGH, 0.0), atol=0.1)


def test_lcm_lands_on_the_data_and_adds_noise() -> None:
    x = np.ones((1, 1, 2, 2))
    target = np.full((1, 1, 2, 2), 0.7)
    step = run("lcm", x, (5.0, 0.0), denoise=lambda x, sigma: target, noise=forbidden_noise)
    assert np.array_equal(step.x, target)
    steps = list(SAMPLERS["lcm"](lambda x, s: target, x, (5.0, 2.0, 0.0), noise=lambda step, draw=0: np.ones_like(x)))
    assert np.allclose(steps[0].x, 2.7) and np.array_equal(steps[1].x, target)


def test_ddim_family_is_one_function() -> None:
    x = PictureNoise([1], (1, 8, 8)).start() * HIGH
    noise = PictureNoise([2], (1, 8, 8))
    sigmas = (*log_sigmas(7), 0.0)
    assert np.array_equal(run("euler", x, sigmas).x, run("ddim", x, sigmas, eta=0.0).x)
    assert np.array_equal(run("ddpm", x, sigmas, noise=noise).x, run("ddim", x, sigmas, noise=noise, eta=1.0).x)
    assert np.array_equal(run("ddpm", x, sigmas, noise=noise).x, run("euler_a", x, sigmas, noise=noise).x)


def test_ddim_in_sigma_is_equation_12_of_the_paper() -> None:
    """DDIM's own variables: x_vp, ᾱ, predicted ε, σ_t(η)."""
    table, eta = Table.linear(), 0.6
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 1, 1, 4, 4))
    s, following = table.at([700, 400])[:2]
    a, a_prev = table.alphas_cumprod[700], table.alphas_cumprod[400]
    x0 = exact_denoise(x * math.sqrt(1 + s * s), s)
    eps = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
    sd = eta * math.sqrt((1 - a_prev) / (1 - a)) * math.sqrt(1 - a / a_prev)
    expected = math.sqrt(a_prev) * x0 + math.sqrt(1 - a_prev - sd**2) * eps + sd * z
    step = run("ddim", x * math.sqrt(1 + s * s), (s, following), noise=lambda i, draw=0: z, eta=eta)
    assert np.abs(step.x * table.scale(following) - expected).max() < 1e-12


def test_dpmpp_2m_sde_without_noise_is_dpmpp_2m() -> None:
    x = np.linspace(-20, 20, 16).reshape(1, 1, 4, 4)
    sigmas = (*log_sigmas(9), 0.0)
    ode, sde = run("dpmpp_2m", x, sigmas), run("dpmpp_2m_sde", x, sigmas, eta=0.0, noise=forbidden_noise)
    assert np.abs(ode.x - sde.x).max() < 1e-12


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("last", [0.0, 0.03])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_every_sampler_yields_its_steps(name: str, last: float, count: int) -> None:
    calls: list[float] = []

    def denoise(x: Any, sigma: float) -> Any:
        assert type(sigma) is float
        calls.append(sigma)
        return exact_denoise(x, sigma)

    noise = PictureNoise([3, 4], (2, 4, 4))
    sigmas = Flow().spaced(count, last=last)
    x = Flow().start(noise.start(), sigmas[0])
    before = x.copy()
    seen = []
    for step in SAMPLERS[name](denoise, x, sigmas, noise=noise):
        assert step.calls == len(calls), "nothing is computed ahead of its step"
        seen.append(step)
    assert [s.index for s in seen] == list(range(count)) and {s.total for s in seen} == {count}
    assert [s.sigma for s in seen] == list(sigmas[1:])
    assert seen[-1].x.dtype == np.float32 and seen[-1].x.shape == x.shape and seen[-1].denoised.shape == x.shape
    assert np.isfinite(seen[-1].x).all()
    assert np.array_equal(x, before), "the start is not written to"
    assert min(calls) > 0, "no network is asked about σ = 0"


@pytest.mark.parametrize("name", SAMPLERS)
def test_numpy_sigmas_are_taken_as_floats(name: str) -> None:
    noise = PictureNoise([3], (1, 4, 4))
    step = run(name, noise.start(), tuple(np.array([2.0, 1.0, 0.0])), noise=noise)
    assert step.x.dtype == np.float32


@pytest.mark.parametrize("name", ["ddpm", "euler_a", "dpmpp_2m_sde", "lcm"])
def test_missing_noise_is_said(name: str) -> None:
    with pytest.raises(InputError, match="noise"):
        run(name, np.ones((1, 1, 2, 2)), (2.0, 1.0, 0.0))


@pytest.mark.parametrize("sigmas", [(), (1.0,), (1.0, 1.0), (1.0, 2.0), (1.0, -1.0), (math.nan, 0.0)])
def test_bad_sigmas(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="descending"):
        list(SAMPLERS["euler"](exact_denoise, np.ones((1, 1, 1, 1)), sigmas))


@pytest.mark.parametrize(
    ("name", "options"),
    [("ddim", {"eta": -1}), ("dpmpp_2m_sde", {"eta": -1}), ("unipc", {"order": 4}), ("plms", {"order": 0})],
)
def test_bad_options(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is not possible"):
        run(name, np.ones((1, 1, 1, 1)), (1.0, 0.0), **options)


def test_lookup() -> None:
    for alias, name in {
        "Euler a": "euler_a",
        "DPM++ 2M": "dpmpp_2m",
        "DPM++ 2M SDE": "dpmpp_2m_sde",
        "Euler": "euler",
        "PNDM": "plms",
        "ddim_sampler": "ddim",
        "plms_sampler": "plms",
        "UniPC": "unipc",
        "dpmpp_2m": "dpmpp_2m",
        "LCM": "lcm",
    }.items():
        assert sampler_name(alias) == name
        assert sampler(alias) is SAMPLERS[name]
    with pytest.raises(InputError, match=r"'Restart' does not exist; use one of ddim, euler"):
        sampler("Restart")
    for named in SAMPLER_NAMES:
        for name in (named.name, *named.aliases, *named.others):
            assert sampler_name(name) == named.ours
    assert {named.ours for named in SAMPLER_NAMES} == set(SAMPLERS)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras")),
        ("dpm++ 2m sde karras", ("dpmpp_2m_sde", "karras")),
        ("DPM++ 2M SDE Exponential", ("dpmpp_2m_sde", "exponential")),
        ("Euler a", ("euler_a", None)),
        ("k_euler_a", ("euler_a", None)),
        ("dpmpp_2m_karras", ("dpmpp_2m", "karras")),
        ("Heun", ("heun", None)),
        ("UniPC", ("unipc", None)),
        ("DDIM", ("ddim", None)),
    ],
)
def test_names_of_a1111_say_the_spacing_too(name: str, found: tuple[str, str | None]) -> None:
    assert spaced_sampler(name) == found


@pytest.mark.parametrize("name", ["LMS", "DPM++ SDE Karras", "LMS Karras", "Karras", "", "p_sampler", "x" * 10_000])
def test_samplers_that_are_not_here_are_told_with_those_that_are(name: str) -> None:
    with pytest.raises(InputError) as error:
        spaced_sampler(name, ["own"])
    text = str(error.value)
    assert text.startswith("sampler ") and "does not exist; use one of ddim, " in text and len(text) < 500
    assert ", own, or as AUTOMATIC1111 writes them: DPM++ 2M, " in text and "Karras or Exponential" in text
    assert spaced_sampler("own", ["own"]) == ("own", None)


def test_a_spacing_beside_the_name_has_to_be_the_same() -> None:
    said = {"sampler": "DPM++ 2M Karras", "steps": 5}
    told = {"sampler": "dpmpp_2m", "steps": 5, "spacing": "karras"}
    assert with_sampler(said) == with_sampler(said | {"spacing": None}) == with_sampler(told) == told
    assert with_sampler({"sampler": "DPM++ 2M", "spacing": "ays"}) == {"sampler": "dpmpp_2m", "spacing": "ays"}
    assert with_sampler({"sampler": None}) == {"sampler": None} and with_sampler({}) == {}
    with pytest.raises(InputError) as error:
        with_sampler(said | {"spacing": "ays"})
    assert str(error.value) == (
        "spacing: 'ays' is not possible with the sampler 'DPM++ 2M Karras', whose name says karras; leave spacing out, or give "
        "the sampler as dpmpp_2m"
    )
