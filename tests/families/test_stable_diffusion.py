"""Stable Diffusion's sampling: the originals' runs, masks, both engines, requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_file import opened, relative

from chashka import families, generate
from chashka.errors import InputError, WeightsError
from chashka.families import Bundle, EngineChoice
from chashka.families.stable_diffusion import sampling
from chashka.generate import loop, modes
from chashka.request import Inputs
from golden_files import golden

pytestmark = pytest.mark.torch

I2I_SCALE = 5.0
MASK_SCALE = 2.0


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    files = ("ldm_runs", "ldm_texts", "ldm_masks")
    return {key: value for name in files for key, value in np.load(golden(f"diffusion/{name}.npz")).items()}


class Said:
    """Recorded text tokens instead of a text tower's."""

    def __init__(self, cond: Any, uncond: Any, real: Any) -> None:
        self._rows, self.meter = (cond, uncond), real.meter

    def encode(self, texts: Any, pooled: Any = None) -> Any:
        return {"tokens": np.stack([self._rows[0 if text else 1] for text in texts])}


def drawn(
    bundle: Bundle,
    request: Any,
    monkeypatch: pytest.MonkeyPatch,
    start: Any,
    inputs: Inputs | None = None,
    kept: Any = None,
) -> Any:
    """Final latents of a run that starts from given noise. kept: the draws for what a mask keeps, one for each step."""

    class Replayed:
        def __init__(self, seeds: Any, shape: Any, first_picture: int = 0) -> None:
            pass

        def start(self) -> Any:
            return start

        def __call__(self, step: int, draw: int = 0) -> Any:
            return np.zeros_like(start) if kept is None or draw != 1 else kept[step]

    monkeypatch.setattr(loop, "PictureNoise", Replayed)
    seen: list[Any] = []
    codec = bundle.codec

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(codec, name)

        def decode(self, x: Any) -> Any:
            seen.append(x)
            return codec.decode(x)

    generate.draw(replace(bundle, codec=Watched()), request, inputs)
    return seen[0]


