"""The model inside the package, from text to files, with the weights that are shipped. Two steps a picture."""

from __future__ import annotations

import itertools
import re
import shutil
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chashka
import kandinsky2.opening
from chashka import families, images
from chashka.engines.openvino_engine import OpenVINOGraph
from chashka.errors import ChashkaError, WeightsError
from chashka.families.kandinsky import FAMILY, TEACUP
from chashka.generate import draw
from chashka.generate.loop import samplers
from chashka.request import Inputs


@pytest.fixture(scope="module")
def bundle() -> families.Bundle:
    """One bundle for all tests, in float32, so that no self-test is needed."""
    return families.load(precision="f32", threads=1)


def test_the_metadata_are_complete_and_sane(bundle: families.Bundle) -> None:
    request = bundle.request(prompt="чашка")
    assert request.steps and request.sampler and request.guidance_scale
    assert bundle.denoiser.schedule.max_sigma > 100
    assert bundle.codec.channels == 16 and bundle.codec.factor == 16


def test_text_becomes_pictures(bundle: families.Bundle, tmp_path: Path) -> None:
    request = bundle.request(prompt="космос внутри чайной чашки", seed=7, n=2, steps=2)
    pictures = draw(bundle, request)
    assert [p.pixels.shape for p in pictures] == [(256, 256, 4)] * 2
    assert not np.array_equal(pictures[0].pixels, pictures[1].pixels)
    assert all(np.isfinite(p.pixels).all() and p.pixels[..., 3].std() >= 0 for p in pictures)
    path = chashka.save(pictures[1], tmp_path / "чашка с космосом.png")
    stored = chashka.read_metadata(path)
    assert stored is not None and stored["model"] == "kandinsky-teacup"
    again = draw(bundle, FAMILY.options.of(stored["request"] | {"n": 1, "first": stored["picture"]}))
    # alone or in a batch, matrix products may be summed in another order
    difference = np.abs(again[0].pixels.astype(int) - pictures[1].pixels)
    assert (difference <= 2).mean() > 0.99
    same = draw(bundle, request)
    assert np.array_equal(same[1].pixels, pictures[1].pixels)


@pytest.fixture(params=["kandinsky-teacup", "stable_diffusion-teacup"])
def either(request: pytest.FixtureRequest) -> families.Bundle:
    """Each model inside the package."""
    return families.load(request.param, precision="f32", threads=1)


@pytest.mark.parametrize("size", [(300, 500), (320, 192)])
def test_other_sizes_are_drawn(either: families.Bundle, size: tuple[int, int]) -> None:
    request = either.request(prompt="a red cat", seed=1, steps=1, width=size[0], height=size[1])
    assert draw(either, request)[0].size == size


@pytest.mark.parametrize(
    "said", [{}, {"guidance_scale": 1.0}, {"fast": True}, {"n": 2, "width": 320, "height": 192}], ids=str
)
def test_networks_are_opened_once_by_another_thread(
    either: families.Bundle, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, bool]] = []
    compiled = OpenVINOGraph._compiled

    def noted(graph: OpenVINOGraph, shapes: Any) -> Any:
        opened.append((graph.path.stem, threading.current_thread() is threading.main_thread()))
        return compiled(graph, shapes)

    monkeypatch.setattr(OpenVINOGraph, "_compiled", noted)
    draw(either, either.request(prompt="a red cat", seed=1, steps=1, **said))
    assert sorted(o for o in opened if not o[0].startswith("text")) == [("decoder", False), ("unet", False)]
    assert all(by_main for name, by_main in opened if name.startswith("text"))


def test_a_picture_with_a_mask(either: families.Bundle) -> None:
    assert either.masked  # the network sees it
    init = np.zeros((256, 256, 4), np.uint8)
    init[40:200, 40:200] = (200, 30, 30, 255)
    mask = np.zeros((256, 256), np.float32)
    mask[:, 128:] = 1
    (picture,) = draw(either, either.request(prompt="звезда", seed=1, steps=2), Inputs(init, mask))
    assert np.array_equal(picture.pixels[:, :128], init[:, :128])
    assert not np.array_equal(picture.pixels[:, 128:], init[:, 128:])


