"""The adapter around a network, and the wrappers around the adapter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from chashka.diffusion import (
    PREDICTIONS,
    Denoiser,
    Flow,
    Table,
    cfg,
    cfg_rescale,
    composed,
    dynamic_threshold,
    forward,
    gradient,
    inpaint,
    namespace,
    quantile,
    static_threshold,
)
from chashka.errors import InputError, WeightsError

RNG = np.random.default_rng(4)
X0, NOISE = RNG.normal(size=(2, 3, 2, 4, 4))
SCHEDULES = [Table.scaled_linear(), Flow()]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.03, 0.7, 12.0, np.array([0.03, 0.7, 12.0]), [0.03, 0.7, 12.0]])
def test_a_network_that_says_the_target_denoises_perfectly(schedule: Any, prediction: str, sigma: Any) -> None:
    denoiser = Denoiser(lambda x, t, cond: x, schedule, prediction, dtype=None)
    target = denoiser.target(X0, NOISE, sigma)
    denoiser = Denoiser(lambda x, t, cond: target, schedule, prediction, dtype=None)
    x = forward(X0, NOISE, schedule, sigma=sigma, space="sigma")
    assert np.allclose(denoiser(x, sigma), X0, atol=1e-12)
    assert np.array_equal(denoiser.output(x, sigma), target)


def test_targets_are_the_papers() -> None:
    sigma, table = 0.9, Table.scaled_linear()
    alpha, s = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)

    def target(prediction: str) -> Any:
        return Denoiser(lambda x, t, c: x, table, prediction).target(X0, NOISE, sigma)

    assert np.allclose(target("eps"), NOISE) and np.allclose(target("x0"), X0)
    assert np.allclose(target("v"), alpha * NOISE - s * X0) and np.allclose(target("flow"), NOISE - X0)
    assert Denoiser(lambda x, t, c: x, table, "v").scalings(sigma) == pytest.approx((alpha**2, -s, alpha))
    assert Denoiser(lambda x, t, c: x, Flow(), "flow").scalings(3.0) == pytest.approx((0.25, -0.75, 0.25))


def test_what_the_network_is_given() -> None:
    seen: list[Any] = []

    def network(x: Any, t: Any, cond: Any) -> Any:
        seen.append((x, t, cond))
        return np.concatenate([x[:, :2], x[:, :2] * 9], axis=1)

    concat = np.full((3, 5, 4, 4), 0.5)
    cond = {"tokens": np.ones((3, 7, 2), np.float32), "concat": concat}
    table = Table.scaled_linear()
    out = Denoiser(network, table, "x0")(X0, table.sigmas[400], cond)
    x, t, given = seen[0]
    assert x.dtype == np.float32 and x.shape == (3, 7, 4, 4) and np.array_equal(x[:, 2:], concat)
    assert np.allclose(x[:, :2], X0 * table.scale(table.sigmas[400]), atol=1e-6)
    assert t.dtype == np.float32 and t.tolist() == [400.0] * 3
    assert set(given) == {"tokens"} and "concat" in cond, "the caller's dictionary is left alone"
    assert out.dtype == np.float64 and np.allclose(out, x[:, :2]), "learned variance is dropped"

    Denoiser(network, Flow(), "x0")(X0.astype(np.float32), 1.0)
    assert seen[-1][1].tolist() == [500.0] * 3
    Denoiser(network, Flow(), "x0")(X0, np.array([1.0, 3.0, 0.0]))
    assert seen[-1][1].tolist() == [500.0, 750.0, 0.0]
    between = table.t_to_sigma(400.4)
    assert Denoiser(network, table).t(between) == pytest.approx(400.4)
    assert Denoiser(network, table, round_t=True).t(between) == 400.0
    assert Denoiser(network, table, round_t=True).t(np.array([between])).tolist() == [400.0]
    assert Denoiser(network, Table.linear(total=500)).t(Table.linear(total=500).sigmas[250]) == 500.0


def test_denoiser_errors() -> None:
    with pytest.raises(InputError, match="eps, v, x0, flow"):
        Denoiser(lambda x, t, c: x, Flow(), "epsilon")
    with pytest.raises(WeightsError, match="2 channels, or 4"):
        Denoiser(lambda x, t, c: x[:, :1], Flow())(X0, 1.0)
    with pytest.raises(TypeError, match="list"):
        namespace([1.0])


def conditional(log: list[Any]) -> Any:
    def denoiser(x: Any, sigma: float, cond: Any) -> Any:
        log.append((x.shape[0], cond))
        return x * 0 + cond["added"].reshape((-1, 1, 1, 1))

    return denoiser


def test_cfg_is_one_paired_call() -> None:
    log: list[Any] = []
    cond = {"tokens": np.ones((1, 3, 2)), "mask": np.ones((1, 3)), "added": np.array([[2.0]])}
    uncond = {"tokens": np.full((3, 5, 2), 7.0), "mask": np.ones((3, 5)), "added": np.array([[1.0], [1.5], [0.0]])}
    out = cfg(conditional(log), cond, uncond, 4.0)(X0, 1.0)
    assert out[:, 0, 0, 0].tolist() == [1 + 4 * 1, 1.5 + 4 * 0.5, 0 + 4 * 2]
    rows, given = log[0]
    assert len(log) == 1 and rows == 6
    assert given["tokens"].shape == (6, 5, 2) and given["tokens"][:3, 3:].sum() == 0, "padded with zeros, cond first"
    assert given["mask"].tolist() == [[1, 1, 1, 0, 0]] * 3 + [[1] * 5] * 3


def test_lengths_that_nothing_masks_are_called_apart() -> None:
    """Zeros behind a text would be attended to."""
    log: list[Any] = []
    cond = {"tokens": np.ones((1, 3, 2)), "added": np.array([[2.0]])}
    uncond = {"tokens": np.ones((1, 5, 2)), "added": np.array([[1.0]])}
    out = cfg(conditional(log), cond, uncond, 4.0)(X0, 1.0)
    assert out[0, 0, 0, 0] == 5.0 and [(rows, c["tokens"].shape[1]) for rows, c in log] == [(3, 3), (3, 5)]


def test_several_conditionings() -> None:
    log: list[Any] = []
    conds = [({"added": np.array([[value]])}, weight) for value, weight in ((2.0, 1.0), (5.0, 0.5))]
    uncond = {"added": np.array([[1.0]])}
    guided = composed(conditional(log), conds, uncond, 3.0, interval=(0.5, 2.0))
    assert guided(X0, 1.0)[0, 0, 0, 0] == 1 + 3 * (1 * 1 + 0.5 * 4) and [rows for rows, _ in log] == [9]
    assert guided(X0, 3.0)[0, 0, 0, 0] == pytest.approx((2 + 0.5 * 5) / 1.5), "outside: the mean by weight"
    assert composed(conditional(log), conds, uncond, 1.0)(X0, 1.0)[0, 0, 0, 0] == 1 + 1 + 2
    opposed = [(cond, weight) for (cond, _), weight in zip(conds, (1.0, -1.0), strict=True)]
    assert composed(conditional(log), opposed, None, 1.0)(X0, 1.0)[0, 0, 0, 0] == 3.5


def test_cfg_makes_the_single_call_where_it_can() -> None:
    cond, uncond = {"added": np.full((3, 1), 2.0)}, {"added": np.full((3, 1), 1.0)}
    log: list[Any] = []
    assert cfg(conditional(log), cond, uncond, 1.0)(X0, 1.0)[0, 0, 0, 0] == 2.0
    assert cfg(conditional(log), cond, None, 5.0)(X0, 1.0)[0, 0, 0, 0] == 2.0
    guided = cfg(conditional(log), cond, uncond, 5.0, interval=(0.5, 2.0))
    assert [float(guided(X0, s)[0, 0, 0, 0]) for s in (2.1, 2.0, 0.51, 0.5)] == [2.0, 6.0, 6.0, 2.0]
    assert [rows for rows, _ in log] == [3, 3, 3, 6, 6, 3]


def test_cfg_errors() -> None:
    with pytest.raises(InputError, match="interval"):
        cfg(conditional([]), {}, {}, 2.0, interval=(2.0, 1.0))
    with pytest.raises(InputError, match="differ"):
        cfg(conditional([]), {"added": np.ones((3, 1))}, {"pooled": np.ones((3, 1))}, 2.0)(X0, 1.0)
    with pytest.raises(InputError, match="2 rows"):
        cfg(conditional([]), {"added": np.ones((2, 1))}, None, 2.0)(X0, 1.0)


def test_cfg_rescale_restores_the_contrast() -> None:
    conditional_x, guided = X0, X0 * 3.0 + 0.1
    full = cfg_rescale(guided, conditional_x, 1.0)
    assert np.allclose(full.std(axis=(1, 2, 3)), conditional_x.std(axis=(1, 2, 3)))
    assert np.array_equal(cfg_rescale(guided, conditional_x, 0.0), guided)
    assert np.allclose(cfg_rescale(guided, conditional_x, 0.5), 0.5 * guided + 0.5 * full)
    assert np.isfinite(cfg_rescale(X0 * 0 + 1, X0, 1.0)).all(), "a constant picture does not divide by zero"
    with pytest.raises(InputError, match="rescale"):
        cfg_rescale(guided, conditional_x, 1.5)


def test_thresholds() -> None:
    d = RNG.normal(size=(3, 2, 8, 8)) * np.array([0.2, 1.0, 4.0]).reshape(3, 1, 1, 1)
    out = dynamic_threshold(lambda x, s: d, 0.9)(d, 1.0)
    for i in range(3):
        limit = max(1.0, float(np.percentile(np.abs(d[i]), 90)))
        assert np.allclose(out[i], np.clip(d[i], -limit, limit) / limit)
    assert np.array_equal(out[0], d[0]), "small values stay as they are"
    first = dynamic_threshold(lambda x, s: d[::-1], 0.9, first_only=True)(d, 1.0)
    limit = float(np.percentile(np.abs(d[2]), 90))
    assert np.allclose(first, np.clip(d[::-1], -limit, limit) / limit)
    assert np.array_equal(static_threshold(lambda x, s: d)(d, 1.0), np.clip(d, -1, 1))
    for q in (0.0, 0.25, 0.995, 1.0):
        assert np.allclose(quantile(d, q), np.percentile(d.reshape(3, -1), 100 * q, axis=1))
    for bad in (99.5, -0.1):
        with pytest.raises(InputError, match="quantile"):
            dynamic_threshold(lambda x, s: x, bad)
    with pytest.raises(InputError, match="threshold"):
        static_threshold(lambda x, s: x, 0.0)


def test_inpaint_repaints_where_the_mask_is_one() -> None:
    mask = np.zeros((1, 1, 4, 4))
    mask[..., :2] = 1.0
    out = inpaint(lambda x, s: X0, NOISE[:1], mask)(X0, 1.0)
    assert np.array_equal(out[..., :2], X0[..., :2])
    assert np.array_equal(out[..., 2:], np.broadcast_to(NOISE[:1], X0.shape)[..., 2:])


def test_gradient_is_condition_score() -> None:
    """guided-diffusion: eps' = eps - √(1-ᾱ)·g and x0 from eps', with g taken in network space at x·α."""
    table = Table.linear()
    sigma = table.sigmas[300]
    alpha, s = math.sqrt(table.alphas_cumprod[300]), math.sqrt(1 - table.alphas_cumprod[300])
    x = X0 + sigma * NOISE
    eps = (x - X0) / sigma
    g = RNG.normal(size=X0.shape)
    expected = (alpha * x - s * (eps - s * g)) / alpha
    out = gradient(lambda x, sigma: X0, lambda x, sigma: alpha * g)(x, sigma)
    assert np.allclose(out, expected, atol=1e-12)
