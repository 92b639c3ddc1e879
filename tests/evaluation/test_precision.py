"""Smaller weights against larger ones: equal models hold, a spoilt one does not, and errors are those of the same inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_shards import CONCEPTS

from chashka import families
from chashka.cli.evaluate import evaluate
from chashka.evaluation import precision
from chashka.evaluation.gallery import galleries
from chashka.evaluation.precision import LEVELS, precision_report, relative, told
from chashka.evaluation.prompts import PROMPTS
from chashka.families import Bundle
from toy_model import toy_bundle

FEW = [prompt for prompt in PROMPTS if prompt.concept in CONCEPTS][:2]


def spoilt(share: float) -> Bundle:
    """The toy model with a network whose output is too large by ``share``."""
    bundle = toy_bundle()
    network = bundle.denoiser.network
    worse = replace(bundle.denoiser, network=lambda x, t, cond: network(x, t, cond) * np.float32(1 + share))
    return replace(bundle, denoiser=worse)


def test_equal_models_hold(shards: Path) -> None:
    report = precision_report(toy_bundle(), toy_bundle(), shards, prompts=FEW, steps=2)
    assert report.holds is True and report.pictures == 2
    assert report.psnr == (99.0, 99.0, 99.0)
    assert {d.output for d in report.differences} == {"text added", "network", "encoded", "decoded"}
    assert all(d.largest == 0 for d in report.differences)
    assert len(report.held_out) == 2 + 2 + len(LEVELS)
    assert "holds within 1%: yes" in told(report)


def test_errors_are_of_the_same_inputs_and_do_not_add_up() -> None:
    report = precision_report(toy_bundle(), spoilt(0.1), prompts=FEW, steps=4)
    (network,) = (d for d in report.differences if d.output == "network")
    assert network.calls == 2 * 4
    assert network.median == pytest.approx(0.1, rel=1e-4) and network.largest == pytest.approx(0.1, rel=1e-4)
    assert report.psnr[0] < 40 and report.holds is None
    assert "not judged: give --shards" in told(report)[-1]


def test_networks_that_see_the_mask_are_told_that_nothing_is_kept(shards: Path) -> None:
    bundle, seen = toy_bundle(), list[Any]()
    channels = bundle.codec.channels

    def network(x: Any, t: Any, cond: Any, /) -> Any:
        seen.append(x[:, channels:])
        return bundle.denoiser.network(x[:, :channels], t, cond)

    masked = replace(bundle, masked=True, denoiser=replace(bundle.denoiser, network=network))
    some = galleries(shards)[1].spread(2)
    assert precision.denoising_errors(masked, some, {}) == precision.denoising_errors(bundle, some, {})
    assert seen and all((one[:, 0] == 1).all() and (one[:, 1:] == 0).all() for one in seen)


def test_a_spoilt_model_does_not_hold(shards: Path) -> None:
    report = precision_report(toy_bundle(), spoilt(0.3), shards, prompts=FEW, steps=2)
    assert report.holds is False
    failed = [figure.figure for figure in report.held_out if not figure.holds]
    assert any(name.startswith("denoising error") for name in failed)
    assert any("DOES NOT HOLD" in line for line in told(report))


def test_relative_errors() -> None:
    assert relative(np.array([3.0, 0.0]), np.array([2.0, 0.0])) == pytest.approx(0.5)
    assert relative(np.zeros(2), np.zeros(2)) == 0 and relative(np.ones(2), np.zeros(2)) == 1


def test_the_command(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> Bundle:
        loaded.append((name, options))
        return spoilt(0.3) if name == "./small" else toy_bundle()

    monkeypatch.setattr(families, "load", load)
    given = precision.precision_report.__kwdefaults__
    monkeypatch.setattr(precision.precision_report, "__kwdefaults__", {**given, "prompts": FEW})
    out = tmp_path / "p.json"
    words = ["precision", "--int8", "./small", "--shards", str(shards), "--steps", "2", "-n", "3", "--out", str(out)]
    result = CliRunner().invoke(evaluate, words, catch_exceptions=False)
    assert result.exit_code == 0 and "holds within 1%: no" in result.output
    assert [name for name, _ in loaded] == [families.DEFAULT, "./small"]
    assert all(options["precision"] == "f32" for _, options in loaded)
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert stored["holds"] is False and stored["settings"]["steps"] == 2
    assert stored["pictures"] == 3 * len(FEW)
