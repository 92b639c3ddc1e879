"""Schedules, spacings, respacings and the forward process."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from chashka.diffusion import FLOW_SPACINGS, TABLE_SPACINGS, Flow, Table, forward, forward_step, levels
from chashka.diffusion.respacing import ddim_respacing, parse_respacing, section_respacing
from chashka.diffusion.schedule import NoiseSchedule, spacing_names
from chashka.diffusion.spacings import AYS_TIMESTEPS, resample_log
from chashka.errors import InputError

TABLES = {"linear": Table.linear(), "scaled": Table.scaled_linear(), "cosine": Table.squared_cosine()}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_table_is_the_product_of_its_betas(table: Table) -> None:
    for t in (0, 1, 500, 999):
        a = math.prod(1 - b for b in table.betas[: t + 1])
        assert table.alphas_cumprod[t] == pytest.approx(a, rel=1e-10)
        assert table.t_to_sigma(t) == pytest.approx(math.sqrt((1 - a) / a), rel=1e-10)
    assert table.min_sigma == table.sigmas[0] and table.max_sigma == table.sigmas[-1] and table.t_scale == 1.0


def test_named_tables() -> None:
    assert TABLES["linear"].betas[0] == 1e-4 and TABLES["linear"].betas[-1] == pytest.approx(0.02)
    assert TABLES["scaled"].max_sigma == pytest.approx(14.6146, abs=1e-4)  # the number everybody knows
    assert TABLES["scaled"].min_sigma == pytest.approx(0.02917, abs=1e-5)
    cosine = TABLES["cosine"]
    assert cosine.alphas_cumprod[499] == pytest.approx(
        math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2, rel=1e-9
    )
    assert cosine.betas[-1] == 0.999
    assert Table.linear(total=900).t_scale == pytest.approx(1000 / 900)


@pytest.mark.parametrize("schedule", [*TABLES.values(), Flow()], ids=[*TABLES, "flow"])
def test_t_and_sigma_invert_each_other(schedule: Any) -> None:
    unit = 1000 if isinstance(schedule, Table) else 1
    for t in (0.001, 0.0123, 0.5, 0.7771, 0.99):
        sigma = schedule.t_to_sigma(t * unit)
        assert type(sigma) is float
        assert schedule.sigma_to_t(sigma) == pytest.approx(t * unit, rel=1e-9)
    values = np.array([0.01, 0.5, 0.9]) * unit
    assert np.allclose(schedule.sigma_to_t(schedule.t_to_sigma(values)), values)
    assert schedule.scale(0.0) == 1.0


def test_table_snaps_and_clamps() -> None:
    table = TABLES["linear"]
    assert all(table.sigma_to_t(table.sigmas[t]) == t for t in range(1000)), "exactly the integer"
    assert table.sigma_to_t(table.sigmas[100] * (1 + 1e-9)) == 100.0
    assert table.sigma_to_t(table.t_to_sigma(100.001)) != 100.0
    assert table.sigma_to_t(0.0) == 0.0 and table.sigma_to_t(1e9) == 999.0
    assert table.t_to_sigma(2000) == table.max_sigma and table.t_to_sigma(-5) == table.min_sigma
    assert table.sigma_to_t([table.sigmas[3], table.sigmas[7]]).tolist() == [3.0, 7.0]


def test_flow_is_the_straight_path() -> None:
    flow = Flow()
    assert flow.t_to_sigma(0.5) == 1.0 and flow.t_to_sigma(0.0) == 0.0 and flow.scale(1.0) == 0.5
    assert flow.t_to_sigma(1.0) == pytest.approx(999) and flow.max_sigma == pytest.approx(999)
    assert flow.t_to_sigma(np.array([-1.0, 0.5, 2.0])).tolist() == pytest.approx([0.0, 1.0, 999.0])
    assert Flow(3.0).shifted(0.5) == 0.75  # 3·0.5/(1 + 2·0.5)
    assert Flow(3.0).t_to_sigma(Flow(3.0).shifted(0.4)) == pytest.approx(3 * flow.t_to_sigma(0.4)), "σ ← s·σ"
    assert np.array_equal(Flow(3.0).shifted(np.array([0.0, 1.0])), [0.0, 1.0])


@pytest.mark.parametrize("steps", [1, 2, 7, 10, 30, 100, 997, 1000])
@pytest.mark.parametrize(
    ("schedule", "spacing"),
    [(TABLES["scaled"], s) for s in TABLE_SPACINGS]
    + [(Flow(), s) for s in FLOW_SPACINGS]
    + [(Flow(s), None) for s in (0.3, 3.0, 12.0)],
)
def test_every_spacing_descends_to_its_end(schedule: Any, spacing: str | None, steps: int) -> None:
    for last in (0.0, schedule.min_sigma):
        sigmas = schedule.spaced(steps, spacing, last=last)
        assert all(type(s) is float for s in sigmas) and sigmas[-1] == last
        assert all(a > b for a, b in pairwise(sigmas))
        assert sigmas[0] <= schedule.max_sigma
        if last == 0.0 and spacing not in ("ddim", "ddim0"):
            assert len(sigmas) == steps + 1
    assert {*TABLE_SPACINGS, *FLOW_SPACINGS} == set(spacing_names())


def test_timestep_spacings() -> None:
    table = TABLES["scaled"]

    def times(spacing: str, steps: int, **options: float) -> list[float]:
        return [table.sigma_to_t(s) for s in table.spaced(steps, spacing, **options)[:-1]]

    assert times("leading", 10) == [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]  # diffusers, steps_offset 1
    assert times("trailing", 10) == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert times("linspace", 4) == pytest.approx([999, 666, 333, 0])
    assert times("ddim", 3) == [667, 334, 1] and times("ddim0", 3) == [999, 666, 333, 0]
    assert times("even", 4) == [999, 666, 333, 0]
    assert times("leading", 1000)[-1] == 0, "no offset where it would leave the table"
    assert times("ddim", 10, last=table.min_sigma)[-1] == 1


def test_karras_and_exponential() -> None:
    low, high = TABLES["scaled"].min_sigma, TABLES["scaled"].max_sigma
    sigmas = TABLES["scaled"].spaced(5, "karras")
    roots = [s ** (1 / 7) for s in sigmas[:-1]]
    assert sigmas[0] == high and sigmas[4] == low
    assert np.allclose(np.diff(roots), (low ** (1 / 7) - high ** (1 / 7)) / 4)
    assert np.allclose(np.diff(np.log(TABLES["scaled"].spaced(5, "exponential")[:-1])), math.log(low / high) / 4)


def test_align_your_steps() -> None:
    """The sigmas that the authors print for Stable Diffusion 1.5 and SDXL, up to their rounding of t."""
    table = TABLES["scaled"]
    printed = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152]
    assert np.allclose(table.spaced(10, "ays")[:-1], printed, rtol=4e-3)
    printed = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113]
    assert np.allclose(table.spaced(10, "ays_sdxl")[:-1], printed, rtol=1.5e-2)
    assert [table.sigma_to_t(s) for s in table.spaced(10, "ays")[:-1]] == list(AYS_TIMESTEPS["ays"][:-1])
    twenty = table.spaced(20, "ays")
    assert np.allclose(twenty[0:20:2], table.spaced(10, "ays")[:-1]), "every second one of 20 steps is one of 10"
    assert twenty[1] == pytest.approx(math.sqrt(twenty[0] * twenty[2]))
    assert resample_log([4.0, 1.0], 3) == pytest.approx([4.0, 2.0, 1.0])


def test_flow_spacings() -> None:
    flow = Flow(3.0)
    assert [flow.sigma_to_t(s) for s in flow.spaced(4, "uniform")] == pytest.approx([0.999, 0.75, 0.5, 0.25, 0.0])
    assert [flow.sigma_to_t(s) for s in flow.spaced(4)] == pytest.approx([0.999, 0.9, 0.75, 0.5, 0.0])


def test_start_noise() -> None:
    noise = np.ones((1, 1), np.float32)
    table = TABLES["scaled"]
    assert table.start(noise, 3.0)[0, 0] == pytest.approx(math.sqrt(10))
    assert table.start(noise, 3.0, "sigma")[0, 0] == 3.0 and table.start(noise, 3.0).dtype == np.float32
    assert Flow().start(noise, 3.0)[0, 0] == pytest.approx((3 + 1) * 0.75)
    with pytest.raises(InputError, match="vp, sigma, flow"):
        table.start(noise, 1.0, "max")


def test_respacing_lists() -> None:
    assert ddim_respacing(7)[-1] == 995 and len(ddim_respacing(7)) == 8
    assert ddim_respacing(250, offset=0)[:3] == [0, 4, 8] and len(ddim_respacing(250, offset=0)) == 250
    assert len(ddim_respacing(75)) == 77 and len(ddim_respacing(1000)) == 999, "t = 1000 is dropped"
    assert section_respacing(1) == [0] and section_respacing([2, 2], 10) == [0, 4, 5, 9]
    assert section_respacing([2, 1, 1], 11) == [0, 3, 4, 8]
    assert parse_respacing("ddim3") == [1, 334, 667] and parse_respacing("3") == section_respacing(3)
    assert parse_respacing("10,15,20", 300) == section_respacing([10, 15, 20], 300)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Table.linear().spaced(0),
        lambda: Table.linear().spaced(1001),
        lambda: Table.linear().spaced(True),
        lambda: Table.linear().spaced(5, "shifted"),
        lambda: Flow().spaced(5, "leading"),
        lambda: Flow().spaced(2.5),  # type: ignore[arg-type]
        lambda: Table.linear().spaced(5, last=-1.0),
        lambda: Table([0.5]),
        lambda: Table([0.5, 1.0]),
        lambda: Flow(0.0),
        lambda: section_respacing([]),
        lambda: parse_respacing("fast"),
        lambda: parse_respacing("ddim5,5"),
        lambda: forward(np.ones(1), np.ones(1), Flow()),
        lambda: forward(np.ones(1), np.ones(1), Flow(), t=0.5, space="latent"),
        lambda: forward_step(np.ones(1), 0.0, np.ones(1), Flow()),
    ],
)
def test_errors_are_for_people(call: Any) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schedule", [TABLES["linear"], TABLES["scaled"], Flow()])
def test_forward_in_both_spaces(schedule: Any) -> None:
    rng = np.random.default_rng(1)
    x0, noise = rng.normal(size=(2, 3, 1, 4, 4))
    t = 0.3 if isinstance(schedule, Flow) else 300
    alpha, s = levels(schedule, t)
    sigma = schedule.t_to_sigma(t)
    network = forward(x0, noise, schedule, t=t)
    assert np.allclose(network, alpha * x0 + s * noise, atol=1e-14)
    assert np.allclose(network, forward(x0, noise, schedule, sigma=sigma), atol=1e-14)
    assert np.allclose(network / alpha, forward(x0, noise, schedule, t=t, space="sigma"), atol=1e-12)
    assert alpha + s == pytest.approx(1) if isinstance(schedule, Flow) else alpha**2 + s**2 == pytest.approx(1)
    rows = forward(x0, noise, schedule, t=np.array([t, t / 2, t]))
    assert np.allclose(rows[0], network[0]) and np.allclose(rows[1], forward(x0, noise, schedule, t=t / 2)[1])


def test_forward_step_is_ddpm_equation_2() -> None:
    table = TABLES["linear"]
    x, noise = np.full((1, 1), 0.8), np.full((1, 1), -1.3)
    for t in (0, 1, 500, 999):
        beta = table.betas[t]
        expected = math.sqrt(1 - beta) * x + math.sqrt(beta) * noise
        assert np.allclose(forward_step(x, t, noise, table), expected, rtol=1e-9)


@pytest.mark.parametrize("schedule", [Table.linear(total=50), Flow()])
def test_chained_steps_have_the_distribution_of_forward(schedule: Any) -> None:
    """Signal and variance carried through every step, against one jump."""
    times = range(50) if isinstance(schedule, Table) else [0.001 * (i + 1) for i in range(60)]
    signal, variance = 1.0, 0.0
    zero, one = np.zeros(1), np.ones(1)
    for t in times:
        a = float(forward_step(one, t, zero, schedule)[0])
        b = float(forward_step(zero, t, one, schedule)[0])
        signal, variance = a * signal, a * a * variance + b * b
    alpha, s = levels(schedule, times[-1])
    assert signal == pytest.approx(alpha, rel=1e-9) and math.sqrt(variance) == pytest.approx(s, rel=1e-6)


def test_forward_step_may_jump() -> None:
    table = TABLES["scaled"]
    a = float(forward_step(np.ones(1), 700, np.zeros(1), table, t_prev=300)[0])
    b = float(forward_step(np.zeros(1), 700, np.ones(1), table, t_prev=300)[0])
    alpha, s = levels(table, 700)
    alpha_prev, s_prev = levels(table, 300)
    assert a * alpha_prev == pytest.approx(alpha) and a * a * s_prev**2 + b * b == pytest.approx(s * s)


def test_protocol() -> None:
    schedules: list[NoiseSchedule] = [Table.linear(), Flow()]
    assert all(s.max_sigma > s.min_sigma > 0 for s in schedules)
