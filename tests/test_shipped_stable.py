"""Stable Diffusion's model inside the package: its own U-Net beside Kandinsky's autoencoder and text encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import chashka
from chashka import families
from chashka.families.kandinsky import TEACUP as KANDINSKY
from chashka.families.stable_diffusion import TEACUP
from chashka.generate import draw

NAME = "stable_diffusion-teacup"


@pytest.fixture(scope="module")
def bundle() -> families.Bundle:
    """One bundle for all tests, in float32, so that no self-test is needed."""
    return families.load(NAME, precision="f32", threads=1)


def test_only_the_unet_is_its_own() -> None:
    assert TEACUP.own_weights == ("unet.safetensors",)
    assert {TEACUP.home(part) for part in ("decoder", "encoder", "text_contrastive")} == {KANDINSKY.place}
    assert [path.name for path in sorted(TEACUP.place.iterdir())] == ["unet.safetensors", "unet.xml"]


def test_words_become_pictures_that_tell_where_they_are_from(bundle: families.Bundle, tmp_path: Path) -> None:
    request = bundle.request(prompt="красное яблоко", seed=3)
    (picture,) = draw(bundle, request)
    red, green, blue = picture.pixels[picture.pixels[..., 3] > 128][:, :3].mean(0)
    assert red > green + 40 and red > blue + 40
    stored = chashka.read_metadata(chashka.save(picture, tmp_path / "a.png"))
    assert stored is not None and (stored["model"], stored["family"]) == (NAME, "stable_diffusion")
    assert np.array_equal(draw(bundle, request)[0].pixels, picture.pixels)


def test_the_familys_grammar_is_heard(bundle: families.Bundle) -> None:
    """Weights, AND and changes within the drawing give other pictures; the same words without them the same."""

    def pixels(prompt: str, **said: object) -> np.ndarray:
        return draw(bundle, bundle.request(prompt=prompt, seed=5, steps=6, **said))[0].pixels

    plain = pixels("a green tree")
    assert np.array_equal(pixels("a (green:1.0) tree"), plain)
    for other in ("a (green:1.6) tree", "a green tree AND a red apple", "a green [tree:car:0.3]"):
        assert not np.array_equal(pixels(other), plain)
    assert np.array_equal(pixels("a (green:1.6) tree", syntax="plain"), pixels("a \\(green:1.6\\) tree"))


def test_nothing_said_is_drawn_without_guidance_towards_anything(bundle: families.Bundle, tmp_path: Path) -> None:
    def drawn(scale: float) -> chashka.Picture:
        return draw(bundle, bundle.request(prompt="", seed=5, steps=3, guidance_scale=scale))[0]

    picture = drawn(7.5)
    assert np.abs(picture.pixels.astype(int) - drawn(1.0).pixels).max() <= 1
    stored = chashka.read_metadata(chashka.save(picture, tmp_path / "a.png"))
    assert stored is not None and stored["request"]["prompt"] == ""


def test_it_enlarges_with_the_upscaler_that_both_models_share(bundle: families.Bundle) -> None:
    pixels = np.zeros((32, 48, 4), np.uint8)
    pixels[8:24, 8:40] = (200, 40, 40, 255)
    other = families.load("kandinsky-teacup", precision="f32", threads=1)
    larger = chashka.upscale(bundle, pixels)
    assert larger.shape == (64, 96, 4) and np.array_equal(larger, chashka.upscale(other, pixels))
    assert bundle.preset.own_weights == ("unet.safetensors",)