def test_previews_are_cheap_and_small(bundle: families.Bundle) -> None:
    previews: list[Any] = []
    draw(
        bundle,
        bundle.request(prompt="кот", seed=1, steps=2),
        on_step=lambda p: previews.append(images.from_network(bundle.codec.preview(p.step.denoised))),
    )
    assert [p.shape for p in previews] == [(1, 16, 16, 4)] * 2


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model's files in a folder with Cyrillic letters and spaces, which ``load`` opens."""
    folder = tmp_path / "Моя папка" / "модель один"
    shutil.copytree(TEACUP.folder, folder)
    shutil.copy(TEACUP.folder.parent / "vocabulary.tsv", folder.parent)
    monkeypatch.setattr(families, "find", lambda *_: (FAMILY, replace(TEACUP, folder=folder)))
    return folder


def test_paths_with_cyrillic_and_spaces(copy: Path, tmp_path: Path) -> None:
    bundle = families.load(precision="f32", threads=1, cache_dir=tmp_path / "мой кеш")
    assert draw(bundle, bundle.request(prompt="кот", seed=1, steps=1))[0].size == (256, 256)


@pytest.mark.parametrize("suffix", [".safetensors", ".xml"])
@pytest.mark.parametrize("damage", ["missing", "cut off", "flipped", "empty"])
def test_damaged_files_are_one_line(copy: Path, suffix: str, damage: str) -> None:
    file = copy / f"unet{suffix}"
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut off":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        place = len(data) // 2
        data[place : place + 64] = bytes(b ^ 255 for b in data[place : place + 64])
        file.write_bytes(data)
    with pytest.raises(ChashkaError) as caught:
        bundle = families.load(precision="f32", threads=1)
        draw(bundle, bundle.request(prompt="кот", seed=1, steps=1))
    message = str(caught.value)
    assert "\n" not in message and "unet" in message
    if suffix == ".safetensors":
        assert isinstance(caught.value, WeightsError)


def test_the_listing_draws_with_the_shipped_model(monkeypatch: pytest.MonkeyPatch, bundle: families.Bundle) -> None:
    from kandinsky2 import get_kandinsky2

    monkeypatch.setattr(chashka, "load", lambda **_: bundle, raising=False)
    monkeypatch.setattr(kandinsky2.opening, "_warned", {kandinsky2.opening.SMALL})
    model = get_kandinsky2("cpu", task_type="text2img")
    pictures = model.generate_text2img(
        "космосвнутричайнойчашки", batch_size=4, h=512, w=512, num_steps=2, denoised_type="dynamic_threshold",
        dynamic_threshold_v=99.5, sampler="ddim_sampler", ddim_eta=0.01, guidance_scale=10, progress=False,
    )  # fmt: skip
    assert [p.size for p in pictures] == [(512, 512)] * 4 and pictures[3].mode == "RGB"


