"""Larger pictures: tiles equal the whole, what is opaque stays so, and what is not possible is one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import chashka
from chashka import enlarge
from chashka.errors import EngineError, InputError, WeightsError
from chashka.families import Bundle
from toy_model import ToyUpscaler, toy_bundle


@pytest.fixture
def toy() -> ToyUpscaler:
    return ToyUpscaler()


@pytest.fixture
def model(toy: ToyUpscaler) -> Bundle:
    return replace(toy_bundle(), upscaler=toy)


def noise(height: int, width: int, channels: int = 4) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("by", [2, 4])
@pytest.mark.parametrize("channels", [3, 4])
def test_sizes_and_channels(model: Bundle, by: int, channels: int) -> None:
    larger = chashka.upscale(model, noise(33, 70, channels), by=by)
    assert larger.shape == (33 * by, 70 * by, channels) and larger.dtype == np.uint8


def test_four_is_twice_two(model: Bundle, toy: ToyUpscaler) -> None:
    chashka.upscale(model, noise(40, 64), by=4)
    assert toy.shapes == [(1, 4, 64, 64), (1, 4, 96, 128)]  # filled up to multiples of 32


@pytest.mark.parametrize("size", [(130, 70), (65, 300), (64, 64), (200, 201)])
def test_tiles_equal_the_whole(
    model: Bundle, toy: ToyUpscaler, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    pixels = noise(*size)
    whole = enlarge.upscale(model, pixels)
    toy.shapes.clear()
    monkeypatch.setattr(enlarge, "TILE", 64)
    tiled = enlarge.upscale(model, pixels)
    assert np.array_equal(tiled, whole)
    assert {shape[2:] for shape in toy.shapes} == {(64, 64)}, "one shape to compile"
    assert (len(toy.shapes) > 1) == (max(size) > 64)


def test_what_is_opaque_stays_opaque_and_colours_keep_below_alpha(model: Bundle) -> None:
    pixels = np.full((32, 32, 4), 100, np.uint8)
    pixels[..., 3] = 255
    assert (chashka.upscale(model, pixels)[..., 3] == 255).all()
    assert np.array_equal(chashka.upscale(model, pixels[..., :3]), chashka.upscale(model, pixels)[..., :3])
    empty = chashka.upscale(model, np.zeros((32, 32, 4), np.uint8))
    assert not empty.any(), "transparent stays transparent"


@pytest.mark.parametrize("by", [0, 1, 3, 8, -2])
def test_other_factors_are_refused(model: Bundle, by: int) -> None:
    with pytest.raises(InputError, match=rf"by: {by} is not possible; allowed: 2 or 4"):
        chashka.upscale(model, noise(8, 8), by=by)


def test_results_are_limited(model: Bundle) -> None:
    with pytest.raises(InputError, match="8x1025 pixels would become 32x4100; allowed: at most 4096 on each side"):
        chashka.upscale(model, np.zeros((1025, 8, 4), np.uint8), by=4)
    assert chashka.upscale(model, np.zeros((1024, 8, 4), np.uint8), by=4).shape == (4096, 32, 4)


@pytest.mark.parametrize(
    "pixels", [noise(4, 4).astype(np.float32), noise(4, 4)[..., 0], noise(4, 4)[:0], noise(4, 4, 5)]
)
def test_other_arrays_are_refused(model: Bundle, pixels: Any) -> None:
    with pytest.raises(InputError, match=r"allowed: uint8 \(H, W, 4\) or \(H, W, 3\)"):
        chashka.upscale(model, pixels)


def test_a_model_without_an_upscaler_says_how_to_get_one(model: Bundle) -> None:
    with pytest.raises(WeightsError, match=r"toy-plain.* has no upscaler .*chashka train upscale .*--upscaler"):
        chashka.upscale(replace(model, upscaler=None), noise(8, 8))


def test_numbers_that_are_not_finite_are_told(model: Bundle, toy: ToyUpscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "enlarge", lambda pixels: np.full((1, 4, 64, 64), np.nan, np.float32))
    with pytest.raises(EngineError, match="precision f32"):
        chashka.upscale(model, noise(8, 8))