@pytest.mark.parametrize(
    ("who", "name", "run", "steps", "scale", "sampler"),
    [
        ("compvis", "compvis.safetensors", "ddim10_cfg7.5", 10, 7.5, "ddim"),
        ("compvis", "compvis.safetensors", "ddim30_cfg1", 30, 1.0, "ddim"),
        ("compvis", "compvis.safetensors", "plms10_cfg7.5", 10, 7.5, "plms"),
        ("stability", "stability.ckpt", "ddim10_cfg7.5", 10, 7.5, "ddim"),
        ("stability", "stability.ckpt", "ddim30_cfg1", 30, 1.0, "ddim"),
        ("runway", "runway.safetensors", "ddim10_cfg7.5", 10, 7.5, "ddim"),
        ("runway", "runway.safetensors", "ddim30_cfg1", 30, 1.0, "ddim"),
        ("compvis", "compvis.safetensors", "dpm10_cfg3", 10, 3.0, "dpmpp_2m"),
    ],
)
def test_runs_of_the_originals(
    who: str, name: str, run: str, steps: int, scale: float, sampler: str, checkpoints: Path, runs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Their U-Nets' own weights, their text, their noise, through our loop from a request: 31 steps where 30 are asked."""
    bundle = opened(checkpoints, name)
    for row in range(2):
        if who == "runway":  # its run had a mask and a masked picture of its own
            seen = np.concatenate([runs["runway.mask"], runs["runway.masked_latent"]], axis=1)[row : row + 1]
            monkeypatch.setattr(sampling, "known_to_the_network", lambda _, seen=seen: seen)
        told = replace(bundle, text=Said(runs[f"{who}.c"][row], runs[f"{who}.u"][row], bundle.text))
        request = told.request(
            prompt="x",
            seed=1,
            steps=steps,
            guidance_scale=scale,
            sampler=sampler,
            compat="original",
            width=64,
            height=64,
        )
        latents = drawn(told, request, monkeypatch, runs[f"{who}.xT"][row : row + 1])
        assert relative(latents, runs[f"{who}.{run}.samples"][row : row + 1]) < 1e-4


def encoded(bundle: Bundle, runs: dict[str, Any], who: str, row: int) -> Bundle:
    """The same whose codec makes recorded latents of every picture, and whose texts are recorded."""

    class Encoded:
        def __getattr__(self, name: str) -> Any:
            return getattr(bundle.codec, name)

        def encode(self, pixels: Any, noise: Any = None) -> Any:
            return runs[f"{who}.i2i.z0"][row : row + 1]

    said = Said(runs[f"{who}.c"][row], runs[f"{who}.u"][row], bundle.text)
    return replace(bundle, codec=Encoded(), text=said)


@pytest.mark.parametrize(("who", "name"), [("compvis", "compvis.safetensors"), ("stability", "stability.ckpt")])
def test_masks_of_the_originals(
    who: str, name: str, checkpoints: Path, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept goes into x before each step with noise of its level, and all of it begins with noise alone."""
    bundle = opened(checkpoints, name)
    for row in range(2):
        told = encoded(bundle, runs, who, row)
        request = told.request(
            prompt="x", seed=1, steps=10, guidance_scale=MASK_SCALE, sampler="ddim", compat="original"
        )
        repaint = np.float32(1 - runs[f"{who}.mask"][row, 0])
        inputs = Inputs(np.zeros((64, 64, 4), np.uint8), repaint.repeat(8, axis=0).repeat(8, axis=1))
        kept = runs[f"{who}.noise"][:, row : row + 1]
        latents = drawn(told, request, monkeypatch, runs[f"{who}.xT"][row : row + 1], inputs, kept)
        samples = runs[f"{who}.samples"][row : row + 1]
        assert relative(latents, samples) < 1e-4
        # blended as everywhere else it is another picture
        usual = request.with_fields(compat=None, spacing="ddim")
        assert relative(drawn(told, usual, monkeypatch, runs[f"{who}.xT"][row : row + 1], inputs), samples) > 1e-2


def test_a_mask_and_plms_or_nine_channels(
    checkpoints: Path, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PLMS' first step asks twice, and x is changed once. A network of nine channels keeps nothing but by itself."""
    asked = {"prompt": "x", "seed": 1, "steps": 4, "sampler": "plms", "compat": "original"}
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    draws: list[tuple[int, int]] = []
    real = loop.PictureNoise.__call__
    monkeypatch.setattr(
        loop.PictureNoise, "__call__", lambda self, step, draw=0: draws.append((step, draw)) or real(self, step, draw)
    )
    bundle = opened(checkpoints, "compvis.safetensors")
    generate.draw(bundle, bundle.request(**asked), Inputs(picture, np.eye(64, dtype=np.float32)))
    assert [step for step, draw in draws if draw == 1] == [-1, 0, 1, 2, 3]  # the first for the encoder's posterior
    draws.clear()
    bundle = opened(checkpoints, "runway.safetensors")
    whole, part = (
        generate.draw(bundle, bundle.request(**asked, strength=0.75), Inputs(picture, mask))[0].pixels
        for mask in (np.ones((64, 64), np.float32), np.zeros((64, 64), np.float32))
    )
    assert (0, 1) not in draws
    assert not np.array_equal(part, picture)
    assert not np.array_equal(whole, part), "the network is told what to keep"


@pytest.mark.parametrize(("who", "name"), [("compvis", "compvis.safetensors"), ("stability", "stability.ckpt")])
def test_pictures_of_the_originals(
    who: str, name: str, checkpoints: Path, runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From recorded latents: the noise of one level more than the first step believes, then 15 of 20 steps."""
    bundle = opened(checkpoints, name)
    for row in range(2):
        told = encoded(bundle, runs, who, row)
        request = told.request(
            prompt="x", seed=1, steps=20, guidance_scale=I2I_SCALE, sampler="ddim", compat="original", strength=0.75
        )
        noise = runs[f"{who}.i2i.noise"][row : row + 1]
        latents = drawn(told, request, monkeypatch, noise, Inputs(np.zeros((64, 64, 4), np.uint8)))
        assert relative(latents, runs[f"{who}.i2i.decoded"][row : row + 1]) < 1e-4


def test_samplers_sizes_and_masks(checkpoints: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (70, 100, 4), np.uint8)
    picture[..., 3] = 255
    white = np.zeros((70, 100), np.float32)
    white[:30] = 1
    for name in ("compvis.safetensors", "runway.safetensors", "stability.ckpt"):
        bundle = opened(checkpoints, name)
        for sampler in ("dpmpp_2m", "euler_a", "ddim", "unipc"):
            asked = {"prompt": "a cup", "negative_prompt": "tea", "seed": 1, "steps": 4, "sampler": sampler}
            whole, started, painted = (
                generate.draw(bundle, bundle.request(**asked, **more), inputs)[0].pixels
                for more, inputs in (
                    ({"width": 64, "height": 70}, None),
                    ({"strength": 0.5}, Inputs(picture)),
                    ({}, Inputs(picture, white)),
                )
            )
            assert whole.shape == (70, 64, 4) and started.shape == (70, 100, 4)
            assert np.array_equal(painted[30:], picture[30:]) and not np.array_equal(painted[:30], picture[:30])


@pytest.mark.parametrize("name", ["compvis.safetensors", "runway.safetensors"])
@pytest.mark.parametrize("side", ["left", "right", "top", "bottom", "all"])
def test_pictures_go_on_beyond_every_edge(checkpoints: Path, name: str, side: str) -> None:
    """What was there stays, pixel by pixel; what is new is drawn, and no rest of the canvas is left as it was made."""
    bundle = opened(checkpoints, name)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    picture[..., 3] = 255
    sides = dict.fromkeys(("left", "right", "top", "bottom"), 0)
    sides |= dict.fromkeys(sides, 32) if side == "all" else {side: 64}
    inputs = modes.extended(picture, sides, "the sea")
    request = bundle.request(**modes.extending("the sea"), seed=1, steps=2)
    drawn = generate.draw(bundle, request, inputs)[0].pixels
    top, left = sides["top"], sides["left"]
    high, wide = 64 + top + sides["bottom"], 64 + left + sides["right"]
    assert drawn.shape[:2] == (high, wide)
    kept = np.zeros((high, wide), bool)
    kept[top : top + 64, left : left + 64] = True
    assert np.array_equal(drawn[top : top + 64, left : left + 64, :3], picture[..., :3])
    fresh = drawn[~kept][:, :3].astype(int)
    assert (np.abs(fresh - inputs.init[~kept][:, :3].astype(int)).max(axis=1) > 0).mean() > 0.9
    other = generate.draw(bundle, request.with_fields(seed=2), inputs)[0].pixels
    assert (other != drawn).any(axis=2)[~kept].mean() > 0.9


def watched(bundle: Bundle) -> tuple[Bundle, list[Any]]:
    """The same, and a list of what its network is given."""
    network, seen = bundle.denoiser.network, []

    def asked(x: Any, t: Any, cond: Any) -> Any:
        seen.append(x)
        return network(x, t, cond)

    return replace(bundle, denoiser=replace(bundle.denoiser, network=asked)), seen


def test_what_an_inpainting_network_is_given(checkpoints: Path) -> None:
    """x, the mask (1 = drawn anew), and the latents of the picture whose masked part is grey."""
    bundle, seen = watched(opened(checkpoints, "runway.safetensors"))
    picture = np.full((64, 64, 4), 200, np.uint8)
    picture[..., 3] = 255
    white = np.zeros((64, 64), np.float32)
    white[:32] = 1
    generate.draw(bundle, bundle.request(prompt="x", seed=1, steps=1), Inputs(picture, white))
    x = seen[0]
    assert x.shape[1] == 9 and np.array_equal(x[0, 4, :4], np.ones((4, 8))) and not x[0, 4, 4:].any()
    grey = np.where(white[..., None] >= 0.5, 127.5, picture[..., :3]) / 127.5 - 1
    pixels = np.concatenate([grey, np.ones((64, 64, 1))], axis=2).transpose(2, 0, 1)[None].astype(np.float32)
    assert np.allclose(x[:1, 5:], bundle.codec.encode(pixels), atol=1e-4)
    # without a mask all of it is masked: with a picture to start from as with words alone
    grey = np.broadcast_to(np.array([0, 0, 0, 1], np.float32)[:, None, None], (1, 4, 64, 64))
    for inputs in (None, Inputs(picture)):
        seen.clear()
        generate.draw(bundle, bundle.request(prompt="x", seed=1, steps=2, width=64, height=64), inputs)
        assert np.array_equal(seen[0][0, 4], np.ones((8, 8)))
        assert np.allclose(seen[0][:1, 5:], bundle.codec.encode(grey), atol=1e-4)


def test_a_seamless_picture_of_any_size_has_no_seam(checkpoints: Path) -> None:
    """Nothing is cut off an axis without an edge: the step across it is like any other."""
    bundle = opened(checkpoints, "compvis.safetensors")
    asked = bundle.request(prompt="a cup", seed=1, steps=4, width=150, height=100, tiling="x")
    (picture,) = generate.draw(bundle, asked)
    assert picture.size == (150, 100) and any("drawn at 128x100" in note for note in picture.notes)
    pixels = picture.pixels[..., :3].astype(float)
    inside = np.abs(np.diff(pixels, axis=1)).mean((0, 2))
    across = np.abs(pixels[:, 0] - pixels[:, -1]).mean()
    assert across < inside.max()


def test_latents_of_the_original(checkpoints: Path, runs: dict[str, Any]) -> None:
    """A sample of the encoder's distribution with the recorded noise, times the scale."""
    recorded = np.load(golden("nets/forwards.npz"))
    codec = opened(checkpoints, "compvis.safetensors").codec
    picture = recorded["compvis.vae.img"]
    pixels = np.concatenate([picture, np.ones_like(picture[:, :1])], axis=1)
    assert relative(codec.encode(pixels, runs["vae.noise"]), runs["vae.z_scaled"]) < 1e-5


@pytest.mark.parametrize("size", [(64, 64), (72, 104)])
def test_both_engines(checkpoints: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    """Of nine by thirteen latents too, which is what is drawn and no larger."""
    pictures = []
    for engine in ("torch", "openvino"):
        bundle = opened(checkpoints, "compvis.safetensors", EngineChoice(engine, precision="f32", cache_dir=tmp_path))
        request = bundle.request(prompt="a cup", seed=1, steps=3, width=size[0], height=size[1])
        bundle, seen = watched(bundle)
        pictures.append(generate.draw(bundle, request)[0].pixels.astype(int))
        assert {x.shape[2:] for x in seen} == {(size[1] // 8, size[0] // 8)}
    assert np.mean(np.abs(pictures[0] - pictures[1]) <= 2) > 0.99


def test_strength_of_the_original(checkpoints: Path) -> None:
    bundle = opened(checkpoints, "compvis.safetensors")
    asked = {"prompt": "x", "seed": 1, "steps": 10, "sampler": "ddim", "compat": "original"}
    picture = np.zeros((64, 64, 4), np.uint8)
    steps: list[int] = []
    generate.draw(
        bundle, bundle.request(**asked, strength=0.75), Inputs(picture), on_step=lambda p: steps.append(p.total)
    )
    assert steps == [7] * 7
    for strength in (1.0, 0.05):
        with pytest.raises(InputError, match="where the original fails"):
            generate.draw(bundle, bundle.request(**asked, strength=strength), Inputs(picture))


def test_requests_that_are_wrong(checkpoints: Path) -> None:
    options = families.options(str(checkpoints / "compvis.safetensors"))
    for field, value in (("prediction", "x"), ("compat", "2023"), ("spacing", "shifted"), ("denoised_type", "none")):
        with pytest.raises(InputError, match=field):
            options(prompt="x", **{field: value})
    with pytest.raises(WeightsError, match="no such file or folder"):
        families.find("nowhere.safetensors")
