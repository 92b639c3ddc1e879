"""The loop on a model with a closed form: what is drawn, at which size, from which noise, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import chashka
from chashka import images
from chashka.diffusion import SAMPLERS
from chashka.errors import EngineError, InputError
from chashka.generate import draw, frame_for, generate
from chashka.generate.loop import complete
from chashka.request import Inputs, Request
from toy_model import SPREAD, ToyCodec, ToyNetwork, colour, toy_bundle


def rgba(text: str) -> Any:
    return np.rint((colour(text) + 1) * 127.5)


def noise_picture(height: int = 100, width: int = 150) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)


def half_mask(height: int, width: int) -> Any:
    mask = np.zeros((height, width), np.float32)
    mask[:, width // 2 :] = 1
    return mask


# --- text to picture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_finds_the_colour_of_the_text(sampler: str) -> None:
    bundle = toy_bundle()
    (picture,) = draw(bundle, bundle.request(prompt="чашка", seed=1, sampler=sampler, steps=12))
    assert picture.pixels.shape == (256, 256, 4)
    # opaque is the toy's edge, so that half of its alpha is clipped: look at the colour as it stands on black
    seen = images.flatten(picture.pixels, (0, 0, 0)).mean((0, 1))
    assert np.abs(seen - rgba("чашка")[:3]).max() < 6


def test_the_spread_is_that_of_the_data() -> None:
    bundle = toy_bundle()
    pixels = draw(bundle, bundle.request(prompt="чашка", seed=1, sampler="ddpm", steps=60))[0].pixels[::16, ::16, 0]
    assert 0.7 < pixels.std() / (SPREAD * 127.5) < 1.3


def test_same_request_same_picture_and_pictures_do_not_depend_on_their_neighbours() -> None:
    bundle = toy_bundle()
    six = draw(bundle, bundle.request(prompt="кот", seed=5, n=6, eta=0.5))
    again = draw(toy_bundle(rows=5), bundle.request(prompt="кот", seed=5, n=6, eta=0.5))
    alone = draw(bundle, bundle.request(prompt="кот", seed=5, n=1, first=4, eta=0.5))
    assert [p.index for p in six] == [0, 1, 2, 3, 4, 5] and alone[0].index == 4
    for left, right in zip([*six, six[4]], [*again, *alone], strict=True):
        assert np.array_equal(left.pixels, right.pixels)
    assert not np.array_equal(six[0].pixels, six[1].pixels)


def test_rows_are_drawn_in_batches_and_guidance_doubles_them() -> None:
    bundle = toy_bundle()
    network = bundle.denoiser.network
    assert isinstance(network, ToyNetwork)
    draw(bundle, bundle.request(prompt="кот", seed=1, n=6, steps=2, guidance_scale=3))
    assert network.rows == [8, 8, 4, 4]
    network.rows.clear()
    draw(bundle, bundle.request(prompt="кот", seed=1, n=6, steps=2, guidance_scale=1))
    assert network.rows == [4, 4, 2, 2]


def test_guidance_only_inside_its_part_of_the_steps() -> None:
    bundle = toy_bundle()
    network = bundle.denoiser.network
    assert isinstance(network, ToyNetwork)
    fields = {"prompt": "кот", "seed": 1, "steps": 8, "guidance_scale": 3}
    draw(bundle, bundle.request(**fields, guidance_start=0.25, guidance_stop=0.75))
    assert network.rows == [1, 1, 2, 2, 2, 2, 1, 1]
    network.rows.clear()
    draw(bundle, bundle.request(**fields, guidance_start=0.9, guidance_stop=0.95))
    assert network.rows == [1] * 8


def test_guidance_moves_away_from_the_negative_prompt() -> None:
    bundle = toy_bundle()
    fields = {"prompt": "кот", "seed": 1, "guidance_scale": 1.5}
    expected = 1.5 * colour("кот") - 0.5 * colour("собака")
    (picture,) = draw(bundle, bundle.request(**fields, negative_prompt="собака"))
    seen = images.flatten(picture.pixels, (0, 0, 0)).mean((0, 1)) / 127.5 - 1
    assert np.abs(seen - expected[:3]).max() < 0.08


@pytest.mark.parametrize("kind", ["dynamic_threshold", "clip_denoised"])
def test_thresholds_bound_what_guidance_overdoes(kind: str) -> None:
    bundle = toy_bundle()
    seen = []

    def look(progress: Any) -> None:
        seen.append(float(np.abs(progress.step.denoised).max()))

    fields = {"prompt": "кот", "seed": 1, "guidance_scale": 40}
    draw(bundle, bundle.request(**fields), on_step=look)
    assert max(seen) > 1.5
    seen.clear()
    draw(bundle, bundle.request(**fields, denoised_type=kind), on_step=look)
    assert max(seen) <= 1 + 1e-6


def test_progress_counts_all_batches_and_leaving_the_loop_stops() -> None:
    bundle = toy_bundle()
    request = bundle.request(prompt="кот", seed=1, n=6, steps=3)
    run = generate(bundle, request)
    seen = [(p.done, p.total, p.first, len(p.step.x)) for p in run]
    assert seen == [(1, 6, 0, 4), (2, 6, 0, 4), (3, 6, 0, 4), (4, 6, 4, 2), (5, 6, 4, 2), (6, 6, 4, 2)]
    network = bundle.denoiser.network
    assert isinstance(network, ToyNetwork)
    network.rows.clear()
    run = generate(bundle, request)
    next(run)
    run.close()
    assert len(network.rows) == 1


def test_an_exception_of_the_watcher_ends_the_run() -> None:
    class EnoughError(Exception):
        pass

    def stop(_: Any) -> None:
        raise EnoughError

    bundle = toy_bundle()
    with pytest.raises(EnoughError):
        draw(bundle, bundle.request(prompt="кот", seed=1), on_step=stop)


def test_what_is_stored_is_what_was_used() -> None:
    bundle = toy_bundle()
    (picture,) = draw(bundle, Request(prompt="кот", seed=3, sampler="DPM++ 2M"))
    request = picture.request
    assert (request.steps, request.sampler, request.guidance_scale) == (8, "dpmpp_2m", 1.0)
    assert request.strength is None and not picture.edited
    assert (picture.model, picture.family, picture.seed) == ("toy-plain", "toy", 3)
    again = draw(bundle, bundle.family.options.of(images.describe(picture)["request"]))
    assert np.array_equal(again[0].pixels, picture.pixels)


def test_notes_say_what_was_not_done_as_asked() -> None:
    bundle = toy_bundle()
    words = " ".join("abcdefghij")
    (picture,) = draw(bundle, bundle.request(prompt=words, seed=1, sampler="dpmpp_2m", eta=0.3))
    assert any("10 tokens" in note and "first 8" in note for note in picture.notes)
    assert any("eta has no effect" in note and "dpmpp_2m" in note for note in picture.notes)
    assert draw(bundle, bundle.request(prompt="кот", seed=1))[0].notes == ()


def test_a_background_makes_it_opaque() -> None:
    bundle = toy_bundle()
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, background="#ffffff"))
    assert picture.pixels.shape == (256, 256, 3)
    assert picture.image().mode == "RGB"


@pytest.mark.parametrize("steps", [1, 2, 999, 1000])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_the_ends_of_the_range_of_steps(steps: int, sampler: str) -> None:
    bundle = toy_bundle()
    run = generate(bundle, bundle.request(prompt="кот", seed=1, steps=steps, sampler=sampler, width=64, height=64))
    assert steps - 1 <= len(list(run)) <= steps


# --- drafts -------------------------------------------------------------------------------------------------------------


def test_a_draft_is_drawn_with_the_models_quick_settings() -> None:
    bundle = toy_bundle()
    network = bundle.denoiser.network
    assert isinstance(network, ToyNetwork)
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, fast=True))
    assert len(network.rows) == 3 and picture.notes == ()
    request = picture.request
    assert (request.fast, request.steps, request.sampler, request.guidance_scale) == (True, 3, "euler", 1.0)
    (again,) = draw(bundle, Request.of({**request.model_dump(include=set(Request.model_fields))}))
    assert np.array_equal(again.pixels, picture.pixels)
    network.rows.clear()
    draw(bundle, bundle.request(prompt="кот", seed=1, fast=True, steps=5))  # what is said counts
    assert len(network.rows) == 5


def test_a_model_without_quick_settings_says_so() -> None:
    bundle = replace(toy_bundle(), fast={})
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, fast=True))
    assert picture.request.steps == 8 and "names no quick settings" in picture.notes[0]


# --- sizes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "size", "note"),
    [
        ({}, (256, 256), None),
        ({"width": 256}, (256, 256), None),
        ({"width": 250, "height": 250}, (250, 250), "drawn at 256x256"),
        ({"width": 512, "height": 512}, (512, 512), "enlarged to 512x512"),
        ({"width": 64}, (64, 64), "reduced to 64x64"),
        ({"width": 384, "height": 192}, (384, 192), None),
        ({"width": 2048, "height": 64}, (2048, 64), "drawn at 1280x64"),
        ({"width": 77, "height": 2047}, (77, 2047), "drawn at 64x1280"),
    ],
)
def test_the_result_has_exactly_the_asked_size(fields: dict[str, int], size: tuple[int, int], note: str | None) -> None:
    bundle = toy_bundle()
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, steps=2, **fields))
    assert picture.size == size
    assert (note is None) == (picture.notes == ())
    assert note is None or note in picture.notes[0]


# --- from a picture -----------------------------------------------------------------------------------------------------


def test_strength_without_a_picture_is_said_to_do_nothing() -> None:
    bundle = toy_bundle()
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, strength=0.5))
    assert "strength does nothing without a picture to start from (init)" in picture.notes
    assert picture.request.strength is None


def test_strength_0_is_the_picture_encoded_and_decoded() -> None:
    bundle = toy_bundle()
    init = np.full((256, 256, 4), 200, np.uint8)
    init[..., 3] = 255
    init[:128] = (10, 20, 30, 255)
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, strength=0), Inputs(init))
    assert np.array_equal(picture.pixels, init)
    assert picture.edited and picture.request.strength == 0


def test_strength_1_does_not_see_the_picture() -> None:
    bundle = toy_bundle()
    request = bundle.request(prompt="кот", seed=1, strength=1)
    first, second = (draw(bundle, request, Inputs(np.full((256, 256, 4), v, np.uint8)))[0] for v in (0, 255))
    plain = draw(bundle, bundle.request(prompt="кот", seed=1))[0]
    assert np.array_equal(first.pixels, second.pixels) and np.array_equal(first.pixels, plain.pixels)


def test_strength_decides_how_many_steps_are_run() -> None:
    bundle = toy_bundle()
    inputs = Inputs(noise_picture())
    for strength, steps in ((0, 0), (0.01, 1), (0.3, 3), (0.7, 7), (None, 7), (1, 10)):
        request = bundle.request(prompt="кот", seed=1, strength=strength, steps=10)
        assert len(list(generate(bundle, request, inputs))) == steps


def test_without_a_size_the_picture_decides() -> None:
    bundle = toy_bundle()
    for shape, size in (((100, 150), (150, 100)), ((33, 40), (64, 64)), ((80, 4096), (2048, 64))):
        (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1, steps=1), Inputs(noise_picture(*shape)))
        assert picture.size == size
        assert bool(picture.notes) == ((shape[1], shape[0]) != size)


# --- with a mask --------------------------------------------------------------------------------------------------------


def test_what_is_black_is_kept_exactly() -> None:
    bundle = toy_bundle()
    init, mask = noise_picture(100, 150), half_mask(100, 150)
    for picture in draw(bundle, bundle.request(prompt="кот", seed=1, n=2), Inputs(init, mask)):
        assert np.array_equal(picture.pixels[:, :75], init[:, :75])
        drawn = images.flatten(picture.pixels[:, 75:], (0, 0, 0)).mean((0, 1))
        assert np.abs(drawn - rgba("кот")[:3]).max() < 8
        assert picture.request.strength == 1 and picture.edited


def test_a_soft_mask_mixes() -> None:
    bundle = toy_bundle()
    init = np.zeros((256, 256, 4), np.uint8)
    init[..., 3] = 255
    mask = np.full((256, 256), 0.5, np.float32)
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1), Inputs(init, mask))
    assert np.all(picture.pixels[..., 3] == 255)
    # the denoised latents are mixed in every step, then once more in pixels
    assert 0 < picture.pixels[..., :3].mean() < rgba("кот")[:3].mean() / 2 + 10


def test_a_mask_of_another_size_is_noted() -> None:
    bundle = toy_bundle()
    init = noise_picture(100, 150)
    (picture,) = draw(bundle, bundle.request(prompt="кот", seed=1), Inputs(init, half_mask(40, 30)))
    assert "the mask was 30x40" in picture.notes[0]
    assert np.array_equal(picture.pixels[:, :70], init[:, :70])


def test_kept_pixels_are_exact_at_an_asked_size_too() -> None:
    bundle = toy_bundle()
    init = noise_picture(100, 100)
    request = bundle.request(prompt="кот", seed=1, width=300, height=200)
    (picture,) = draw(bundle, request, Inputs(init, half_mask(100, 100)))
    assert picture.size == (300, 200)
    assert np.array_equal(picture.pixels[:, :145], images.resize(init, 300, 200)[:, :145])


def test_a_mask_needs_a_picture() -> None:
    bundle = toy_bundle()
    with pytest.raises(InputError, match="no picture to repaint"):
        draw(bundle, bundle.request(prompt="кот", seed=1), Inputs(None, half_mask(8, 8)))


# --- refusals -----------------------------------------------------------------------------------------------------------


def test_a_seed_is_needed() -> None:
    bundle = toy_bundle()
    with pytest.raises(InputError, match="seed: missing"):
        draw(bundle, bundle.request(prompt="кот"))


def test_numbers_that_are_not_finite_are_never_saved() -> None:
    bundle = toy_bundle()

    class Broken(ToyNetwork):
        def __call__(self, x: Any, t: Any, cond: Any) -> Any:
            return np.full_like(x, np.nan)

    broken = replace(bundle, denoiser=replace(bundle.denoiser, network=Broken()))
    request = bundle.request(prompt="кот", seed=1)
    with pytest.raises(
        EngineError, match=r"step 1 of 8 gave numbers that are not finite, with numpy; its weights are sound"
    ):
        draw(broken, request)
    (again,) = draw(replace(broken, exact=lambda: bundle), request)
    (plain,) = draw(bundle, request)
    assert np.array_equal(again.pixels, plain.pixels), "once more in float32"
    assert again.notes == (
        "step 1 of 8 gave numbers that are not finite with numpy: drawn again in float32, as --precision f32 does at once",
    )
    with pytest.raises(EngineError, match="not finite"):
        draw(replace(broken, exact=lambda: broken), request)


def test_a_decoder_that_fails_is_no_black_picture() -> None:
    class Dark(ToyCodec):
        def decode(self, x: Any) -> Any:
            return np.full_like(super().decode(x), np.inf)

    bundle = toy_bundle()
    with pytest.raises(EngineError, match="decoding gave numbers that are not finite"):
        draw(replace(bundle, codec=Dark()), bundle.request(prompt="кот", seed=1))


def test_a_family_checks_fields_of_a_plain_request() -> None:
    bundle = toy_bundle()
    with pytest.raises(InputError, match="sampler 'nothing' does not exist"):
        draw(bundle, Request(prompt="кот", seed=1, sampler="nothing"))


def test_a_plain_request_may_name_its_sampler_as_a1111_does() -> None:
    bundle = toy_bundle()
    asked = Request(prompt="кот", seed=1, n=1, sampler="DPM++ 2M Karras", fast=True)
    quick = replace(bundle, fast={"spacing": "exponential", "steps": 3})
    request = complete(quick, asked)
    assert (request.sampler, request.spacing, request.steps) == ("dpmpp_2m", "karras", 3)
    assert complete(replace(bundle, family=replace(bundle.family, options=Request)), asked).spacing == "karras"


def test_public_names() -> None:
    for name in chashka.__all__:
        assert getattr(chashka, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'cup'"):
        _ = chashka.cup  # type: ignore[attr-defined]
    assert set(chashka.__all__) <= set(dir(chashka))


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ((512, 512), (256, 256)),
        ((640, 512), (320, 256)),
        ((1024, 768), (256, 192)),
        ((768, 1024), (192, 256)),
        ((1500, 1000), (320, 192)),
        ((1920, 1080), (320, 192)),
        ((1080, 1920), (192, 320)),
        ((1200, 600), (384, 192)),
        ((2048, 64), (1280, 64)),
    ],
)
def test_what_is_drawn_has_nearly_the_shape_that_was_asked_for(asked: tuple[int, int], drawn: tuple[int, int]) -> None:
    bundle = toy_bundle()
    bundle = replace(bundle, preset=replace(bundle.preset, area=256 * 256, multiple=64))
    frame = frame_for(bundle, bundle.request(prompt="кот", seed=1, width=asked[0], height=asked[1]), Inputs())
    assert (frame.drawn, frame.final) == (drawn, asked)
    if asked[0] < 8 * asked[1]:
        assert 0.87 < drawn[0] / drawn[1] / (asked[0] / asked[1]) < 1.15
