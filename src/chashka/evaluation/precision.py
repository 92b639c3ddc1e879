"""Do smaller weights hold? Two models of the same networks, one of them stored in fewer bits, on the same seeds.

Errors of networks are measured where sampling really goes: along the reference's own trajectories, both networks are given the
same input. What decides are figures on pictures that were kept from training, which may get worse by one part in a hundred;
pictures need not be equal, as small differences at the first step grow over a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from chashka.data.manifest import Manifest
from chashka.diffusion import Conditioning, Network, PictureNoise, mask_channels
from chashka.evaluation.drawing import Drawing, Float, draw_prompts, left_out, network_pixels, settings, weights_of
from chashka.evaluation.gallery import MANIFEST, Gallery, galleries
from chashka.evaluation.judge import Judge, NearestJudge
from chashka.evaluation.metrics import HIGHEST, autoencoder_report, judged, psnr
from chashka.evaluation.prompts import PROMPTS, Prompt
from chashka.families import Bundle
from chashka.images import flatten

LIMIT = 0.01
"""How much worse a held-out figure may get: a share of it, or of all pictures where it is a share itself."""
LEVELS = (0.15, 0.5, 1.5, 6.0)
"""Noise levels σ at which held-out pictures are denoised, in units of the data."""
HELD_OUT = 96
"""So many held-out pictures at most, spread evenly."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Relative error ‖other - reference‖ / ‖reference‖ of one output over all calls: median and largest."""

    output: str
    calls: int
    median: float
    largest: float


@dataclass(frozen=True, slots=True)
class Held:
    """A held-out figure of both models; ``worse``: by how much, negative where it got better; ``pictures`` behind it."""

    figure: str
    reference: float
    other: float
    worse: float
    pictures: int

    @property
    def holds(self) -> bool:
        """Whether it got worse by at most ``LIMIT``."""
        return self.worse <= LIMIT


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """``bytes``: of the weights, reference and other. ``psnr``: between their pictures on white, in decibels: median, lowest,
    highest. ``holds``: whether every held-out figure does; None without held-out pictures."""

    model: str
    engine: str
    weights: dict[str, str]
    other_weights: dict[str, str]
    bytes: tuple[int, int]
    settings: dict[str, Any]
    pictures: int
    psnr: tuple[float, float, float]
    differences: tuple[Difference, ...]
    held_out: tuple[Held, ...]
    holds: bool | None


def precision_report(
    reference: Bundle,
    other: Bundle,
    shards: Path | None = None,
    *,
    prompts: Sequence[Prompt] = PROMPTS,
    on_picture: Callable[[], object] | None = None,
    **fields: Any,
) -> PrecisionReport:
    """Compare ``other`` with ``reference`` over the fixed prompts, each drawn by both with the same seed.

    shards: also held-out figures, from this folder. ``fields``: of the request. Raises what drawing and ``galleries`` raise.
    """
    both = _Both(reference.denoiser.network, other.denoiser.network)
    watched = replace(reference, denoiser=replace(reference.denoiser, network=both))
    first = draw_prompts(watched, prompts, on_picture=on_picture, **fields)
    second = draw_prompts(other, prompts, on_picture=on_picture, **fields)
    pairs = zip(first, second, strict=True)
    decibels = [min(psnr(flatten(a.picture.pixels), flatten(b.picture.pixels)), HIGHEST) for a, b in pairs]
    found = {
        **_texts(reference, other, prompts),
        "network": both.errors,
        **_codec(reference, other, network_pixels(first)),
    }
    held = () if shards is None else tuple(_held((reference, other), (first, second), shards))
    return PrecisionReport(
        reference.model,
        reference.engine,
        weights_of(reference),
        weights_of(other),
        (_bytes(reference), _bytes(other)),
        settings(first[0].picture.request),
        len(first),
        (float(np.median(decibels)), min(decibels), max(decibels)),
        tuple(Difference(name, len(e), float(np.median(e)), max(e)) for name, e in found.items()),
        held,
        all(figure.holds for figure in held) if held else None,
    )


def relative(a: Float, b: Float) -> float:
    """‖a - b‖ / ‖b‖; 0 where both are zero."""
    length = float(np.linalg.norm(b))
    gap = float(np.linalg.norm(np.asarray(a, np.float64) - b))
    return gap / length if length else float(gap > 0)


class _Both:
    """The first network, which also notes how far the second one is from it on the same input."""

    def __init__(self, first: Network, second: Network) -> None:
        self.first, self.second = first, second
        self.errors: list[float] = []

    def __call__(self, x: Float, t: Float, cond: Conditioning) -> Float:
        out: Float = self.first(x, t, cond)
        self.errors.append(relative(self.second(x, t, cond), out))
        return out


