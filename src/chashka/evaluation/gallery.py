"""The pictures of a shard folder at 64×64, and which of them is nearest to a drawn one.

The distance is the root of the mean squared difference of premultiplied RGBA in [0, 1], over the places where either picture
is not transparent; a picture and its mirror image count as one, as training mirrors pictures. Whether a model repeats a
picture it has learnt shows in the ratio of the distances to the nearest and to the second nearest one: below 1/3 the nearest
stands out (Bonnaire et al., arXiv 2505.17638). Pictures that were kept from training give the same figures for what is
surely no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from chashka.data.manifest import Manifest
from chashka.data.shards import Shard
from chashka.errors import TrainingError
from chashka.evaluation.drawing import SMALL, Float, shrunk

Bytes: TypeAlias = npt.NDArray[np.uint8]
Encode: TypeAlias = Callable[[Float], Float]
MANIFEST = "manifest.jsonl.gz"
LEARNT = 0.1
"""Pictures of at most this weight (skin tones, clock faces, …) are not shown to the U-Net, and are left out here."""
COPIED = 1 / 3
CANDIDATES = 5
"""Latent distances are taken to so many pictures, the nearest in pixels."""
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest training picture: its manifest id, concept and licence ("" if there is no manifest), and its distance.

    ``ratio``: to the distance of the second nearest. ``latent_id`` and ``latent_distance``: the nearest by the encoder's
    latents (root mean square), among the five nearest in pixels; None where the latents cannot be had.
    """

    id: str
    concept: str
    licence: str
    distance: float
    ratio: float
    latent_id: str | None = None
    latent_distance: float | None = None


