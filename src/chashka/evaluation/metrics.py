"""How well: the codec's fidelity, how often drawings are recognised, and what the choice of threshold changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chashka.errors import TrainingError
from chashka.evaluation.drawing import Drawing, Float, draw_prompts, network_pixels, settings, shrunk, weights_of
from chashka.evaluation.gallery import Gallery, as_network, open_shards
from chashka.evaluation.judge import CAVEAT, Judge
from chashka.evaluation.prompts import SINGLE, Prompt
from chashka.families import Bundle
from chashka.images import flatten, from_network

HIGHEST = 99.0
"""Equal pictures have an endless PSNR; this many decibels stand for it in means."""
THRESHOLDS = ("dynamic_threshold", "clip_denoised", "none")
LISTING: dict[str, Any] = {
    "steps": 75,
    "guidance_scale": 10.0,
    "sampler": "ddim",
    "eta": 0.01,
    "dynamic_threshold_v": 99.5,
}
"""The paper's listing (README), at the model's own size."""


def psnr(a: npt.ArrayLike, b: npt.ArrayLike, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio of two arrays of one shape in decibels; infinite for equal ones."""
    error = float(np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def alpha_iou(a: npt.ArrayLike, b: npt.ArrayLike, threshold: float = 127.5) -> float:
    """Intersection over union of where two alpha planes are above ``threshold``; 1 where both are empty."""
    first, second = np.asarray(a) > threshold, np.asarray(b) > threshold
    union = int((first | second).sum())
    return 1.0 if union == 0 else int((first & second).sum()) / union


@dataclass(frozen=True, slots=True)
class AutoencoderReport:
    """Held-out pictures through the codec and back, as people would see them (8 bits).

    ``psnr``, on white, in decibels; ``alpha_iou`` at half alpha: means over pictures; ``psnr_low``, ``alpha_iou_low``: the
    5th percentiles; ``worst``: ids and PSNR of the five pictures that suffer most.
    """

    model: str
    weights: dict[str, str]
    pictures: int
    psnr: float
    psnr_low: float
    alpha_iou: float
    alpha_iou_low: float
    worst: tuple[tuple[str, float], ...]


def autoencoder_report(
    bundle: Bundle, shards: Path, *, limit: int | None = None, on_picture: Callable[[], object] | None = None
) -> AutoencoderReport:
    """Encode and decode the held-out pictures of a shard folder (``limit``: at most so many, spread evenly).

    Raises TrainingError where there are none, and what ``open_shards`` raises.
    """
    opened = open_shards(shards)
    kept = [(shard, int(i)) for shard in opened for i in np.flatnonzero(shard.held_out)]
    if not kept:
        raise TrainingError(f"{shards}: no held-out pictures there")
    if limit is not None and limit < len(kept):
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, max(limit, 1)).astype(int)]
    rows = []
    for shard, i in kept:
        given = as_network(shard.picture(i))[None]
        before, after = from_network(given)[0], from_network(bundle.codec.decode(bundle.codec.encode(given)))[0]
        quality = min(psnr(flatten(before), flatten(after)), HIGHEST)
        rows.append((shard.ids[i], quality, alpha_iou(before[..., 3], after[..., 3])))
        if on_picture is not None:
            on_picture()
    decibels, shapes = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    worst = sorted((round(quality, 2), id_) for id_, quality, _ in rows)[:5]
    return AutoencoderReport(
        bundle.model,
        weights_of(bundle),
        len(rows),
        float(decibels.mean()),
        float(np.percentile(decibels, 5)),
        float(shapes.mean()),
        float(np.percentile(shapes, 5)),
        tuple((id_, quality) for quality, id_ in worst),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge saw in picture number ``picture`` of a seed: ``rank`` of the concept asked for (1: the best), and the
    five concepts it likes best."""

    prompt: str
    language: str
    seed: int
    picture: int
    concept: str
    rank: int
    seen: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recognition:
    """Shares of pictures whose concept is the judge's first choice (``top1``), or among its first five (``top5``)."""

    pictures: int
    top1: float
    top5: float


@dataclass(frozen=True, slots=True)
class RecognitionReport:
    """``drawn``: over the prompts that ask for one thing; ``english`` and ``others``: of those; ``held_out``: the judge's own
    figures on pictures kept from training, None without them. Among ``concepts`` concepts."""

    model: str
    weights: dict[str, str]
    settings: dict[str, Any]
    judge: str
    concepts: int
    drawn: Recognition
    english: Recognition | None
    others: Recognition | None
    held_out: Recognition | None
    verdicts: tuple[Verdict, ...]
    caveat: str = CAVEAT


def recognition_report(
    bundle: Bundle,
    judge: Judge,
    *,
    held_out: Gallery | None = None,
    prompts: Sequence[Prompt] = SINGLE,
    on_picture: Callable[[], object] | None = None,
    **fields: Any,
) -> RecognitionReport:
    """Draw the prompts that ask for one thing and let the judge say what it sees. ``fields``: of the request.

    Raises TrainingError for a prompt whose concept the judge does not know, and what drawing raises.
    """
    prompts = [prompt for prompt in prompts if prompt.concept is not None]
    _check_known(prompts, judge)
    drawings = draw_prompts(bundle, prompts, on_picture=on_picture, **fields)
    verdicts = judged(drawings, judge)
    mine = [verdict.rank for verdict in verdicts if verdict.language == "en"]
    others = [verdict.rank for verdict in verdicts if verdict.language != "en"]
    return RecognitionReport(
        bundle.model,
        weights_of(bundle),
        settings(drawings[0].picture.request),
        judge.name,
        len(judge.concepts),
        _shares([verdict.rank for verdict in verdicts]),
        _shares(mine) if mine else None,
        _shares(others) if others else None,
        None if held_out is None else _shares(_ranks(judge.scores(held_out.small()), judge, held_out.concepts)),
        tuple(verdicts),
    )


def judged(drawings: Sequence[Drawing], judge: Judge) -> list[Verdict]:
    """The judge's word on drawings of prompts that ask for one thing, among all concepts."""
    scores = judge.scores(shrunk(network_pixels(drawings)))
    wanted = [drawing.prompt.concept or "" for drawing in drawings]
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    rows = zip(drawings, wanted, _ranks(scores, judge, wanted), best, strict=True)
    return [
        Verdict(
            d.prompt.text,
            d.prompt.language,
            d.prompt.seed,
            d.picture.index,
            concept,
            rank,
            tuple(judge.concepts[i] for i in seen),
        )
        for d, concept, rank, seen in rows
    ]


@dataclass(frozen=True, slots=True)
class Thresholding:
    """One ``denoised_type``: ``recognition`` is None without a judge; ``clipped``: share of colour
    values that are 0 or 255 where the picture is at least half opaque."""

    denoised_type: str
    recognition: Recognition | None
    clipped: float


@dataclass(frozen=True, slots=True)
class Difference:
    """PSNR on white between two kinds of drawings of the same seeds: median, lowest and highest over the prompts."""

    first: str
    second: str
    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class ThresholdReport:
    """The paper's listing with each ``denoised_type``, same prompts, same seeds, same noise."""

    model: str
    weights: dict[str, str]
    settings: dict[str, Any]
    pictures: int
    kinds: tuple[Thresholding, ...]
    differences: tuple[Difference, ...]
    judge: str | None = None
    caveat: str = CAVEAT


def threshold_report(
    bundle: Bundle,
    judge: Judge | None = None,
    *,
    prompts: Sequence[Prompt] = SINGLE,
    on_picture: Callable[[], object] | None = None,
    **fields: Any,
) -> ThresholdReport:
    """Draw ``prompts`` three times, with dynamic_threshold, clip_denoised and none, otherwise as the paper's listing does.

    ``fields`` replace those of the listing; None leaves them. With a judge every prompt must ask for one thing it knows.
    """
    prompts = [prompt for prompt in prompts if prompt.concept is not None]
    if judge is not None:
        _check_known(prompts, judge)
    asked = {**LISTING, **{name: value for name, value in fields.items() if value is not None}}
    drawn = {
        kind: draw_prompts(bundle, prompts, on_picture=on_picture, denoised_type=kind, **asked) for kind in THRESHOLDS
    }
    kinds = tuple(
        Thresholding(
            kind,
            None if judge is None else _shares([verdict.rank for verdict in judged(drawings, judge)]),
            _clipped(drawings),
        )
        for kind, drawings in drawn.items()
    )
    shared = {k: v for k, v in settings(drawn["none"][0].picture.request).items() if k != "denoised_type"}
    pairs = tuple(
        _difference(first, second, drawn[first], drawn[second]) for first, second in combinations(THRESHOLDS, 2)
    )
    pictures, name = len(drawn["none"]), None if judge is None else judge.name
    return ThresholdReport(bundle.model, weights_of(bundle), shared, pictures, kinds, pairs, name)


def _difference(first: str, second: str, one: Sequence[Drawing], other: Sequence[Drawing]) -> Difference:
    values = [
        min(psnr(flatten(a.picture.pixels), flatten(b.picture.pixels)), HIGHEST)
        for a, b in zip(one, other, strict=True)
    ]
    return Difference(first, second, float(np.median(values)), min(values), max(values))


def _clipped(drawings: Sequence[Drawing]) -> float:
    """The share of colour values that are 0 or 255, over the pixels that are at least half opaque."""
    shares = []
    for drawing in drawings:
        pixels = drawing.picture.pixels
        colour = pixels[pixels[..., 3] > 127][..., :3]
        shares.append(float(((colour == 0) | (colour == 255)).mean()) if colour.size else 0.0)
    return float(np.mean(shares))


def _check_known(prompts: Sequence[Prompt], judge: Judge) -> None:
    known = set(judge.concepts)
    missing = [prompt for prompt in prompts if prompt.concept not in known]
    if missing or not prompts:
        what = f"{missing[0].concept} ({missing[0].english})" if missing else "nothing to recognise in the prompts"
        raise TrainingError(
            f"the judge does not know {len(missing)} of {len(prompts)} concepts asked for; first: {what}"
        )


def _ranks(scores: Float, judge: Judge, wanted: Sequence[str]) -> list[int]:
    """The place of each wanted concept among all, from 1; concepts with an equal score come before it."""
    columns = {concept: i for i, concept in enumerate(judge.concepts)}
    own = scores[np.arange(len(scores)), [columns[concept] for concept in wanted]]
    return [int(rank) for rank in (scores >= own[:, None]).sum(axis=1)]


def _shares(ranks: Sequence[int]) -> Recognition:
    places = np.array(ranks)
    return Recognition(len(places), float((places <= 1).mean()), float((places <= 5).mean()))
