"""Variations and mixtures with the weights that are shipped, seen by the package's own picture encoder.

Requests are built as ``chashka vary`` and ``chashka mix`` build them. Margins are less than half of what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from chashka import families
from chashka.generate import draw, modes
from chashka.request import Inputs

SOURCES = ("красное яблоко", "a cat", "a blue car")
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@pytest.fixture(scope="module")
def bundle() -> families.Bundle:
    """One bundle for all tests, in float32, so that no self-test is needed."""
    return families.load(precision="f32", threads=1)


@pytest.fixture(scope="module")
def drawn(bundle: families.Bundle) -> Callable[[str], np.ndarray]:
    """A prompt's picture; each is drawn once."""
    return cache(lambda prompt: draw(bundle, bundle.request(prompt=prompt, seed=3))[0].pixels)


def units(bundle: families.Bundle, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """(B, D): what the pictures show, of length 1, so that products are cosines."""
    assert bundle.picture is not None
    seen = bundle.picture.encode(pictures)
    return seen / np.linalg.norm(seen, axis=1, keepdims=True)


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_a_variation_is_near_its_source_and_another_picture(
    bundle: families.Bundle, drawn: Callable[[str], np.ndarray], strength: float
) -> None:
    """Nearer to it than to any other source, and than any other source is to it; the less is replaced, the nearer."""
    sources = [drawn(prompt) for prompt in SOURCES]
    places = units(bundle, sources)
    between = places @ places.T
    for i, source in enumerate(sources):
        request = bundle.request(**modes.PICTURE_ALONE, strength=strength, seed=5, n=2)
        pictures = [picture.pixels for picture in draw(bundle, request, modes.varied(source))]
        cosines = units(bundle, pictures) @ places.T
        others = np.delete(cosines, i, axis=1)
        assert cosines[:, i].min() > others.max() + 0.3, f"{SOURCES[i]}: {cosines.round(2)}"
        assert cosines[:, i].min() > np.delete(between[i], i).max() + 0.3, f"{SOURCES[i]}: {cosines.round(2)}"
        apart = [np.abs(picture.astype(int) - source).mean() for picture in pictures]
        assert min(apart) > 4, f"{SOURCES[i]}: a mean difference of {apart} of 255"
        assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 2  # and seeds differ from one another


@pytest.mark.parametrize("parts", ["pictures", "texts", "a picture and a text"])
def test_weights_of_a_mixture_move_it_from_one_thing_to_the_other(
    bundle: families.Bundle, drawn: Callable[[str], np.ndarray], parts: str
) -> None:
    """Cosine to an apple minus cosine to a cat, the mean of four drawings: rises with the apple's weight.

    Near the ends it hardly moves (at three to one the cat is a cat), so neighbours may be even, but none may fall back.
    """
    cat, apple = drawn("a cat"), drawn("an apple")
    ends = units(bundle, [cat, apple])
    seen = []
    for weight in WEIGHTS:
        rest = 1 - weight
        if parts == "pictures":
            fields, given = modes.mixture([rest, weight], []), Inputs(pictures=(cat, apple))
        elif parts == "texts":
            fields, given = modes.mixture([], [("a cat", rest), ("an apple", weight)]), Inputs()
        else:
            fields, given = modes.mixture([rest], [("an apple", weight)]), Inputs(pictures=(cat,))
        request = bundle.request(**fields, seed=11, n=4, steps=6)
        cosines = units(bundle, [picture.pixels for picture in draw(bundle, request, given)]) @ ends.T
        seen.append(float((cosines[:, 1] - cosines[:, 0]).mean()))
    told = f"{parts}: {np.round(seen, 2)}"
    assert seen[0] < -0.3 and seen[-1] > 0.3 and seen[1] + 0.4 < seen[3], told
    assert min(np.diff(seen)) > -0.05, told