class Gallery:
    """Pictures in memory at 64×64, and whole ones when asked for; ``ids`` and ``concepts`` (N,); ``names`` of all concepts."""

    def __init__(self, places: Sequence[tuple[Shard, int]], small: Bytes, licences: dict[str, str]) -> None:
        self._places, self._small, self._licences = places, small, licences
        self.ids = [shard.ids[i] for shard, i in places]
        self.names = list(places[0][0].concepts)
        self.concepts = [self.names[shard.concept[i]] for shard, i in places]

    def __len__(self) -> int:
        return len(self._places)

    def pixels(self, row: int) -> Float:
        """One picture as networks see it: float32 (1, 4, H, W), premultiplied in [-1, 1]."""
        shard, i = self._places[row]
        return as_network(shard.picture(i))[None]

    def licence(self, row: int) -> str:
        """What the manifest says of a picture; "" without one."""
        return self._licences.get(self.ids[row], "")

    def small(self, rows: slice = slice(None)) -> Float:
        """Pictures as the image tower sees them: float32 (B, 4, 64, 64) in [-1, 1]."""
        return as_network(self._small[rows].reshape(-1, SMALL, SMALL, 4))

    def spread(self, count: int) -> Gallery:
        """At most ``count`` of the pictures, at even distances."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        return Gallery([self._places[i] for i in rows], self._small[rows], self._licences)

    def distances(self, small: Float) -> Float:
        """float32 (Q, 4, 64, 64) in [-1, 1] → (Q, N): see the module. Exact to about 0.001."""
        wanted = [_flat(small), _flat(small[..., ::-1])]
        found = [np.empty((len(small), len(self)), np.float32) for _ in wanted]
        for start in range(0, len(self), _BLOCK):
            block = self._small[start : start + _BLOCK].astype(np.float32) / np.float32(255)
            inside = (block[:, 3::4] > 0).astype(np.float32)
            for query, out in zip(wanted, found, strict=True):
                covered = (query[:, 3::4] > 0).astype(np.float32)
                union = covered.sum(1)[:, None] + inside.sum(1)[None] - covered @ inside.T
                square = (query**2).sum(1)[:, None] + (block**2).sum(1)[None] - 2 * (query @ block.T)
                out[:, start : start + _BLOCK] = _root(square, union)
        return np.minimum(found[0], found[1])

    def nearest(self, pixels: Float, encode: Encode | None = None) -> list[Nearest]:
        """The nearest picture to each of float32 (Q, 4, H, W) in [-1, 1]. ``encode``: pixels → latents, for the second measure."""
        small = shrunk(pixels)
        distances = self.distances(small)
        return [self._nearest(pixels[q], small[q], distances[q], encode) for q in range(len(pixels))]

    def _nearest(self, pixels: Float, small: Float, distances: Float, encode: Encode | None) -> Nearest:
        candidates = np.argsort(distances, kind="stable")[:CANDIDATES]
        exact = np.array([self._exact(small, row) for row in candidates])
        order = np.argsort(exact, kind="stable")
        first = int(candidates[order[0]])
        distance, other = float(exact[order[0]]), float(exact[order[min(1, len(order) - 1)]])
        latent: tuple[str | None, float | None] = (None, None)
        if encode is not None and pixels.shape == self.pixels(first).shape[1:]:
            latent = self._nearest_latent(pixels, candidates, encode)
        ratio = distance / other if other > 0 else 1.0
        id_ = self.ids[first]
        return Nearest(id_, self.concepts[first], self.licence(first), distance, ratio, *latent)

    def _exact(self, small: Float, row: int) -> float:
        """The distance without the rounding errors of ``distances``, which matter for copies."""
        picture = self._small[row].astype(np.float32)[None] / np.float32(255)
        both = []
        for query in (_flat(small[None]), _flat(small[None, ..., ::-1])):
            union = ((query[:, 3::4] > 0) | (picture[:, 3::4] > 0)).sum()
            both.append(_root(np.square(query - picture).sum(), union))
        return float(min(both))

    def _nearest_latent(self, pixels: Float, candidates: npt.NDArray[np.int64], encode: Encode) -> tuple[str, float]:
        latents = encode(np.concatenate([pixels[None], *(self.pixels(int(row)) for row in candidates)]))
        gaps = np.sqrt(np.square(latents[1:] - latents[:1]).mean(axis=(1, 2, 3)))
        best = int(np.argmin(gaps))
        return self.ids[candidates[best]], float(gaps[best])


@dataclass(frozen=True, slots=True)
class Nearness:
    """Figures over several pictures: medians of distance, ratio and latent distance; ``copied``: the share below 1/3."""

    pictures: int
    distance: float
    ratio: float
    copied: float
    latent_distance: float | None


def nearness(found: Sequence[Nearest]) -> Nearness:
    """Sum up what :meth:`Gallery.nearest` found; there is at least one."""
    latent = [n.latent_distance for n in found if n.latent_distance is not None]
    ratios = [n.ratio for n in found]
    return Nearness(
        len(found),
        float(np.median([n.distance for n in found])),
        float(np.median(ratios)),
        float(np.mean([ratio < COPIED for ratio in ratios])),
        float(np.median(latent)) if latent else None,
    )


def open_shards(folder: Path) -> list[Shard]:
    """The picture shards of a folder. Raises TrainingError where there are none or they cannot be compared."""
    paths = sorted(folder.glob("pictures-*.safetensors"))
    if not paths:
        raise TrainingError(
            f"{folder}: no pictures-*.safetensors there; build them with: chashka data build --out {folder}"
        )
    shards = [Shard(path) for path in paths]
    if any(shard.size % SMALL for shard in shards):
        raise TrainingError(
            f"{folder}: pictures of {shards[0].size} pixels; a multiple of {SMALL} is needed to compare them"
        )
    return shards


def galleries(folder: Path, without: Collection[str] = ()) -> tuple[Gallery, Gallery]:
    """(training pictures, held-out pictures) of a folder, without those that are too light for any U-Net, and without the sources
    ``without``: those that a model's recipe leaves to judges (``drawing.left_out``) are none of its training pictures.

    Raises TrainingError where there are none of either, FileError for damaged files.
    """
    shards = open_shards(folder)
    manifest = folder / MANIFEST
    licences = {e.id: e.licence for e in Manifest.read(manifest).entries} if manifest.is_file() else {}
    sides: tuple[list[tuple[Shard, int]], list[tuple[Shard, int]]] = ([], [])
    for shard in shards:
        for i in np.flatnonzero(shard.weight > LEARNT):
            if without and shard.sources[i] in without:
                continue
            sides[int(bool(shard.held_out[i]))].append((shard, int(i)))
    if not all(sides):
        raise TrainingError(
            f"{folder}: {len(sides[0])} training and {len(sides[1])} held-out pictures; both are needed"
        )
    training, held_out = (Gallery(places, _all_small(places), licences) for places in sides)
    return training, held_out


def titles(folder: Path, gallery: Gallery) -> list[str]:
    """What the manifest of a folder calls each picture in English. Raises FileError, and TrainingError for one it does not name."""
    said = {entry.id: entry.title for entry in Manifest.read(folder / MANIFEST).entries}
    lacking = [id_ for id_ in gallery.ids if not said.get(id_)]
    if lacking:
        raise TrainingError(f"{folder}: {MANIFEST} has no title of {lacking[0]}; build the shards again")
    return [said[id_] for id_ in gallery.ids]


def as_network(pixels: Bytes) -> Float:
    """uint8 (…, H, W, 4) premultiplied, as shards have it → float32 (…, 4, H, W) in [-1, 1]."""
    values = np.moveaxis(pixels.astype(np.float32), -1, -3) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(values, dtype=np.float32)


def _all_small(places: Sequence[tuple[Shard, int]]) -> Bytes:
    small = np.empty((len(places), SMALL * SMALL * 4), np.uint8)
    for row, (shard, i) in enumerate(places):
        factor = shard.size // SMALL
        # Rows before columns: long sums of neighbours are four times as fast as both at once.
        rows = shard.picture(i).reshape(SMALL, factor, -1).sum(axis=1, dtype=np.uint32)
        cells = rows.reshape(SMALL, SMALL, factor, 4).sum(axis=2, dtype=np.uint32)
        small[row] = np.rint(cells / factor**2).astype(np.uint8).reshape(-1)
    return small


def _flat(small: Float) -> Float:
    """(B, 4, 64, 64) in [-1, 1] → (B, 64·64·4) in [0, 1], channels last, as the gallery keeps them.

    Rounded to bytes like the gallery, so that faint alpha counts as none on both sides.
    """
    unit = np.rint((np.moveaxis(small, 1, -1) * 0.5 + 0.5) * 255) / np.float32(255)
    return np.ascontiguousarray(unit.reshape(len(small), -1), dtype=np.float32)


def _root(square: npt.NDArray[np.float32], union: npt.NDArray[np.float32]) -> Float:
    """Root of the mean over 4 channels of ``union`` places; two blank pictures are at distance 0."""
    root: Float = np.sqrt(np.maximum(square, 0) / (4 * np.maximum(union, 1))).astype(np.float32)
    return root
