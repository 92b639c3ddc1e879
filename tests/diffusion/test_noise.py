"""Noise is part of the picture: these numbers must never change."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chashka.diffusion import START, PictureNoise, picture_noise
from chashka.diffusion.noise import box_muller
from chashka.errors import InputError

VECTORS: dict[tuple[int, int, int, int], list[str]] = {
    (0, 0, -1, 0): [
        "0x1.44ad640000000p-3",
        "0x1.7dcefe0000000p+1",
        "-0x1.ecfa260000000p+0",
        "-0x1.a65ca40000000p-1",
        "-0x1.9eba0a0000000p-3",
    ],
    (0, 0, 0, 0): [
        "0x1.bada8a0000000p-1",
        "0x1.7597a80000000p-2",
        "-0x1.16356a0000000p+0",
        "0x1.bf62da0000000p+0",
        "-0x1.91f5c80000000p-1",
    ],
    (7, 0, -1, 0): [
        "-0x1.2d51680000000p-3",
        "0x1.0114d80000000p-1",
        "-0x1.1752660000000p+0",
        "0x1.79a5020000000p-1",
        "-0x1.780b840000000p-1",
    ],
    (7, 1, -1, 0): [
        "-0x1.77dd900000000p-2",
        "0x1.ed0aaa0000000p-2",
        "-0x1.1b8ad40000000p+1",
        "0x1.544e460000000p-4",
        "0x1.b3873e0000000p-2",
    ],
    (7, 3, 12, 0): [
        "-0x1.0f7cda0000000p+1",
        "0x1.c80aea0000000p-1",
        "0x1.dad3620000000p-4",
        "-0x1.0c8df40000000p-4",
        "-0x1.adb8ec0000000p-1",
    ],
    (7, 3, 12, 1): [
        "0x1.b5f13a0000000p+0",
        "0x1.d5ab240000000p+0",
        "-0x1.92fea60000000p-1",
        "-0x1.9b11260000000p-1",
        "-0x1.3c939e0000000p-2",
    ],
    (18446744073709551615, 1000, 49, 2): [
        "0x1.afc6b60000000p+0",
        "0x1.0bbb540000000p+0",
        "0x1.36bb800000000p-2",
        "0x1.b529660000000p-1",
        "-0x1.501cd60000000p-1",
    ],
}


def hexes(values: np.ndarray) -> list[str]:
    return [float(v).hex() for v in values]


@pytest.mark.parametrize(("where", "expected"), VECTORS.items())
def test_vectors(where: tuple[int, int, int, int], expected: list[str]) -> None:
    """(seed, picture, step, draw) → the first numbers, bit for bit."""
    assert hexes(picture_noise(*where, (5,))) == expected


def test_philox_is_the_published_one() -> None:
    """Known answer of Philox4x64-10 for key 0 and counter 0 (Random123's kat_vectors); numpy counts before it draws."""
    full = np.uint64(2**64 - 1)
    bits = np.random.Philox(key=np.zeros(2, np.uint64), counter=np.full(4, full)).random_raw(4)
    assert [hex(int(b)) for b in bits] == [
        "0x16554d9eca36314c",
        "0xdb20fe9d672d0fdc",
        "0xd7e772cee186176b",
        "0x7e68b68aec7ba23b",
    ]


def test_a_row_depends_on_its_seed_and_number_only() -> None:
    four = PictureNoise([7, 7, 9, 7], (2, 3, 3))
    assert np.array_equal(four(5)[2:], PictureNoise([9, 7], (2, 3, 3), first_picture=2)(5))
    assert np.array_equal(four(START)[0], picture_noise(7, 0, -1, 0, (2, 3, 3)))
    assert np.array_equal(four.start(), four(-1))
    assert four(0).dtype == np.float32 and four(0).shape == (4, 2, 3, 3)
    assert PictureNoise([], (2, 2))(0).shape == (0, 2, 2)


def test_odd_sizes_are_a_prefix() -> None:
    assert np.array_equal(picture_noise(1, 0, 0, 0, (7,)), picture_noise(1, 0, 0, 0, (8,))[:7])
    assert picture_noise(1, 0, 0, 0, ()).shape == ()


def test_streams_do_not_overlap() -> None:
    """Neighbouring pictures, steps, draws and seeds share no number (a counter in the wrong word would)."""
    streams = [
        picture_noise(seed, picture, step, draw, (400,))
        for seed in (0, 1)
        for picture in (0, 1, 2)
        for step in (-1, 0, 1)
        for draw in (0, 1)
    ]
    together = np.concatenate(streams)
    assert len(np.unique(together)) > len(together) - 3  # two equal float32 by chance are possible, no more
    table = np.corrcoef(np.stack(streams))
    assert np.abs(table - np.eye(len(streams))).max() < 0.25


def test_the_numbers_are_normal() -> None:
    x = picture_noise(11, 0, 0, 0, (200_000,)).astype(np.float64)
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.006
    assert abs((x**3).mean()) < 0.03 and abs((x**4).mean() - 3) < 0.06
    below = np.searchsorted(np.sort(x), [-2.0, -1.0, 0.0, 1.0, 2.0]) / x.size
    expected = [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in (-2, -1, 0, 1, 2)]
    assert np.abs(below - expected).max() < 0.004
    assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 0.012


def test_box_muller_agrees_with_the_library_functions() -> None:
    bits = np.random.Philox(key=5).random_raw(20_000)
    ends = np.array([0, 0, 2**64 - 1, 2**64 - 1, 2**63, 2**61, 2**10, 2**62, 2**63 - 1, 2**63], dtype=np.uint64)
    bits = np.concatenate([bits, ends])
    high = (bits >> np.uint64(11)).astype(np.float64)
    u, v = (high[0::2] + 1) * 2.0**-53, high[1::2] * 2.0**-53
    radius = np.sqrt(-2 * np.log(u))
    expected = np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)], axis=1).reshape(-1)
    result = box_muller(bits)
    assert np.isfinite(result).all()
    assert np.abs(result - expected).max() < 1e-14


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True, "7"])
def test_bad_seeds(seed: object) -> None:
    with pytest.raises(InputError, match="seed"):
        PictureNoise([seed], (1,))  # type: ignore[list-item]


def test_other_bad_numbers() -> None:
    with pytest.raises(InputError, match="first_picture"):
        PictureNoise([1], (1,), first_picture=-1)
    assert np.isfinite(PictureNoise([2**64 - 1, np.int64(3)], (4,))(1000, 3)).all()
