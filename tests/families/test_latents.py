"""Big pictures in tiles, and seamless ones, by the shipped decoder."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from chashka import families
from chashka.families import latents
from chashka.families.latents import LatentCodec


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    made = families.load(engine="openvino", precision="f32").codec
    assert isinstance(made, LatentCodec)
    return made


def smooth(rows: int, columns: int) -> np.ndarray:
    """Latents of a drawn picture, put together to a larger one."""
    from chashka.generate import draw

    bundle = families.load(engine="openvino", precision="f32")
    (picture,) = draw(bundle, bundle.request(prompt="яблоко", seed=3, steps=4))
    from chashka import images

    x = bundle.codec.encode(images.to_network(picture.pixels)[None])
    return np.tile(x, (1, 1, rows // 16 + 1, columns // 16 + 1))[:, :, :rows, :columns]


def test_tiles_are_the_whole_but_for_what_each_cannot_see(codec: LatentCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    x = smooth(40, 56)
    monkeypatch.setattr(latents, "LARGEST_AREA", 40 * 56 * 256)
    whole = codec.decode(x)
    monkeypatch.setattr(latents, "LARGEST_AREA", 16 * 16 * 256)
    tiled = codec.decode(x)
    assert tiled.shape == whole.shape == (1, 4, 640, 896)
    assert np.abs(tiled - whole).mean() < 0.02
    # no seam: a pixel differs from its neighbour no more than it does in the whole, anywhere
    steps = [np.abs(np.diff(p, axis=3)).mean((0, 1, 2)) for p in (whole, tiled)]
    assert (steps[1] < 1.2 * steps[0] + 0.01).all()


def test_starts_cover_everything() -> None:
    for length in (10, 32, 33, 60, 100, 257):
        starts = latents._starts(length, 32, 8)
        assert starts[0] == 0 and max(starts[-1] + 32, 0) >= length
        assert all(0 < b - a <= 24 for a, b in pairwise(starts))


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_seamless_decoding_does_not_know_where_the_edge_is(
    codec: LatentCodec, axes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    made = codec.tiled(axes)
    for axis in ("yx".index(letter) + 2 for letter in axes):
        moved = made.decode(np.roll(x, 5, axis))
        assert np.abs(np.roll(made.decode(x), 80, axis) - moved).max() < 1e-4
        assert np.abs(np.roll(codec.decode(x), 80, axis) - codec.decode(np.roll(x, 5, axis))).max() > 0.1
    # in tiles too, where every tile alone has edges
    monkeypatch.setattr(latents, "LARGEST_AREA", 0)
    assert made.decode(x).shape == (1, 4, 256, 256)
    big = np.tile(x, (1, 1, 3, 3))
    joined = made.decode(big)
    axis = "yx".index(axes[0]) + 2
    ends = np.take(joined, [0, -1], axis)
    inner = np.take(joined, [256, 255], axis)
    assert np.abs(ends - inner).mean() < 0.05


def test_seamless_encoding(codec: LatentCodec) -> None:
    pixels = np.random.default_rng(0).normal(size=(1, 4, 128, 192)).astype(np.float32)
    made = codec.tiled("xy")
    for axis in (2, 3):
        moved = made.encode(np.roll(pixels, 32, axis))
        assert np.abs(np.roll(made.encode(pixels), 2, axis) - moved).max() < 1e-3
