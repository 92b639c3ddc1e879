"""How far a set of drawings is from a set of held-out pictures, in a space of features: FID and KID; and the CLIP score.

FID (arXiv 1706.08500) fits a Gaussian to each set, and is biased by an amount that depends on the sets' sizes; KID (arXiv
1801.01401) is the unbiased squared MMD of a cubic kernel, and is about 0 for two sets of one kind, below 0 at times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

import chashka
from chashka.errors import InputError
from chashka.evaluation.cached import DrawnPictures, Order
from chashka.evaluation.drawing import Float, shrunk
from chashka.evaluation.gallery import Gallery
from chashka.evaluation.retrieval import cosines, pooled
from chashka.families import Bundle

SUBSETS = 20
BLOCK = 16
Double = npt.NDArray[np.float64]


class Features(Protocol):
    """Pictures in numbers. ``name`` is for reports."""

    @property
    def name(self) -> str:
        """Whose features they are."""

    def features(self, pixels: Float) -> Float:
        """float32 (B, 4, H, W), premultiplied in [-1, 1] → (B, D)."""


class EncoderFeatures:
    """The autoencoder's latents, averaged over a 4×4 grid."""

    name = "autoencoder"

    def __init__(self, bundle: Bundle) -> None:
        self._codec = bundle.codec

    def features(self, pixels: Float) -> Float:
        """(B, 16·C)."""
        latents = self._codec.encode(pixels)
        b, c, h, w = latents.shape
        grid: Float = latents.reshape(b, c, 4, h // 4, 4, w // 4).mean((3, 5)).reshape(b, -1)
        return grid


class PictureTower(Protocol):
    """A picture tower that shares its space with the model's pooled texts."""

    @property
    def name(self) -> str:
        """Which one."""

    def embed(self, small: Float) -> Float:
        """float32 (B, 4, 64, 64), premultiplied in [-1, 1] → (B, D)."""


class TowerFeatures:
    """A picture tower's vectors as features."""

    def __init__(self, tower: PictureTower) -> None:
        self.name, self._tower = tower.name, tower

    def features(self, pixels: Float) -> Float:
        """(B, D)."""
        return self._tower.embed(shrunk(pixels))


def frechet(a: Float, b: Float) -> float:
    """FID of two sets (N, D), (M, D): |μa − μb|² + tr(Σa + Σb − 2(Σa Σb)^½). Raises InputError for sets of less than two."""
    if min(len(a), len(b)) < 2:
        raise InputError(f"FID: sets of {len(a)} and {len(b)} pictures; each must have at least 2")
    mean_a, mean_b = a.mean(0, dtype=np.float64), b.mean(0, dtype=np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x.astype(np.float64), rowvar=False)) for x in (a, b))
    # tr (Σa Σb)^½ is the sum of roots of the eigenvalues of the symmetric Σa^½ Σb Σa^½
    root = _root(cov_a)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _root(cov: Double) -> Double:
    values, vectors = np.linalg.eigh(cov)
    root: Double = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root


