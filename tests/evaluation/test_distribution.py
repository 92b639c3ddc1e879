"""FID and KID have closed forms; features, names and scores are those of the sets they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chashka.errors import InputError
from chashka.evaluation.cached import DrawnPictures
from chashka.evaluation.distribution import (
    EncoderFeatures,
    clip_score,
    distance,
    distribution_report,
    frechet,
    kernel,
    kid,
    same_concepts,
    squared_mmd,
)  # fmt: skip
from chashka.evaluation.drawing import Float
from chashka.evaluation.gallery import galleries
from toy_model import PlainText, colour, toy_bundle


def gaussian(n: int, d: int = 4, mean: float = 0.0, scale: float = 1.0, seed: int = 0) -> Float:
    return (np.random.default_rng(seed).normal(mean, scale, (n, d))).astype(np.float32)


def exact(n: int, mean: Sequence[float], scale: Sequence[float], seed: int) -> Float:
    """A sample with exactly this mean and this diagonal covariance."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)).T)
    return x * np.asarray(scale) + np.asarray(mean)


def test_fid_of_gaussians_is_known() -> None:
    """|Δμ|² + Σ(σa − σb)² for diagonal covariances."""
    a, b = exact(400, (0, 0, 0), (1, 2, 3), 0), exact(300, (3, 0, 4), (2, 2, 1), 1)
    assert frechet(a, b) == pytest.approx(25 + 1 + 0 + 4, rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-9)


def test_kid_is_unbiased() -> None:
    """The mean over many pairs of small sets of one kind is 0; the biased estimate's is not."""
    pairs = [(gaussian(8, seed=2 * i), gaussian(8, seed=2 * i + 1)) for i in range(400)]
    values = np.array([squared_mmd(a, b) for a, b in pairs])
    error = values.std() / 20
    assert abs(values.mean()) < 3 * error
    biased = np.array([kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean() for a, b in pairs])
    assert biased.mean() > 10 * error


def test_kid_of_shifted_sets_is_known() -> None:
    """In one dimension with kernel (xy + 1)³ and points at 0 and c: k(0,0) = k(0,c) = 1, k(c,c) = (c² + 1)³."""
    zero, two = np.zeros((5, 1), np.float32), np.full((6, 1), 2.0, np.float32)
    assert squared_mmd(zero, two) == pytest.approx(1 + 125 - 2)
    assert squared_mmd(zero, zero) == pytest.approx(0)
    near, far = (kid(gaussian(200), gaussian(200, mean=m, seed=1))[0] for m in (0.0, 1.0))
    assert abs(near) < 0.1 < far
    assert kid(gaussian(50), gaussian(50, seed=1)) == kid(gaussian(50), gaussian(50, seed=1))


def test_sets_of_one_are_refused() -> None:
    with pytest.raises(InputError, match="at least 2"):
        frechet(gaussian(1), gaussian(5))
    with pytest.raises(InputError, match="at least 2"):
        squared_mmd(gaussian(5), gaussian(1))


def test_report_of_a_toy(shards: Path, tmp_path: Path) -> None:
    training, held_out = galleries(shards)
    bundle = toy_bundle()
    drawn = DrawnPictures(bundle, tmp_path, steps=1)
    names = [f"thing {i}" for i in range(len(held_out))]
    seen: list[int] = []
    report = distribution_report(
        drawn, training, held_out, names, [EncoderFeatures(bundle)], on_picture=lambda: seen.append(1)
    )
    assert len(seen) == report.held_out == len(held_out)
    (far,), (near,) = report.drawn, report.training
    assert far.features == "autoencoder" and far.pictures == near.pictures == len(held_out)
    assert far.fid > near.fid, "rectangles are nearer to rectangles than one-coloured pictures are"
    assert report.clip_score is None


def test_training_pictures_of_the_same_concepts(shards: Path) -> None:
    training, held_out = galleries(shards)
    rows = same_concepts(training, held_out.concepts)
    assert len(set(rows)) == len(rows)
    assert [training.concepts[row] for row in rows] == held_out.concepts


class MeanColour:
    """A tower that knows the toy's colours: its texts are the same numbers."""

    name = "mean colour"

    def embed(self, small: Float) -> Float:
        return small.mean((2, 3))


def test_clip_score_is_higher_for_the_right_text() -> None:
    bundle = toy_bundle()
    texts = [f"text {i}" for i in range(6)]
    pixels = np.stack([np.broadcast_to(colour(t)[:, None, None], (4, 256, 256)) for t in texts]).astype(np.float32)
    with pytest.raises(InputError, match="no pooled vector"):
        clip_score(replace(bundle, text=PlainText()), MeanColour(), texts, pixels)
    bundle.text.pooled = lambda rows: np.stack([colour(t) for t in rows])  # type: ignore[attr-defined]
    own, others = clip_score(bundle, MeanColour(), texts, pixels)
    assert own == pytest.approx(1, abs=1e-5) and others < own - 0.02
    bundle.text.pooled = lambda rows: np.ones((len(rows), 7), np.float32)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="its vectors have 4 numbers, the model's texts 7"):
        clip_score(bundle, MeanColour(), texts, pixels)


def test_equal_sets_have_no_distance() -> None:
    a = gaussian(60)
    found = distance("x", a, a)
    assert found.fid == pytest.approx(0, abs=1e-6) and abs(found.kid) < 1000
