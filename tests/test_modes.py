"""Ways of drawing (docs/modes.md) on a model with a closed form: variations, parts of pictures, second passes, soft masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chashka.diffusion import PictureNoise, VariedNoise
from chashka.errors import InputError
from chashka.families import Bundle
from chashka.generate import draw, frame_for, generate
from chashka.generate.frames import brought, fitted
from chashka.generate.regions import part_of
from chashka.request import Inputs
from toy_model import colour, toy_bundle

GIVEN = np.random.default_rng(0).integers(0, 256, (300, 400, 4), dtype=np.uint8)
GIVEN[..., 3] = 255


def free_bundle() -> Bundle:
    """One that draws any size, as Stable Diffusion does."""
    bundle = toy_bundle()
    return replace(bundle, preset=replace(bundle.preset, free=64))


def square_mask(left: int, top: int, side: int, height: int = 300, width: int = 400) -> Any:
    mask = np.zeros((height, width), np.float32)
    mask[top : top + side, left : left + side] = 1
    return mask


# --- variations ---------------------------------------------------------------------------------------------------------


def drawn(**fields: Any) -> list[np.ndarray]:
    bundle = toy_bundle()
    return [p.pixels for p in draw(bundle, bundle.request(prompt="кот", steps=30, sampler="ddim", **fields))]


def test_a_variation_of_nothing_is_the_picture_and_of_all_begins_like_the_other() -> None:
    base = drawn(seed=5, n=3)
    same = drawn(seed=5, n=1, subseed=9, subseed_strength=1e-9, subseed_of=2)
    assert np.abs(same[0].astype(int) - base[2]).max() <= 1
    varied = PictureNoise([9, 9], (4, 8, 8), 3)
    turned = VariedNoise(5, 2, lambda shape: PictureNoise([9, 9], shape, 3), 1.0, (4, 8, 8))
    assert np.allclose(turned.start(), varied.start(), atol=1e-6)
    # what a sampler adds later is the varied picture's own
    assert np.array_equal(turned(3)[0], PictureNoise([5], (4, 8, 8), 2)(3)[0])


def test_variations_move_away_evenly_and_stay_unit_noise() -> None:
    def noise(share: float) -> np.ndarray:
        return VariedNoise(5, 0, lambda shape: PictureNoise([9] * 4, shape), share, (4, 32, 32)).start()

    rows = [noise(share).reshape(4, -1) for share in (0, 0.25, 0.5, 0.75, 1)]
    cosines = [float((row * rows[0]).sum() / np.linalg.norm(row) / np.linalg.norm(rows[0])) for row in rows]
    assert all(0.97 < row.std() < 1.03 for row in rows)
    assert cosines[0] == pytest.approx(1)
    angles = np.arccos(np.clip(cosines, -1, 1))
    assert np.allclose(np.diff(angles), angles[-1] / 4, atol=0.01)
    assert len({rows[2][i].tobytes() for i in range(4)}) == 4


def test_variations_do_not_depend_on_their_neighbours() -> None:
    fields: dict[str, Any] = {"seed": 5, "subseed": 9, "subseed_strength": 0.3}
    six = drawn(n=6, **fields)
    assert np.array_equal(drawn(n=1, first=4, **fields)[0], six[4])
    assert (six[0] != six[1]).any()
    with pytest.raises(InputError, match=r"subseed: missing; allowed: a whole number .* with subseed_strength"):
        drawn(seed=5, subseed_strength=0.3)


def test_names_of_strengths() -> None:
    bundle = toy_bundle()
    assert bundle.request(prompt="a", strength=" Subtle ").strength == 0.5
    assert bundle.request(prompt="a", strength="strong", hires_strength="0.25").hires_strength == 0.25
    with pytest.raises(
        InputError, match="strength: 'much' is not possible; allowed: a number from 0 to 1, subtle or strong"
    ):
        bundle.request(prompt="a", strength="much")


# --- masks --------------------------------------------------------------------------------------------------------------


def test_a_part_alone_is_drawn_as_large_as_the_model_draws() -> None:
    """The rest is the given picture, pixel by pixel; the part is the text's colour, with 16 times as many latents."""
    mask = square_mask(200, 100, 64)
    bundle = toy_bundle()
    request = bundle.request(prompt="кот", seed=1, steps=12, only_masked=True, mask_padding=0)
    shapes = set()
    run = generate(bundle, request, Inputs(GIVEN, mask))
    while True:
        try:
            shapes.add(next(run).step.x.shape)
        except StopIteration as finished:
            (picture,) = finished.value
            break
    assert shapes == {(1, 4, 16, 16)}
    assert picture.size == (400, 300)
    assert np.array_equal(picture.pixels[mask == 0], GIVEN[mask == 0])
    inside = picture.pixels[110:154, 210:254].mean((0, 1))
    assert np.abs(inside[:3] - np.rint((colour("кот")[:3] + 1) * 127.5)).max() < 8
    assert (picture.request.only_masked, picture.request.strength, picture.request.width) == (True, 1.0, None)
    assert [source.use for source in picture.sources] == ["init", "mask"] and picture.edited


