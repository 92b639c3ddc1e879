"""Drawing with the published Kandinsky 2.0: samplers, engines, what our interface mends, the import name of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published_model import opened, tiny

from chashka import families, generate
from chashka.diffusion import SAMPLERS
from chashka.errors import InputError
from chashka.families import Bundle, EngineChoice
from chashka.families.kandinsky import INPAINTING_20, PUBLISHED
from chashka.request import Inputs

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("sampler", [*SAMPLERS, "p_sampler"])
def test_every_sampler_draws(sampler: str, published_bundle: Bundle) -> None:
    """Steps as asked (ddim's and plms' spacing is the original's: 7 asked, 8 run), pictures that their neighbours do not change."""
    steps: list[int] = []
    request = published_bundle.request(
        prompt="кот", negative_prompt="пёс", seed=5, n=2, steps=7, sampler=sampler, width=64, height=64
    )
    both = generate.draw(published_bundle, request, on_step=lambda p: steps.append(p.step.index))
    assert len(steps) == (8 if sampler in ("ddim", "plms") else 7)
    alone = generate.draw(published_bundle, request.with_fields(n=1, first=1))[0]
    off = np.abs(both[1].pixels.astype(int) - alone.pixels.astype(int))
    assert off.max() <= 1
    assert np.abs(both[0].pixels.astype(int) - both[1].pixels.astype(int)).max() > 10


@pytest.mark.parametrize("task", ["text", "picture", "mask"])
def test_both_engines_draw_the_same(task: str, published: Path, recorded_words: None, tmp_path: Path) -> None:
    preset = tiny(PUBLISHED if task != "mask" else INPAINTING_20, published)
    random = np.random.default_rng(2)
    picture = np.dstack([random.integers(0, 256, (70, 90, 3), np.uint8), np.full((70, 90), 255, np.uint8)])
    white = np.zeros((70, 90), np.float32)
    white[:40] = 1
    inputs = {"text": None, "picture": Inputs(picture), "mask": Inputs(picture, white)}[task]
    drawn = []
    for engine in ("torch", "openvino", "openvino"):  # the second time the conversion is there already
        bundle = preset.open(preset, EngineChoice(engine, precision="f32", cache_dir=tmp_path))
        request = bundle.request(prompt="кот", seed=5, steps=4, guidance_scale=3, width=90, height=70)
        drawn.append(generate.draw(bundle, request, inputs)[0].pixels.astype(int))
    assert drawn[0].shape == (70, 90, 4)
    # OpenVINO's weights are float16; a threshold and four steps make more of that than one call does
    assert np.mean(np.abs(drawn[0] - drawn[1]) <= 2) > 0.99
    assert np.array_equal(drawn[1], drawn[2])
    if task == "mask":
        assert np.array_equal(drawn[0][40:], picture[40:])


def test_our_own_interface_mends_the_mistakes(published_bundle: Bundle) -> None:
    """Pictures of any size, in batches, with any strength, each by its own percentile."""
    random = np.random.default_rng(1)
    picture = np.dstack([random.integers(0, 256, (90, 140, 3), np.uint8), np.full((90, 140), 255, np.uint8)])
    request = published_bundle.request(prompt="кот", seed=1, n=2, steps=5, strength=0.01)
    pictures = generate.draw(published_bundle, request, Inputs(picture))
    assert [p.size for p in pictures] == [(140, 90)] * 2
    whole = generate.draw(published_bundle, request.with_fields(strength=1.0), Inputs(picture))
    assert not np.array_equal(whole[0].pixels, pictures[0].pixels)
    with pytest.raises(InputError, match=r"strength: 0.01 of 5 steps leaves none"):
        generate.draw(published_bundle, request.with_fields(compat="original"), Inputs(picture))
    with pytest.raises(InputError, match="cannot mix"):
        generate.draw(published_bundle, published_bundle.request(prompt="", seed=1, mix=[{"text": "кот", "weight": 1}]))


def test_pictures_tell_how_they_were_drawn(published_bundle: Bundle) -> None:
    (picture,) = generate.draw(
        published_bundle, published_bundle.request(prompt="кот", seed=1, steps=2, width=64, height=64)
    )
    assert (picture.model, picture.request.sampler, picture.request.denoised_type) == (
        "kandinsky-2.0",
        "ddim",
        "dynamic_threshold",
    )


def test_odd_counts_of_steps(published_bundle: Bundle) -> None:
    """Three steps are asked: t = 1, 334, 667; the original's fourth, 1000, does not exist and is dropped."""
    steps: list[int] = []
    request = published_bundle.request(prompt="кот", seed=1, steps=3, width=64, height=64)
    generate.draw(published_bundle, request, on_step=lambda p: steps.append(p.total))
    assert steps == [3, 3, 3]


def test_words_are_cut_at_77_tokens(published: Path) -> None:
    text = opened(PUBLISHED, published).text
    assert text.meter("").used == 0
    meter = text.meter("космос внутри чайной чашки " * 30)
    assert meter.limit in (75, 76) and meter.used == meter.limit and meter.cut > 0
    rows = text.encode(["космос", "кот на столе", ""])
    assert rows["tokens"].shape == (3, 154, 48) and rows["added"].shape == (3, 128)
    again = text.encode(["кот на столе"])
    assert np.allclose(again["tokens"][0], rows["tokens"][1], atol=1e-5)


@pytest.mark.parametrize("task", ["text2img", "img2img", "inpainting"])
def test_the_import_name_of_the_paper_opens_it(
    task: str, published: Path, recorded_words: None, recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found in ``cache_dir``; asked for the numbers of 2022."""
    import chashka
    import kandinsky2.opening
    from kandinsky2 import get_kandinsky2

    opened: list[Any] = []

    def load(name: str, *, models: Path, **choice: Any) -> Bundle:
        preset = families.located(name, tiny(families.find(name)[1], None), models)
        opened.append((name, preset.folder, choice))
        return preset.open(preset, EngineChoice("torch"))

    asked: list[Any] = []

    def draw(bundle: Bundle, request: Any, inputs: Any = None, on_step: Any = None) -> Any:
        asked.append((request, inputs))
        return real(bundle, request.with_fields(steps=6), inputs, on_step)

    real = generate.draw
    monkeypatch.setattr(chashka, "load", load, raising=False)
    monkeypatch.setattr(generate, "draw", draw)
    monkeypatch.setattr(kandinsky2.opening, "_warned", set())
    model = get_kandinsky2("cpu", task_type=task, cache_dir=str(published.parent))
    assert model.published
    picture = Image.fromarray(recorded["pil_input"])
    shared: dict[str, Any] = {"num_steps": 50, "progress": False, "seed": 3}
    if task == "text2img":
        images: Any = model.generate_text2img("кот", batch_size=5, h=70, w=100, **shared)
    elif task == "img2img":
        images = model.generate_img2img("кот", picture, strength=0.8, **shared)
        assert asked[0][0].strength == 1 - 0.8
    else:
        mask = np.ones((100, 60), np.float32)
        mask[50:] = 0
        images = model.generate_inpainting("кот", picture, mask, **shared)
        white = asked[0][1].mask
        assert white.shape == (512, 512) and set(np.unique(white)) == {0, 1} and white[:256].max() == 0
    assert asked[0][0].compat == "original" and asked[0][0].sampler == "ddim"
    assert [image.size for image in images] == ([(100, 70)] * 5 if task == "text2img" else [(512, 512)])
    assert opened == [(kandinsky2.opening.NAMES[task].format("2.0"), published, {"engine": "torch", "device": "cpu"})]