def test_thresholds_of_the_listing_leave_an_apple_an_apple(bundle: families.Bundle) -> None:
    """The family's thresholds clip at 1, where the codec puts the 99.5th percentile: pictures bear it (the mean of four)."""
    fields = {"prompt": "красное яблоко", "steps": 12, "sampler": "ddim", "eta": 0.01, "guidance_scale": 10}
    alike: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    reds: dict[str, list[float]] = defaultdict(list)
    for seed in range(1, 5):
        on_white, opaque = {}, {}
        for kind in ("none", "clip_denoised", "dynamic_threshold"):
            request = bundle.request(**fields, seed=seed, denoised_type=kind)
            pixels = draw(bundle, request)[0].pixels.astype(np.float64)
            alpha = pixels[..., 3:] / 255
            on_white[kind], opaque[kind] = pixels[..., :3] * alpha + 255 * (1 - alpha), alpha[..., 0] > 0.5
            red, green, blue = pixels[opaque[kind], :3].mean(0)
            reds[kind].append(red)
            assert red > green + 100 and red > blue + 100, f"{kind}: mean colour {red:.0f} {green:.0f} {blue:.0f}"
            assert 0.3 < opaque[kind].mean() < 0.8
        for a, b in itertools.combinations(on_white, 2):
            psnr = 10 * np.log10(255**2 / np.square(on_white[a] - on_white[b]).mean())
            alike[a, b].append((psnr, (opaque[a] & opaque[b]).sum() / (opaque[a] | opaque[b]).sum()))
    for kind, values in reds.items():
        assert np.mean(values) > 170, f"{kind}: {values}"
    for pair, figures in alike.items():
        psnr, overlap = np.mean(figures, axis=0)
        assert psnr > 14 and overlap > 0.85, f"{pair}: {psnr:.1f} dB, {overlap:.2f}"


def test_every_component_is_named_with_its_graph() -> None:
    for name in TEACUP.files:
        assert (TEACUP.folder / name).is_file(), f"{name} is not shipped"
        assert re.fullmatch(r"\w+\.(xml|safetensors)", name)


def test_every_sampler_draws_the_same_thing(bundle: families.Bundle) -> None:
    """A red apple in the middle of an empty picture; one that goes astray leaves neither."""
    for name in samplers(bundle):
        request = bundle.request(prompt="красное яблоко", seed=1, sampler=name, background="white")
        pixels = draw(bundle, request)[0].pixels[..., :3].astype(float)
        red, _, blue = pixels[96:176, 96:176].mean((0, 1))
        assert red > blue + 60, f"{name}: {red:.0f}, {blue:.0f}"
        assert np.concatenate([pixels[:8], pixels[-8:]]).mean() > 240, name


def test_a_draft_is_four_single_calls_and_shows_what_the_model_would_draw(bundle: families.Bundle) -> None:
    """From the same noise: nearer to the usual drawing than that is to another seed's; with a mask and from a picture, too."""

    def drawn(seed: int, given: Inputs | None = None, prompt: str = "красное яблоко", **said: Any) -> np.ndarray:
        request = bundle.request(prompt=prompt, seed=seed, background="white", **said)
        steps: list[int] = []
        (picture,) = draw(bundle, request, given, lambda progress: steps.append(progress.total))
        assert not request.fast or set(steps) == {request.steps}
        return picture.pixels[..., :3].astype(float)

    def apart(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[float]:
        return [float(np.abs(a - b).mean()) for a, b in pairs]

    assert dict(bundle.fast) == {"steps": 4, "guidance_scale": 1.0, "sampler": "euler"}
    near, far, unlearned = [], [], []
    for prompt in ("красное яблоко", "an owl", "a house", "a boat", "a fox"):
        usual = [drawn(seed, prompt=prompt) for seed in (1, 2, 3)]
        near += apart(zip(usual, [drawn(seed, prompt=prompt, fast=True) for seed in (1, 2, 3)], strict=True))
        plain = [drawn(seed, prompt=prompt, steps=4, guidance_scale=1.0, sampler="euler") for seed in (1, 2, 3)]
        unlearned += apart(zip(usual, plain, strict=True))
        far += apart(itertools.combinations(usual, 2))
    assert np.mean(near) < 0.65 * np.mean(far), "over one prompt alone chance decides"
    assert np.mean(near) < 0.7 * np.mean(unlearned)
    init = np.full((256, 256, 4), 255, np.uint8)
    mask = np.zeros((256, 256), np.float32)
    mask[:, 128:] = 1
    edited = drawn(4, Inputs(init, mask), fast=True)
    assert (edited[:, :112] > 250).mean() > 0.99 > (edited[:, 144:] > 250).mean()
