"""PSNR and IoU against closed forms; the reports from made pictures, a toy model and a judge that looks at colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_shards import CONCEPTS, some_ids

from chashka.errors import TrainingError
from chashka.evaluation.drawing import Float
from chashka.evaluation.gallery import galleries
from chashka.evaluation.metrics import (
    CAVEAT,
    THRESHOLDS,
    alpha_iou,
    autoencoder_report,
    psnr,
    recognition_report,
    threshold_report,
)
from chashka.evaluation.prompts import PROMPTS, SINGLE
from toy_model import colour, toy_bundle

KNOWN = [prompt for prompt in PROMPTS if prompt.concept in CONCEPTS]


class ByColour:
    """Alike is what has the colour that the toy model gives to the prompt of a concept."""

    name = "colours"

    def __init__(self, concepts: Sequence[str], texts: Sequence[str]) -> None:
        self.concepts = list(concepts)
        self._colours = np.stack([colour(text) for text in texts])

    def scores(self, small: Float) -> Float:
        mean = small.mean(axis=(2, 3))
        scores: Float = -np.square(mean[:, None] - self._colours[None]).sum(axis=2)
        return scores


@given(st.integers(1, 255))
def test_psnr_of_a_constant_error(step: int) -> None:
    flat = np.zeros((4, 4, 3), np.uint8)
    assert psnr(flat, flat + np.uint8(step)) == pytest.approx(20 * math.log10(255 / step))
    assert psnr(flat / 255.0, (flat + np.uint8(step)) / 255.0, peak=1.0) == pytest.approx(20 * math.log10(255 / step))


def test_psnr_of_equal_pictures_is_endless() -> None:
    assert psnr([[7]], [[7]]) == math.inf


def test_alpha_iou() -> None:
    a, b = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    assert alpha_iou(a, b) == 1
    a[:, :4], b[:, 2:6] = 255, 200
    assert alpha_iou(a, b) == pytest.approx(2 / 6)
    assert alpha_iou(a, b * 0) == 0
    assert alpha_iou(a, a) == 1


def test_the_codec_on_held_out_pictures(shards: Path) -> None:
    """The toy codec averages 16×16 pixels: exact inside, coarse at edges, so neither bad nor perfect."""
    seen: list[None] = []
    report = autoencoder_report(toy_bundle(), shards, on_picture=lambda: seen.append(None))
    assert report.pictures == len(seen) == 6
    assert 10 < report.psnr_low <= report.psnr < 60
    assert 0.7 < report.alpha_iou_low <= report.alpha_iou <= 1
    assert {id_ for id_, _ in report.worst} <= set(some_ids(6, True))
    assert [quality for _, quality in report.worst] == sorted(quality for _, quality in report.worst)
    assert autoencoder_report(toy_bundle(), shards, limit=2).pictures == 2


def test_a_codec_that_changes_nothing_is_perfect(shards: Path) -> None:
    bundle = toy_bundle()

    class Same:
        factor, channels = 1, 4

        def encode(self, pixels: Float, noise: Float | None = None) -> Float:
            return pixels

        decode = preview = encode

    same = replace(bundle, codec=Same())
    report = autoencoder_report(same, shards)
    assert (report.psnr, report.alpha_iou) == (99.0, 1.0)


def test_recognition_counts_ranks_among_all_concepts(shards: Path) -> None:
    wanted = {prompt.concept: prompt for prompt in reversed(KNOWN)}
    others = [f"other:{i}" for i in range(40)]
    judge = ByColour([*wanted, *others], [*(prompt.text for prompt in wanted.values()), *others])
    report = recognition_report(toy_bundle(), judge, held_out=galleries(shards)[1], prompts=KNOWN)
    # "3d: a red apple" and "красное яблоко" are one concept and two colours: the judge knows the first one's.
    right = [verdict for verdict in report.verdicts if verdict.prompt != "красное яблоко"]
    assert [verdict.rank for verdict in right] == [1] * len(right)
    assert all(verdict.seen[0] == verdict.concept for verdict in right)
    assert report.drawn.pictures == len(KNOWN) == 4
    assert 0.75 <= report.drawn.top1 <= report.drawn.top5 <= 1
    assert report.english is not None
    assert report.english.top1 == 1
    assert report.others is not None
    assert report.held_out is not None
    assert report.held_out.pictures == 6
    assert (report.judge, report.concepts) == ("colours", 43)
    assert "same pictures" in report.caveat
    assert report.caveat == CAVEAT


def test_a_judge_that_knows_nothing_is_right_by_chance_alone() -> None:
    class Blind:
        name, concepts = "blind", CONCEPTS

        def scores(self, small: Float) -> Float:
            return np.zeros((len(small), len(CONCEPTS)), np.float32)

    report = recognition_report(toy_bundle(), Blind(), prompts=KNOWN, steps=1)
    assert report.drawn.top1 == 0  # equal scores are no choice
    assert report.drawn.top5 == 1  # there are three concepts only
    assert report.held_out is None


def test_several_pictures_of_each_prompt() -> None:
    judge = ByColour(CONCEPTS, CONCEPTS)
    report = recognition_report(toy_bundle(), judge, prompts=KNOWN[:2], n=3, steps=1)
    assert [(verdict.seed, verdict.picture) for verdict in report.verdicts] == [
        (prompt.seed, picture) for prompt in KNOWN[:2] for picture in range(3)
    ]
    assert report.drawn.pictures == 6


def test_concepts_that_the_judge_does_not_know_are_refused() -> None:
    judge = ByColour(CONCEPTS, CONCEPTS)
    with pytest.raises(TrainingError, match="does not know 38 of 42 concepts asked for; first: emoji:1f419"):
        recognition_report(toy_bundle(), judge, prompts=SINGLE)


def test_thresholds_are_compared_on_the_same_seeds() -> None:
    judge = ByColour(CONCEPTS, [p.text for p in (PROMPTS[2], *KNOWN[2:])])
    report = threshold_report(toy_bundle(), judge, prompts=KNOWN, steps=4, guidance_scale=3.0)
    assert [kind.denoised_type for kind in report.kinds] == list(THRESHOLDS)
    assert report.settings["eta"] == 0.01
    assert report.settings["steps"] == 4
    assert "denoised_type" not in report.settings
    assert len(report.differences) == 3
    assert {(d.first, d.second) for d in report.differences} == {
        ("dynamic_threshold", "clip_denoised"),
        ("dynamic_threshold", "none"),
        ("clip_denoised", "none"),
    }
    for difference in report.differences:
        assert difference.lowest <= difference.median <= difference.highest <= 99
    assert all(kind.recognition is not None and kind.recognition.pictures == 4 for kind in report.kinds)


def test_without_a_judge_thresholds_are_compared_all_the_same() -> None:
    report = threshold_report(toy_bundle(), prompts=KNOWN[:2], steps=2)
    assert all(kind.recognition is None for kind in report.kinds)
    assert report.settings["guidance_scale"] == 10
