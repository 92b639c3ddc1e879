"""Weights as int8 with scales by channel: exact products, the least error of the candidates, and damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chashka.checkpoints import read_tensors, write
from chashka.checkpoints.int8 import SCALES, from_int8, to_int8, widened
from chashka.errors import WeightsError


def weights(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    # channels of very different size: one scale for all would lose the small ones
    return (random.standard_normal((12, 5, 3, 3)) * np.logspace(-8, 3, 12)[:, None, None, None]).astype(np.float32)


def test_every_channel_is_kept_to_one_part_in_a_hundred() -> None:
    given = weights()
    values, scales = to_int8(given)
    assert (values.dtype, values.shape, scales.dtype, scales.shape) == (np.int8, given.shape, np.float32, (12,))
    back = from_int8(values, scales)
    error = np.linalg.norm((back - given).reshape(12, -1), axis=1) / np.linalg.norm(given.reshape(12, -1), axis=1)
    assert 0.001 < error.max() < 0.01


def test_the_product_is_exact_in_float32() -> None:
    values, scales = to_int8(weights())
    exact = values.astype(np.float64) * scales.astype(np.float64)[:, None, None, None]
    np.testing.assert_array_equal(from_int8(values, scales), exact)


def test_what_was_stored_is_stored_again() -> None:
    values, scales = to_int8(weights())
    again = to_int8(from_int8(values, scales))
    np.testing.assert_array_equal(again[0], values)
    np.testing.assert_array_equal(again[1], scales)


def test_one_outlier_is_clipped_where_that_is_better() -> None:
    channel = np.full((1, 4096), 0.5, np.float32) * np.sign(np.random.default_rng(0).standard_normal((1, 4096)))
    channel[0, 0] = 0.52
    channel *= np.random.default_rng(1).uniform(0.9, 1, channel.shape).astype(np.float32)
    scale = to_int8(channel.astype(np.float32))[1][0]
    plain = np.abs(channel).max() / 127

    def error(step: float) -> float:
        return float(np.square(np.clip(np.rint(channel / step), -127, 127) * step - channel).sum())

    assert error(scale) <= error(plain)


def test_a_channel_of_zeros_stays_zero() -> None:
    given = np.zeros((2, 9), np.float32)
    given[1] = np.linspace(-1, 1, 9)
    values, scales = to_int8(given)
    assert not values[0].any() and np.isfinite(scales).all()
    np.testing.assert_array_equal(from_int8(values, scales)[0], 0)


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(WeightsError, match="not finite"):
        to_int8(np.array([[1.0, np.nan]], np.float32))


def test_files_give_float32_and_no_scales(tmp_path: Path) -> None:
    values, scales = to_int8(weights())
    bias = np.ones(12, np.float16)
    write(tmp_path / "a.safetensors", {"w": values, "w" + SCALES: scales, "bias": bias}, {})
    read = read_tensors(tmp_path / "a.safetensors")
    assert read.keys() == {"w", "bias"} and read["bias"].dtype == np.float16
    np.testing.assert_array_equal(read["w"], from_int8(values, scales))


@pytest.mark.parametrize("shape", [(11,), (12, 1)])
def test_scales_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    values, _ = to_int8(weights())
    with pytest.raises(WeightsError, match="do not fit"):
        widened({"w": values, "w" + SCALES: np.ones(shape, np.float32)})


def test_scales_without_weights_are_refused() -> None:
    with pytest.raises(WeightsError, match="scales for 'w'"):
        widened({"w" + SCALES: np.ones(3, np.float32)})