@pytest.mark.parametrize(
    ("bounds", "padding", "size", "part"),
    [
        ((200, 100, 64), 0, (512, 512), (200, 100, 64, 64)),
        ((200, 100, 64), 20, (512, 512), (180, 80, 104, 104)),
        ((200, 100, 64), 0, (1024, 512), (168, 100, 128, 64)),  # grown to the shape that is drawn
        ((0, 0, 64), 0, (1024, 512), (0, 0, 128, 64)),  # at a corner: to the other side
        ((380, 280, 20), 30, (512, 512), (350, 250, 50, 50)),
        ((0, 0, 300), 50, (512, 512), (0, 0, 350, 300)),  # no more rows than there are
        ((0, 0, 0), 10, (512, 512), (0, 0, 400, 300)),  # nothing is masked
    ],
)
def test_what_is_cut_out(bounds: Any, padding: int, size: Any, part: Any) -> None:
    found = part_of(square_mask(*bounds), padding, toy_bundle().preset, size)
    assert (found.left, found.top, found.width, found.height) == part
    assert found.drawn == size


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, (64, 1024)),  # a strip is drawn no longer than a side may be
        ({"width": 320}, (320, 320)),  # one side alone means a square, as everywhere
        ({"height": 192}, (192, 192)),
    ],
)
def test_a_strip_alone(fields: dict[str, Any], shape: tuple[int, int]) -> None:
    bundle = free_bundle()
    bundle = replace(bundle, preset=replace(bundle.preset, multiple=16))
    given = np.full((40, 1600, 4), 255, np.uint8)
    mask = np.ones((40, 1600), np.float32)
    request = bundle.request(prompt="кот", seed=1, steps=2, only_masked=True, **fields)
    run = generate(bundle, request, Inputs(given, mask))
    drawn = next(run).step.x.shape[2:]
    assert (16 * drawn[0], 16 * drawn[1]) == shape
    (picture,) = draw(bundle, request, Inputs(given, mask))
    assert picture.size == (1600, 40) and (picture.pixels != 255).any()


def test_a_blurred_mask_fades() -> None:
    bundle = toy_bundle()
    mask = square_mask(100, 100, 100)
    hard, soft = (
        draw(bundle, bundle.request(prompt="кот", seed=1, mask_blur=blur), Inputs(GIVEN, mask))[0].pixels
        for blur in (0, 8)
    )
    assert np.array_equal(soft[:60], GIVEN[:60]) and (soft[110:190, 110:190] != GIVEN[110:190, 110:190]).any()
    outside = np.s_[94:99, 120:180]
    assert np.array_equal(hard[outside], GIVEN[outside]) and (soft[outside] != GIVEN[outside]).any()
    part = bundle.request(prompt="кот", seed=1, mask_blur=8, only_masked=True)
    alone = draw(bundle, part, Inputs(GIVEN, mask))[0].pixels
    assert np.array_equal(alone[:60], GIVEN[:60]) and (alone[outside] != GIVEN[outside]).any()


def test_a_part_needs_a_mask() -> None:
    bundle = toy_bundle()
    with pytest.raises(InputError, match="only_masked: there is no mask"):
        draw(bundle, bundle.request(prompt="кот", seed=1, only_masked=True), Inputs(GIVEN))


# --- a second pass ------------------------------------------------------------------------------------------------------


def test_a_second_pass_draws_over_the_enlarged_picture() -> None:
    bundle = free_bundle()
    fields: dict[str, Any] = {"prompt": "кот", "seed": 1, "n": 5, "steps": 8, "width": 128, "height": 192}
    request = bundle.request(**fields, hires_scale=2.5, hires_steps=6)
    counts = []
    run = generate(bundle, request)
    while True:
        try:
            progress = next(run)
            counts.append((progress.done, progress.total, progress.step.x.shape[2:], progress.first))
        except StopIteration as finished:
            pictures = finished.value
            break
    # two batches of eight steps, then three of six steps for each picture
    assert [count[0] for count in counts] == list(range(1, 32))
    assert {count[1] for count in counts} == {31}
    assert [count[2] for count in counts[:16]] == [(12, 8)] * 16
    assert [count[2] for count in counts[16:]] == [(32, 20)] * 15
    assert [count[3] for count in counts[16::3]] == [0, 1, 2, 3, 4]
    assert [picture.size for picture in pictures] == [(320, 480)] * 5
    assert pictures[0].request == request.with_fields(strength=None) and not pictures[0].edited
    again = draw(bundle, request.with_fields(n=1, first=3))
    assert np.array_equal(again[0].pixels, pictures[3].pixels)
    # strength 0 is the enlarged picture itself
    plain = draw(bundle, bundle.request(**{**fields, "n": 1}))[0].pixels
    kept = draw(bundle, bundle.request(**{**fields, "n": 1}, hires_scale=2, hires_strength=0))[0].pixels
    assert np.abs(kept[8:-8:16, 8:-8:16].astype(int) - plain[4:-4:8, 4:-4:8]).max() < 40


