"""The published Kandinsky 2.0 against the original code: texts, whole runs, pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from published_model import tiny

from chashka import generate
from chashka.families import Bundle, EngineChoice
from chashka.families.kandinsky import INPAINTING_20
from chashka.families.kandinsky.compat import spread
from chashka.families.kandinsky.published_text import PublishedText
from chashka.generate import given, loop
from chashka.request import Inputs

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]


class Replayed:
    """Recorded draws in the order of their calls, in place of ``PictureNoise``."""

    def __init__(self, draws: list[Any], rows: int, posterior: bool) -> None:
        self.draws, self.rows = draws, rows
        self.before = 1 if posterior else 0

    def __call__(self, seeds: Any, shape: Any, first_picture: int = 0) -> Replayed.Stream:
        return Replayed.Stream(self)

    class Stream:
        def __init__(self, owner: Replayed) -> None:
            self.owner = owner

        def start(self) -> Any:
            return self.owner.draws[self.owner.before][: self.owner.rows]

        def __call__(self, step: int, draw: int = 0) -> Any:
            if step < 0:
                assert draw == given.POSTERIOR
                return self.owner.draws[0]
            return self.owner.draws[self.owner.before + 1 + step][: self.owner.rows]


def replayed(
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    runs: dict[str, Any],
    run: str,
    inputs: Inputs | None,
    **fields: Any,
) -> tuple[Any, Any, Any]:
    """States in network space, final latents and pictures of a recorded run, by our own loop."""
    draws = [runs[k] for k in sorted(k for k in runs if k.startswith(f"{run}.draw"))]
    rows = runs[f"{run}.trace_x"].shape[1]
    noise = Replayed(draws, rows, inputs is not None)
    for module in (loop, given):
        monkeypatch.setattr(module, "PictureNoise", noise)
    request = bundle.request(prompt="космос внутри чайной чашки", seed=1, n=rows, width=64, height=64, **fields)
    schedule = bundle.denoiser.schedule
    states = []
    decoded: list[Any] = []
    codec = bundle.codec

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(codec, name)

        def decode(self, x: Any) -> Any:
            decoded.append(x)
            return codec.decode(x)

    watched = replace(bundle, codec=Watched())
    pictures = generate.draw(
        watched, request, inputs, on_step=lambda p: states.append(p.step.x * schedule.scale(p.step.sigma))
    )
    return states, decoded[0], np.stack([p.pixels for p in pictures])


def check(runs: dict[str, Any], run: str, states: Any, latents: Any, pixels: Any) -> None:
    trace = runs[f"{run}.trace_x"]
    worst = max(relative(ours, theirs) for ours, theirs in zip(states, trace[1:], strict=False))
    assert worst < 1e-4
    assert relative(latents, runs[f"{run}.latents"]) < 1e-4
    off = np.abs(pixels[..., :3].astype(int) - runs[f"{run}.images"].astype(int))
    assert np.mean(off <= 1) >= 0.999 and (pixels[..., 3] == 255).all()


def relative(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def prepared(runs: dict[str, Any]) -> Any:
    """What ``prepare_image`` gave, as the picture that it was before it was scaled to [-1, 1]."""
    pixels = np.rint((runs["pil_prepared"][0] + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])


def test_text_encoders(published_bundle: Bundle, words: dict[str, Any]) -> None:
    text: Any = published_bundle.text
    assert isinstance(text, PublishedText)
    (tokens1, pooled1), (tokens2,) = text._first(["чашка", ""]), text._second(["чашка", ""])
    for i, row in enumerate((0, 2)):
        assert relative(tokens1[i], words["enc1.full"][row]) < 1e-5
        assert relative(pooled1[i], words["enc1.pooled"][row]) < 1e-5
        assert relative(tokens2[i], words["enc2.full"][row]) < 1e-5


@pytest.mark.parametrize(
    ("run", "fields"),
    [
        ("t2i_ddim_eta0.01_dyn", {"steps": 10, "guidance_scale": 10, "eta": 0.01}),
        ("t2i_ddim_eta0_clip_75", {"steps": 7, "guidance_scale": 4, "eta": 0.0, "denoised_type": "clip_denoised"}),
        ("t2i_p_dyn90", {"steps": 8, "guidance_scale": 7, "sampler": "p_sampler", "dynamic_threshold_v": 90}),
    ],
)
def test_text_to_picture_of_2022(
    run: str,
    fields: dict[str, Any],
    published_bundle: Bundle,
    recorded: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check(recorded, run, *replayed(monkeypatch, published_bundle, recorded, run, None, compat="original", **fields))


def test_picture_to_picture_of_2022(
    published_bundle: Bundle, recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """strength of the original 0.7, which is kept: 1 - 0.7 of chashka's; 6 of 20 steps, and the posterior is sampled."""
    run = "i2i_ddim_s0.7"
    fields = {"steps": 20, "guidance_scale": 7, "eta": 0.05, "strength": 1 - 0.7}
    result = replayed(
        monkeypatch, published_bundle, recorded, run, Inputs(prepared(recorded)), compat="original", **fields
    )
    assert len(result[0]) == len(recorded[f"{run}.trace_x"])
    check(recorded, run, *result)


def test_inpainting_of_2022(
    published: Path, recorded_words: None, recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tiny(INPAINTING_20, published)
    bundle = preset.open(preset, EngineChoice("torch"))
    fields = {"steps": 8, "guidance_scale": 7, "eta": 0.05}
    inputs = Inputs(prepared(recorded), 1 - recorded["mask_input"])
    check(
        recorded, "inp_ddim", *replayed(monkeypatch, bundle, recorded, "inp_ddim", inputs, compat="original", **fields)
    )


@pytest.mark.parametrize(
    ("run", "fields"),
    [
        ("ddim20_eta_ignored", {"steps": 20, "sampler": "ddim", "eta": 0.9}),
        ("plms15", {"steps": 15, "sampler": "plms"}),
    ],
)
def test_the_code_of_2023(
    run: str,
    fields: dict[str, Any],
    published_bundle: Bundle,
    recorded: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, latents, pixels = replayed(
        monkeypatch, published_bundle, recorded, run, None, compat="2023", guidance_scale=2, **fields
    )
    assert relative(latents, recorded[f"{run}.latents"]) < 1e-4
    off = np.abs(pixels[..., :3].astype(int) - recorded[f"{run}.images"].astype(int))
    assert np.mean(off <= 1) >= 0.999


def test_the_masks_spread(recorded: dict[str, Any]) -> None:
    kept = recorded["mask_input"][::8, ::8]
    assert np.array_equal(1 - spread((kept == 0).astype(np.float32)), recorded["mask_prepared"][0, 0])


def test_the_papers_picture_is_squeezed_as_in_2022(recorded: dict[str, Any]) -> None:
    from kandinsky2.drawing import prepared as squeezed

    assert np.array_equal(
        np.asarray(squeezed(Image.fromarray(recorded["pil_input"]), 64, 64)), prepared(recorded)[..., :3]
    )
