"""Big pictures in tiles, and seamless ones, by the shipped decoder."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from chashka import families
from chashka.families import latents
from chashka.families.latents import LatentCodec
from toy_model import toy_bundle


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


def test_careful_decoding_asks_for_small_parts_and_gives_the_same_picture(codec: LatentCodec) -> None:
    """Of a picture that is otherwise decoded at once, and seamless too."""
    x = smooth(32, 40)
    sizes: list[tuple[int, ...]] = []
    made = codec.careful()
    encoder, plain = made._plain

    def counting(latents: np.ndarray) -> Any:
        sizes.append(latents.shape)
        return plain(latents=latents)

    made._plain = (encoder, counting)  # type: ignore[assignment]
    careful, whole = made.decode(x), codec.decode(x)
    assert len(sizes) > 4 and set(sizes) == {(1, 16, 16, 16)}
    assert careful.shape == whole.shape == (1, 4, 512, 640)
    assert np.abs(careful - whole).mean() < 0.02
    sizes.clear()
    assert made.tiled("x").decode(x).shape == whole.shape and sizes
    one = smooth(16, 16)
    assert np.array_equal(codec.careful().decode(one), codec.decode(one)), "one tile is the whole"


def test_a_careful_bundle_draws_one_at_a_time_and_decodes_in_tiles_where_it_can(codec: LatentCodec) -> None:
    bundle = replace(toy_bundle(), codec=codec)
    assert bundle.rows > 1 and bundle.careful(decoding=False).rows == bundle.careful(decoding=True).rows == 1
    assert bundle.careful(decoding=False).codec is codec
    larger = bundle.careful(decoding=True).codec
    assert isinstance(larger, LatentCodec) and not larger._whole(17, 16) and codec._whole(17, 16)
    plain = toy_bundle()
    assert plain.careful(decoding=True).codec is plain.codec, "this one cannot"


def test_encoding_in_tiles_is_the_whole_but_for_what_each_cannot_see(codec: LatentCodec) -> None:
    """A picture that is larger than the largest that is encoded at once, and is asked for in parts alone."""
    sides: list[tuple[int, ...]] = []
    made = codec.careful()
    encoder, decoder = made._plain

    def counting(pixels: np.ndarray) -> Any:
        sides.append(pixels.shape[2:])
        return encoder(pixels=pixels)

    made._plain = (counting, decoder)  # type: ignore[assignment]
    pixels = codec.decode(smooth(24, 40))
    parts, whole = made.encode(pixels), codec.encode(pixels)
    assert len(sides) > 4 and set(sides) == {(256, 256)}
    assert parts.shape == whole.shape == (1, 16, 24, 40)
    assert np.abs(parts - whole).mean() < 0.03 * np.abs(whole).mean()
    # what continues at the opposite edge is encoded so too: turned by half, it is the same turned by half
    seamless = made.tiled("x")
    turned = seamless.encode(np.roll(pixels, 320, axis=3))
    edge = np.abs(np.roll(turned, -20, axis=3) - seamless.encode(pixels))[..., [0, 1, -2, -1]]
    assert edge.mean() < 0.03 * np.abs(whole).mean()


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