def kernel(a: Float, b: Float) -> Double:
    """(x·y / D + 1)³, (N, M)."""
    product: Double = (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3
    return product


def squared_mmd(a: Float, b: Float) -> float:
    """The unbiased estimate (Gretton et al. 2012, eq. 3): no picture is compared with itself."""
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise InputError(f"KID: sets of {n} and {m} pictures; each must have at least 2")
    own = kernel(a, a), kernel(b, b)
    within = [(k.sum() - np.trace(k)) / (size * (size - 1)) for k, size in zip(own, (n, m), strict=True)]
    return float(within[0] + within[1] - 2 * kernel(a, b).mean())


def kid(a: Float, b: Float, subsets: int = SUBSETS, size: int = 500, seed: int = 0) -> tuple[float, float]:
    """(KID, its standard error) over random subsets of at most ``size`` pictures (half of a set where it is smaller).

    Subsets overlap, so that the error is a lower bound.
    """
    size = max(min(size, len(a) // 2, len(b) // 2), 2)
    rng = np.random.default_rng(seed)
    values = [
        squared_mmd(*(x[rng.choice(len(x), min(size, len(x)), replace=False)] for x in (a, b))) for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(subsets))


@dataclass(frozen=True, slots=True)
class Distance:
    """Between the held-out pictures and another set, in one space. ``kid`` and its error are times 1000, as is usual."""

    features: str
    pictures: int
    fid: float
    kid: float
    kid_error: float


@dataclass(frozen=True, slots=True)
class DistributionReport:
    """``drawn``: the model's drawings of the held-out pictures' names. ``training``: as many training pictures, of the same
    concepts where there are some, which is how near another set of real pictures is. ``clip_score``: mean cosine of a drawing
    and its own text, ``clip_others`` with other texts; None without a tower."""

    model: str
    version: str
    weights: dict[str, str]
    settings: dict[str, Any]
    held_out: int
    drawn: tuple[Distance, ...]
    training: tuple[Distance, ...]
    clip_score: float | None
    clip_others: float | None


def distribution_report(
    drawn: DrawnPictures,
    training: Gallery,
    held_out: Gallery,
    names: Sequence[str],
    spaces: Sequence[Features],
    *,
    tower: PictureTower | None = None,
    on_picture: Callable[[], object] | None = None,
) -> DistributionReport:
    """Draw ``names`` (one for each held-out picture, seed i) and compare. Raises what drawing raises."""
    pictures = np.concatenate([drawn(Order(name, i), on_picture) for i, name in enumerate(names)])
    rows = same_concepts(training, held_out.concepts)
    far, near = [], []
    for space in spaces:
        known = of_gallery(space, held_out, range(len(held_out)))
        far.append(distance(space.name, known, of_pictures(space, pictures)))
        near.append(distance(space.name, known, of_gallery(space, training, rows)))
    score = None if tower is None else clip_score(drawn.bundle, tower, names, pictures)
    return DistributionReport(
        drawn.bundle.model,
        chashka.__version__,
        drawn.weights,
        drawn.settings(),
        len(held_out),
        tuple(far),
        tuple(near),
        *((None, None) if score is None else score),
    )


def distance(name: str, a: Float, b: Float) -> Distance:
    """FID and KID between two sets of features."""
    value, error = kid(a, b)
    return Distance(name, len(b), frechet(a, b), 1000 * value, 1000 * error)


def clip_score(bundle: Bundle, tower: PictureTower, texts: Sequence[str], pixels: Float) -> tuple[float, float]:
    """Mean cosines of pictures with their own texts, and with all other texts.

    Raises InputError where tower and texts do not share a space.
    """
    said, seen = pooled(bundle.text, texts), of_pictures(TowerFeatures(tower), pixels)
    if said.shape[1] != seen.shape[1]:
        raise InputError(
            f"tower: its vectors have {seen.shape[1]} numbers, the model's texts {said.shape[1]}; give the tower that was "
            "trained with this model's text encoder"
        )
    table = cosines(seen, said)
    own = float(np.trace(table))
    others = (float(table.sum()) - own) / max(table.size - len(table), 1)
    return own / len(table), others


def same_concepts(training: Gallery, concepts: Sequence[str]) -> list[int]:
    """One training picture for each concept, another one each time it comes again; any picture where there is none left."""
    left: dict[str, list[int]] = {}
    for row, concept in enumerate(training.concepts):
        left.setdefault(concept, []).append(row)
    spare = iter(np.random.default_rng(0).permutation(len(training)).tolist())
    return [left[concept].pop(0) if left.get(concept) else next(spare) for concept in concepts]


def of_gallery(space: Features, gallery: Gallery, rows: Sequence[int]) -> Float:
    """(len(rows), D), a few pictures in memory at a time."""
    parts = [
        space.features(np.concatenate([gallery.pixels(row) for row in rows[i : i + BLOCK]]))
        for i in range(0, len(rows), BLOCK)
    ]
    return np.concatenate(parts)


def of_pictures(space: Features, pixels: Float) -> Float:
    """(B, D)."""
    return np.concatenate([space.features(pixels[i : i + BLOCK]) for i in range(0, len(pixels), BLOCK)])