def _texts(reference: Bundle, other: Bundle, prompts: Sequence[Prompt]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for prompt in prompts:
        a, b = reference.text.encode([prompt.text]), other.text.encode([prompt.text])
        for name in a:
            found.setdefault(f"text {name}", []).append(relative(b[name], a[name]))
    return found


def _codec(reference: Bundle, other: Bundle, pixels: Float) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"encoded": [], "decoded": []}
    for row in range(len(pixels)):
        x = reference.codec.encode(pixels[row : row + 1])
        found["encoded"].append(relative(other.codec.encode(pixels[row : row + 1]), x))
        found["decoded"].append(relative(other.codec.decode(x), reference.codec.decode(x)))
    return found


def _held(bundles: tuple[Bundle, Bundle], drawn: tuple[list[Drawing], list[Drawing]], shards: Path) -> list[Held]:
    training, kept = galleries(shards, left_out(bundles[0]))
    some, texts = kept.spread(HELD_OUT), _titles(shards)
    figures = _recognised(drawn, NearestJudge(training))
    coded = [autoencoder_report(bundle, shards, limit=HELD_OUT) for bundle in bundles]
    for name in ("psnr", "alpha_iou"):
        a, b = (float(getattr(report, name)) for report in coded)
        figures.append(Held(f"autoencoder, {name}", a, b, (a - b) / a, coded[0].pictures))
    errors = [denoising_errors(bundle, some, texts) for bundle in bundles]
    for level, a, b in zip(LEVELS, *errors, strict=True):
        figures.append(Held(f"denoising error at sigma {level:g}", a, b, (b - a) / a, len(some)))
    return figures


def _recognised(drawn: tuple[list[Drawing], list[Drawing]], judge: Judge) -> list[Held]:
    """Of the drawings that ask for one thing which the judge knows."""
    asked = [[d for d in drawings if d.prompt.concept in judge.concepts] for drawings in drawn]
    if not asked[0]:
        return []
    ranks = [np.array([verdict.rank for verdict in judged(drawings, judge)]) for drawings in asked]
    figures = []
    for first in (1, 5):
        a, b = (float((rank <= first).mean()) for rank in ranks)
        figures.append(Held(f"recognised among the first {first}", a, b, a - b, len(ranks[0])))
    return figures


def denoising_errors(bundle: Bundle, pictures: Gallery, texts: dict[str, str]) -> list[float]:
    """Mean squared error of what the model makes of held-out pictures in noise, at each of ``LEVELS``, with fixed noise.

    texts: by id of the picture, what it is called; no text where none is known.
    """
    total = np.zeros(len(LEVELS))
    for row in range(len(pictures)):
        x = bundle.codec.encode(pictures.pixels(row))
        cond = {**bundle.text.encode([texts.get(pictures.ids[row], "")])}
        if bundle.masked:  # nothing of the picture is kept
            cond["concat"] = mask_channels(np.zeros_like(x), np.ones_like(x[:, :1]))
        noise = PictureNoise([row], x.shape[1:])
        for number, sigma in enumerate(LEVELS):
            noisy = x + np.float32(sigma) * noise(number)
            total[number] += float(np.square(bundle.denoiser(noisy, sigma, cond) - x).mean())
    return [float(value) for value in total / len(pictures)]


def _titles(shards: Path) -> dict[str, str]:
    manifest = shards / MANIFEST
    return {e.id: e.title for e in Manifest.read(manifest).entries} if manifest.is_file() else {}


def _bytes(bundle: Bundle) -> int:
    names = [name for name in bundle.preset.needed if name.endswith(".safetensors")]
    return sum((bundle.preset.place / name).stat().st_size for name in names)


def told(report: PrecisionReport) -> list[str]:
    """The report for people, a line each."""
    before, after = report.bytes
    lines = [
        f"weights: {after:,} bytes instead of {before:,}",
        f"pictures: PSNR {report.psnr[0]:.2f} dB (median of {report.pictures}; {report.psnr[1]:.2f} to {report.psnr[2]:.2f})",
        *(
            f"{d.output}: relative error {d.median:.5f} (median of {d.calls}; at most {d.largest:.5f})"
            for d in report.differences
        ),
    ]
    for figure in report.held_out:
        verdict = "holds" if figure.holds else "DOES NOT HOLD"
        change = f"{abs(figure.worse):.2%} {'worse' if figure.worse > 0 else 'better or equal'}"
        values = f"{figure.other:.5g} instead of {figure.reference:.5g}"
        lines.append(f"{figure.figure}: {values}, {change}, {verdict} ({figure.pictures} pictures)")
    words = {None: "not judged: give --shards", True: "yes", False: "no"}
    return [*lines, f"holds within {LIMIT:.0%}: {words[report.holds]}"]