def test_a_second_pass_knows_of_the_first_ones_steps() -> None:
    """So that what changes in the middle of both goes on."""
    bundle, plans = free_bundle(), []
    denoise = bundle.denoise

    def noted(of: Bundle, request: Any, plan: Any) -> Any:
        plans.append(plan)
        return denoise(of, request, plan)

    noting = replace(bundle, denoise=noted)
    said: dict[str, Any] = {"prompt": "кот", "seed": 1, "n": 5, "steps": 8, "width": 128}
    draw(noting, noting.request(**said, hires_scale=2, hires_steps=6, hires_strength=0.5))
    assert [(plan.first, plan.passed) for plan in plans] == [(0, None)] * 2 + [(3, 8)] * 5
    plans.clear()
    draw(noting, noting.request(**said, strength=0.25), Inputs(GIVEN))
    assert [(plan.first, plan.passed) for plan in plans] == [(6, None)] * 2


def test_a_second_pass_keeps_what_a_mask_keeps() -> None:
    bundle = free_bundle()
    given = np.full((128, 128, 4), 255, np.uint8)
    mask = square_mask(0, 0, 64, 128, 128)
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, hires_scale=2), Inputs(given, mask))
    assert picture.size == (256, 256)
    assert (picture.pixels[140:, 140:] == 255).all() and (picture.pixels[:100, :100] != 255).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"hires_scale": 3, "width": 1024},
            "3 times 1024x1024 is not possible; allowed: up to 2048 pixels a side",
        ),
        ({"hires_scale": 1}, "hires_scale: 1 is not possible; allowed: a number from 1 to 4"),
        ({"hires_scale": 2, "only_masked": True}, "hires_scale: not possible with only_masked"),
        ({"tiling": "z"}, "tiling: 'z' is not possible; allowed: x, y or xy"),
        ({"tiling": "x"}, "tiling: toy-plain cannot; leave it out"),
        ({"mask_padding": -1}, "mask_padding: -1 is not possible; allowed: a whole number of pixels from 0 to 512"),
    ],
)
def test_what_cannot_be(fields: dict[str, Any], message: str) -> None:
    bundle = free_bundle()
    with pytest.raises(InputError, match=message):
        draw(bundle, bundle.request(prompt="кот", seed=1, **fields), Inputs(GIVEN, square_mask(0, 0, 64)))


@pytest.mark.parametrize(
    ("asked", "axes", "free", "drawn", "kept"),
    [
        ((150, 100), "", True, (192, 128), (150, 100)),  # cut at the edges
        ((150, 100), "x", True, (128, 128), (128, 100)),  # nothing is cut where there is no edge
        ((150, 100), "y", True, (192, 128), (150, 128)),
        ((70, 100), "xy", True, (64, 128), (64, 128)),
        ((300, 200), "xy", False, (320, 192), (320, 192)),
    ],
)
def test_what_is_drawn_of_a_seamless_picture(
    asked: tuple[int, int], axes: str, free: bool, drawn: tuple[int, int], kept: tuple[int, int]
) -> None:
    bundle = free_bundle() if free else toy_bundle()
    width, height = asked
    request = bundle.request(prompt="кот", seed=1, width=width, height=height, tiling=axes or None)
    frame = frame_for(bundle, request, Inputs())
    assert (frame.drawn, frame.kept, frame.final) == (drawn, kept, asked)
    pixels = np.random.default_rng(0).integers(0, 256, (frame.drawn[1], frame.drawn[0], 4), np.uint8)
    out = brought(pixels, frame, given=False)
    assert out.shape[:2] == (height, width)
    if frame.kept == frame.final:
        assert np.array_equal(out, pixels[:height, :width])
    assert fitted(out, frame).shape == pixels.shape


def test_a_model_of_one_size_has_no_second_pass() -> None:
    bundle = toy_bundle()
    with pytest.raises(
        InputError, match="toy-plain draws at one size, so that a second pass adds nothing; chashka upscale"
    ):
        draw(bundle, bundle.request(prompt="кот", seed=1, hires_scale=2))
