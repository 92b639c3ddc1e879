"""The same lines on torch: same numbers as numpy, gradients left alone."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from chashka.diffusion import (
    SAMPLERS,
    Denoiser,
    Flow,
    PictureNoise,
    Table,
    cfg,
    dynamic_threshold,
    forward,
    gradient,
    inpaint,
    namespace,
    quantile,
    static_threshold,
)

pytestmark = pytest.mark.torch


def network(x: Any, t: Any, cond: Any) -> Any:
    """Some smooth function of everything; twice the channels, as with learned variance."""
    xp = namespace(x)
    out = xp.tanh(x * 0.7 + xp.cos(t).reshape((-1, 1, 1, 1))) + cond["added"].reshape((-1, 2, 1, 1))
    return xp.concat([out, out * 100], axis=1)


def build(schedule: Any, prediction: str, to: Any) -> Any:
    cond, uncond = {"added": to(np.array([[0.3, -0.1]]))}, {"added": to(np.array([[0.0, 0.2]]))}
    denoise = cfg(Denoiser(network, schedule, prediction, dtype="float64"), cond, uncond, 3.0, (0.1, 5.0), rescale=0.3)
    denoise = dynamic_threshold(denoise, 0.9)
    denoise = inpaint(denoise, to(np.full((1, 2, 6, 6), 0.25)), to(np.eye(6).reshape(1, 1, 6, 6)))
    return gradient(static_threshold(denoise), lambda x, sigma: x * (1e-3 / (1 + sigma**2)))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("schedule", "prediction"), [(Table.scaled_linear(), "v"), (Flow(3.0), "flow")])
def test_torch_and_numpy_agree(name: str, schedule: Any, prediction: str) -> None:
    like = torch.zeros(1)
    on_numpy, on_torch = PictureNoise([7, 8], (2, 6, 6)), PictureNoise([7, 8], (2, 6, 6), like=like)
    sigmas = schedule.spaced(6)
    x = schedule.start(on_numpy.start().astype(np.float64), sigmas[0])
    a = list(SAMPLERS[name](build(schedule, prediction, lambda v: v), x, sigmas, noise=on_numpy))
    b = list(SAMPLERS[name](build(schedule, prediction, torch.from_numpy), torch.from_numpy(x), sigmas, noise=on_torch))
    for one, other in zip(a, b, strict=True):
        assert other.x.dtype == torch.float64
        # t is float32 at the boundary, and both libraries' cos of it is exact only to its last bit
        assert np.abs(one.x - other.x.numpy()).max() < 2e-6 * max(1.0, np.abs(one.x).max())
        assert one.calls == other.calls


@pytest.mark.parametrize("name", SAMPLERS)
def test_float32_stays_float32(name: str) -> None:
    noise = PictureNoise([7], (2, 6, 6), like=torch.zeros(1))
    sigmas = Flow().spaced(4)
    for step in SAMPLERS[name](
        lambda x, s: x / (1 + s * s), Flow().start(noise.start(), sigmas[0]), sigmas, noise=noise
    ):
        assert step.x.dtype == torch.float32


@pytest.mark.parametrize("enabled", [True, False])
def test_grad_mode_is_never_touched(enabled: bool) -> None:
    noise = PictureNoise([7], (2, 6, 6), like=torch.zeros(1))
    sigmas = Flow().spaced(3)
    with torch.set_grad_enabled(enabled):
        for sample in SAMPLERS.values():
            for _ in sample(lambda x, s: x / (1 + s * s), noise.start(), sigmas, noise=noise):
                assert torch.is_grad_enabled() is enabled


def test_gradients_pass_through_a_run() -> None:
    x = torch.ones(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    denoiser = Denoiser(lambda x, t, cond: torch.tanh(x), Flow(), "flow", dtype="float64")
    *_, step = SAMPLERS["heun"](denoiser, x, (3.0, 1.0, 0.0))
    (slope,) = torch.autograd.grad(step.x.sum(), x)
    assert torch.isfinite(slope).all() and float(slope.abs().min()) > 0


def test_training_through_the_same_scalings() -> None:
    """Per-row levels on torch: a network that says the target denoises perfectly, for every prediction."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 3, 4, 4, generator=generator)
    for schedule, prediction in ((Flow(), "flow"), (Table.scaled_linear(), "eps"), (Table.linear(), "v")):
        t = torch.tensor([0.02, 0.3, 0.5, 0.7, 0.97]) * (1 if isinstance(schedule, Flow) else 999)
        sigma = schedule.t_to_sigma(t)
        target = Denoiser(lambda *a: None, schedule, prediction).target(x0, noise, sigma)

        def oracle(x: Any, t_in: Any, cond: Any, target: Any = target, t: Any = t, schedule: Any = schedule) -> Any:
            assert x.dtype == torch.float32 and t_in.dtype == torch.float32
            assert torch.allclose(t_in, t * schedule.t_scale, rtol=1e-4)
            return target

        denoiser = Denoiser(oracle, schedule, prediction)
        x = forward(x0, noise, schedule, sigma=sigma, space="sigma")
        assert torch.allclose(
            x * schedule.scale(sigma).reshape(-1, 1, 1, 1), forward(x0, noise, schedule, t=t), atol=1e-5
        )
        assert torch.allclose(denoiser(x, sigma), x0, atol=3e-5)
        assert torch.equal(denoiser.output(x, sigma), target)


def test_per_row_levels_may_be_a_list() -> None:
    x0, noise = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    mixed = forward(x0, noise, Flow(), sigma=[1.0, 3.0])
    assert torch.allclose(mixed[:, 0, 0, 0], torch.tensor([0.5, 0.75]))


def test_quantile_and_half_precision() -> None:
    values = torch.linspace(-1, 3, 50).reshape(2, 25)
    assert np.allclose(quantile(values, 0.37), np.percentile(values.numpy(), 37, axis=1))
    seen = []

    def half(x: Any, t: Any, cond: Any) -> Any:
        seen.append((x.dtype, t.dtype))
        return x

    out = Denoiser(half, Flow(), "flow", dtype="float16")(torch.ones(1, 1, 2, 2), 1.0)
    assert seen == [(torch.float16, torch.float32)] and out.dtype == torch.float32


def test_noise_is_the_same_on_torch() -> None:
    noise = PictureNoise([7], (3, 5), like=torch.zeros(1, dtype=torch.float64))(4)
    assert isinstance(noise, torch.Tensor)
    assert np.array_equal(noise.numpy(), PictureNoise([7], (3, 5))(4))


def test_training_and_drawing_need_no_array_api_compat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training core runs where only torch, numpy and safetensors are installed; its look-sheets are drawn there."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "array_api_compat"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    flow = Flow(0.5)
    denoiser = Denoiser(lambda x, t, cond: torch.tanh(x) + cond["added"].reshape(-1, 1, 1, 1), flow, "flow")
    x0, noise = torch.randn(2, 3, 2, 4, 4)
    sigma = flow.t_to_sigma(torch.tensor([0.1, 0.5, 0.9]))
    cond, uncond = {"added": torch.ones(1, 1)}, {"added": torch.zeros(1, 1)}
    x = forward(x0, noise, flow, sigma=sigma, space="sigma")
    added = {"added": torch.ones(3, 1)}
    assert denoiser.output(x, sigma, added).shape == denoiser.target(x0, noise, sigma).shape
    *_, step = SAMPLERS["dpmpp_2m"](cfg(denoiser, cond, uncond, 3.0), flow.start(noise, 9.0), (9.0, 1.0, 0.0))
    assert torch.isfinite(step.x).all()
    with pytest.raises(ImportError):
        namespace(x0)
